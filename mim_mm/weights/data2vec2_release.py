"""data2vec 2.0's files (fairseq, examples/data2vec) under mmpretrain's names: encoder of images and decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mim_mm.checkpoint.read import LoadError

IMAGES = 'modality_encoders.IMAGE.'
# In order; behind the prefix that a fine-tuned file has.
_NAMES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r'^extra_tokens$', 'cls_token'),
        (r'^local_encoder\.proj\.', 'patch_embed.projection.'),
        (r'^(?:fixed_)?positional_encoder\.(?:positions|pos_embed)$', 'pos_embed'),
        (r'^context_encoder\.norm\.', 'pre_norm.'),
        (r'\.norm([12])\.', r'.ln\1.'),
        (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
        (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
        (r'^fc_norm\.', 'ln2.'),
    )
)
_BLOCK = re.compile(r'^(context_encoder\.)?blocks\.(\d+)\.')
_CONVOLUTION = re.compile(r'^decoder\.blocks\.(\d+)\.0\.')


def from_data2vec2_release(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that is of images, as ``PostNormViT`` names it; the decoder as ``data2vec2`` does (``decoder.*``).

    The blocks of the image encoder come first, the shared ones behind them; the class token has no position, which is a
    row of zeros here.

    Raises:
        LoadError: norms in front of the blocks, or biases by distance (ALiBi), which no released model of images has.
    """
    own = {re.sub(r'^(?:.*\.)?(?=modality_encoders\.)|^model\.', '', name): value for name, value in tensors.items()}
    other = next((name for name in own if name.startswith('norm.') or 'alibi' in name), None)
    if other:
        raise LoadError(f'{other} is of a data2vec 2.0 with norms in front or ALiBi: no backbone here computes that.')
    own = {name.removeprefix(IMAGES): value for name, value in own.items() if not name.startswith('_ema.')}
    first = len({found[2] for name in own if (found := _BLOCK.match(name)) and found[1]})
    renamed = {}
    for name, value in own.items():
        name = _BLOCK.sub(lambda found: f'layers.{int(found[2]) + (0 if found[1] else first)}.', name)
        name = _CONVOLUTION.sub(r'decoder.decoder_blocks.\1.', name)
        for pattern, to in _NAMES:
            name = pattern.sub(to, name)
        renamed[name] = value
    if 'pos_embed' in renamed:
        table = renamed['pos_embed']
        renamed['pos_embed'] = torch.cat([table.new_zeros(1, 1, table.shape[-1]), table], dim=1)
    return renamed
