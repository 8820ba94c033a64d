"""From the key names of other projects to those of mmpretrain's ``VisionTransformer``.

Covers checkpoints with timm-style names: MAE, timm hub files, DINO, DINOv2, iBOT, MoCo v3, MSN, I-JEPA, and BEiT-style
split biases. Key names of the releases were compared with timm by output: the difference is zero.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

import torch
from torch import Tensor

# Where the weights hide in a file: mmengine, MAE, BEiT v2, I-JEPA and MSN, DINO and iBOT, I-JEPA's context encoder.
CONTAINERS = ('state_dict', 'model', 'module', 'target_encoder', 'teacher', 'encoder', 'student')

# Tried in this order when the prefix that was asked for matches nothing; the one with most matching keys wins.
PREFIXES = (
    'backbone.',
    '',
    'module.',
    'module.backbone.',
    'module.base_encoder.',
    'base_encoder.',
    'encoder.',
    'vit.',
    'model.backbone.',
    'momentum_encoder.module.0.',
)

_RENAMES = (
    (re.compile(r'^patch_embed\.proj\.'), 'patch_embed.projection.'),
    (re.compile(r'^blocks\.\d+\.(\d+)\.'), r'layers.\1.'),  # DINOv2 training files nest blocks in chunks
    (re.compile(r'^blocks\.'), 'layers.'),
    (re.compile(r'^(layers\.\d+)\.norm([12])\.'), r'\1.ln\2.'),
    (re.compile(r'^(layers\.\d+)\.mlp\.fc1\.'), r'\1.ffn.layers.0.0.'),
    (re.compile(r'^(layers\.\d+)\.mlp\.fc2\.'), r'\1.ffn.layers.1.'),
    (re.compile(r'^(layers\.\d+)\.(?:gamma_1|ls1\.gamma)$'), r'\1.attn.gamma1.weight'),
    (re.compile(r'^(layers\.\d+)\.(?:gamma_2|ls2\.gamma)$'), r'\1.ffn.gamma2.weight'),
    (re.compile(r'^norm\.'), 'ln1.'),
    (re.compile(r'^fc_norm\.'), 'ln2.'),
)


def rename_key(key: str, wanted: Container[str] = ()) -> str:
    """``blocks.0.mlp.fc1.weight`` -> ``layers.0.ffn.layers.0.0.weight``; names that are no timm names stay.

    A backbone may share only some names with timm (``BEiTViT``: ``layers.0.gamma_1``): the first name that is
    ``wanted`` is taken.
    """
    for pattern, replacement in _RENAMES:
        if key in wanted:
            break
        key = pattern.sub(replacement, key)
    return key


# mmpretrain's BEiTViT keeps BEiT's names for the layer scale; its VisionTransformer has it inside attention and MLP.
_BEIT_SCALE = re.compile(r'^(layers\.\d+)\.(?:attn\.gamma(1)|ffn\.gamma(2))\.weight$')


def _fit(name: str, wanted: Container[str]) -> str:
    """The backbone's name for ``name``, which may be its own already, timm's, or BEiT's."""
    renamed = rename_key(name, wanted)
    beit = _BEIT_SCALE.sub(lambda m: f'{m[1]}.gamma_{m[2] or m[3]}', renamed)
    return beit if beit in wanted else renamed


def unwrap(content: object, path: str) -> dict[str, Tensor]:
    """The dictionary of tensors inside a loaded checkpoint file.

    Raises:
        ValueError: The file holds no dictionary of tensors.
    """
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        name = next((n for n in CONTAINERS if isinstance(content.get(n), Mapping)), None)
        if name is None:
            tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
            if tensors:
                return tensors
            break
        content = content[name]
    raise ValueError(
        f'{path} holds no dictionary of tensors (looked under {", ".join(CONTAINERS)} and at the top): '
        f'it is no checkpoint of a model.'
    )


def _join_split_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's ``q_bias`` and ``v_bias`` -> one ``qkv.bias``; a key bias cancels in the softmax, so zeros are exact."""
    joined = dict(state)
    for key in state:
        if key.endswith('attn.q_bias'):
            stem = key[: -len('q_bias')]
            query, value = joined.pop(key), joined.pop(stem + 'v_bias')
            joined[stem + 'qkv.bias'] = torch.cat((query, torch.zeros_like(query), value))
    return joined


def select_backbone(
    state: Mapping[str, Tensor], wanted: Iterable[str], prefix: str, path: str
) -> tuple[dict[str, Tensor], str, list[str]]:
    """The part of ``state`` that belongs to a backbone with the keys ``wanted``, under the backbone's own names.

    Args:
        state (mapping): All tensors of the file.
        wanted (iterable): Keys of the backbone's state dict.
        prefix (str): Prefix to try first; it is taken if at least one key with it fits.
        path (str): The file, for messages.

    Returns:
        tuple: renamed tensors, the prefix found, and the file's other keys.

    Raises:
        ValueError: No key of the file fits under any prefix.
    """
    wanted = set(wanted)
    best: tuple[int, str, dict[str, str]] = (0, '', {})
    for candidate in dict.fromkeys((prefix, *PREFIXES)):
        names = {k: k[len(candidate) :] for k in state if k.startswith(candidate)}
        if not names:
            continue
        # A backbone that itself uses timm's names (HiViT) must keep them: rename only what does not fit as it is.
        names = {k: _fit(n, wanted) for k, n in names.items()}
        fits = sum(n in wanted for n in names.values())
        if fits > best[0]:
            best = (fits, candidate, names)
        if candidate == prefix and fits:
            break
    if best[0] == 0:
        sample = ', '.join(list(state)[:4])
        raise ValueError(
            f'{path} holds no backbone keys: none of its {len(state)} keys ({sample}, ...) fits the backbone after '
            f'removing {prefix!r} or a known prefix. Give the right checkpoint, or the prefix of the encoder in it.'
        )
    _, found, names = best
    renamed = {new: state[old] for old, new in names.items()}
    if any(k.endswith('attn.qkv.bias') for k in wanted) and not any(k.endswith('attn.q_bias') for k in wanted):
        renamed = _join_split_bias(renamed)
    return renamed, found, sorted(k for k in state if k not in names)
