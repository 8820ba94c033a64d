"""From the key names of other projects to those of mmpretrain's ``VisionTransformer``.

Covers checkpoints with timm-style names: MAE, timm hub files, DINO, DINOv2, iBOT, MoCo v3, MSN, I-JEPA, and BEiT-style
split biases. Key names of the releases were compared with timm by output: the difference is zero.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping

import torch
from torch import Tensor

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
    'module.encoder.',
    'module.vit.',
    'module.model.backbone.',
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
    (re.compile(r'^(layers\.\d+)\.mlp\.(w12|w3)\.'), r'\1.ffn.\2.'),
    (re.compile(r'^norm_pre\.'), 'pre_norm.'),
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
# timm packs the two inputs of a SwiGLU, in the same order, into fc1; an ordinary MLP differs in the shape of fc2.
_SWIGLU = {'.ffn.layers.0.0.': '.ffn.w12.', '.ffn.layers.1.': '.ffn.w3.'}


def _fit(name: str, wanted: Container[str]) -> str:
    """The backbone's name for ``name``, which may be its own already, timm's, or BEiT's."""
    renamed = rename_key(name, wanted)
    if renamed in wanted:
        return renamed
    beit = _BEIT_SCALE.sub(lambda m: f'{m[1]}.gamma_{m[2] or m[3]}', renamed)
    swiglu = next((renamed.replace(old, new) for old, new in _SWIGLU.items() if old in renamed), renamed)
    return next((n for n in (beit, swiglu) if n in wanted), renamed)


def _match_biases(state: dict[str, Tensor], wanted: Container[str]) -> dict[str, Tensor]:
    """BEiT's ``q_bias`` and ``v_bias`` <-> one ``qkv.bias``, whichever the backbone has.

    A key bias adds the same to all logits of a query and cancels in the softmax: zeros are exact, and so is leaving it
    out.
    """
    matched = dict(state)
    for key in state:
        stem, _, last = key.rpartition('attn.')
        whole, query, value, none = (f'{stem}attn.{n}' for n in ('qkv.bias', 'q_bias', 'v_bias', 'k_bias'))
        if last == 'q_bias' and query not in wanted and whole in wanted and value in state:
            first, second = matched.pop(query), matched.pop(value)
            matched.pop(none, None)
            matched[whole] = torch.cat((first, torch.zeros_like(first), second))
        elif last == 'qkv.bias' and whole not in wanted and query in wanted and len(state[key]) % 3 == 0:
            matched[query], _, matched[value] = matched.pop(whole).chunk(3)
    return matched


def prefixes_of(names: Iterable[str], wanted: Container[str]) -> Counter[str]:
    """How many names fit the backbone after removing each prefix that makes at least one fit, most first."""
    found: Counter[str] = Counter()
    for name in names:
        parts = name.split('.')
        for depth in range(len(parts)):
            if _fit('.'.join(parts[depth:]), wanted) in wanted:
                found['.'.join(parts[:depth]) + '.' if depth else ''] += 1
    return Counter(dict(found.most_common()))


def select_backbone(
    state: Mapping[str, Tensor], wanted: Iterable[str], prefix: str, path: str
) -> tuple[dict[str, Tensor], str, list[str], list[str]]:
    """The part of ``state`` that belongs to a backbone with the keys ``wanted``, under the backbone's own names.

    Args:
        state: all tensors of the file.
        wanted (iterable): Keys of the backbone's state dict.
        prefix: prefix to try first; it is taken if at least one key with it fits. Else the known prefix with most
            fitting keys, unless more of them fit under one that is not known.
        path: the file, for messages.

    Returns:
        renamed tensors, the prefix found, the file's other keys, and other prefixes under which as many keys fit
        (a momentum copy, a teacher).

    Raises:
        ValueError: No key of the file fits under a known prefix, or two keys are the same one of the backbone.
    """
    wanted = set(wanted)
    fits = prefixes_of(state, wanted)
    known = max(PREFIXES, key=lambda candidate: fits[candidate])  # the first of the best
    found = prefix if fits[prefix] else known
    most = max(fits.values(), default=0)
    if not fits[found] or (found != prefix and fits[found] < most):
        raise ValueError(_no_prefix(state, fits, found, prefix, path))
    # A backbone that itself uses timm's names (HiViT) must keep them: rename only what does not fit as it is.
    names = {k: _fit(k[len(found) :], wanted) for k in state if k.startswith(found)}
    twice = [new for new, count in Counter(names.values()).items() if count > 1]
    if twice:
        both = [old for old, new in names.items() if new == twice[0]]
        raise ValueError(f'{path}: {" and ".join(both)} are both {twice[0]} of the backbone: remove one of them.')
    renamed = _match_biases({new: state[old] for old, new in names.items()}, wanted)
    copies = [other for other, count in fits.items() if count >= fits[found] > 1 and other != found]
    return renamed, found, sorted(k for k in state if k not in names), copies


def _no_prefix(state: Mapping[str, Tensor], fits: Counter[str], found: str, prefix: str, path: str) -> str:
    sample = ', '.join(list(state)[:4])
    most = max(fits.values(), default=0)
    if most < max(2, len(state) // 20):  # a name or two may fit anywhere
        return (
            f'{path} holds no backbone keys: none of its {len(state)} keys ({sample}, ...) fits the backbone after '
            f'removing {prefix!r}, a known prefix or any other. Give the right checkpoint or the config of its encoder.'
        )
    best = [candidate for candidate, count in fits.items() if count == most]
    return (
        f'{path} holds no backbone keys under {prefix!r} or a known prefix: {most} of its {len(state)} keys ({sample}, '
        f'...) fit the backbone after removing {" or ".join(map(repr, best))}. Set prefix={best[0]!r} '
        f'(custom_hooks.0.prefix={best[0]}, or --prefix {best[0]}) if that is the encoder which is meant.'
    )
