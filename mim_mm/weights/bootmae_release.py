"""Weights of BootMAE's official release under our names: encoder, both decoders, and its average as the teacher.

Names of the release: the encoder's lie at the top (``patch_embed.proj``, ``cls_token``, ``pos_embed``, ``blocks.i.*``,
``norm``); those of the pixel decoder are ``decode_blocks.i.*, decode_norm, down, mask_token, de_pos_embed,
lm_head.proj``; those of the feature decoder ``decode_blocks_1.i.*, decode_norm_1, down_1, mask_token_1, lm_head_1``,
which takes its positions from the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mim_mm.checkpoint.keymap import rename_key

_BLOCK = {
    'norm1': 'ln1', 'attn': 'attn', 'norm3': 'ln_query', 'norm4': 'ln_context', 'c_attn': 'cross', 'norm2': 'ln2',
    'mlp.fc1': 'mlp.0', 'mlp.fc2': 'mlp.2',
}  # fmt: skip
_TOP = {
    'down': 'embed', 'mask_token': 'mask_token', 'de_pos_embed': 'pos_embed', 'decode_norm': 'norm', 'lm_head': 'head',
}  # fmt: skip
_BLOCKS = re.compile(rf'decode_blocks(_1)?\.(\d+)\.({"|".join(map(re.escape, _BLOCK))})\.(.+)')
_REST = re.compile(rf'({"|".join(_TOP)})(_1)?(?:\.(?:proj\.)?(\w+))?')


def from_bootmae_release(state: Mapping[str, Tensor], average: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """State dict of :class:`mim_mm.algorithms.bootmae.BootMAE` from the entries ``model`` and ``model_ema``.

    Args:
        state: the ``model`` entry. One that holds the encoder only gives ``backbone.*`` keys only.
        average: the ``model_ema`` entry; its encoder becomes ``teacher.*``, its decoders are left out.

    Raises:
        ValueError: the keys are not those of the release.
    """
    renamed = {}
    for key, value in state.items():
        renamed[_rename(key)] = value
    if average is not None:
        names = {key: _rename(key) for key in average}
        renamed.update(
            {
                'teacher.' + new.removeprefix('backbone.'): average[old]
                for old, new in names.items()
                if 'decoder' not in new
            }
        )
    positions = renamed.get('backbone.pos_embed')
    if positions is not None and 'feature_decoder.mask_token' in renamed:
        renamed['feature_decoder.pos_embed'] = positions
    return renamed


def _rename(key: str) -> str:
    found = _BLOCKS.fullmatch(key)
    if found:
        which, number, part, rest = found.groups()
        return f'{_decoder(which)}.blocks.{number}.{_BLOCK[part]}.{rest}'
    found = _REST.fullmatch(key)
    if found:
        name, which, rest = found.groups()
        return f'{_decoder(which)}.{_TOP[name]}' + (f'.{rest}' if rest else '')
    if not key.startswith(('blocks.', 'patch_embed.', 'norm.')) and key not in ('cls_token', 'pos_embed'):
        raise ValueError(
            f'{key} is no key of the BootMAE release: pass the "model" (and "model_ema") entry of its checkpoint'
        )
    return 'backbone.' + rename_key(key)


def _decoder(which: str | None) -> str:
    return 'feature_decoder' if which else 'pixel_decoder'
