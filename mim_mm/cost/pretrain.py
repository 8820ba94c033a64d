"""Pretraining by formula: MAE and EMAE (visible tokens only), SimMIM and BEiT (all tokens), CAE (both halves)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mim_mm.cost.backbones import HiViT, PlainViT, bare, hivit, plain_vit, swin
from mim_mm.cost.counted import counted_tokenizer
from mim_mm.cost.work import FROZEN, TRAINED, Part, Work, block_params, block_saved, blocks, linear

# Share of hidden patches where the config gives none.
DEFAULT_RATIO = {'BlockMasking': 75 / 196, 'AttMask': 0.3}


def hidden_ratio(masker: Mapping) -> float:
    """The share of patches a masker hides in the mean; ranges and adaptive ratios count by their middle."""
    kind = bare(masker['type'])
    if kind == 'GridMasking':
        return 1 - 1 / masker.get('stride', 2) ** 2
    ratio = masker.get('mask_ratio', masker.get('ratio', DEFAULT_RATIO.get(kind, 0.75)))
    if isinstance(ratio, Mapping):
        return ratio['base']
    return sum(ratio) / len(ratio) if isinstance(ratio, (list, tuple)) else ratio


def parts_seen(masker: Mapping, patches: int) -> list[tuple[int, int]]:
    """(visible, hidden) patches of each of the K parts of an image.

    Raises:
        ValueError: the masker hides nothing or all.
    """
    kind, count = bare(masker['type']), masker.get('num_parts', 1)
    if kind == 'ComplementaryMasking':
        few = patches // masker.get('num_parts', 4)
        return [(few, patches - few), (patches - few, few)]
    if kind in ('ParallelMasking', 'SalienceParallelMasking'):
        count = masker.get('num_parts', 4)
        if masker.get('ratio') is None:
            sizes = [patches // count + (k < patches % count) for k in range(count)]
            return [(size, patches - size) for size in sizes]
    if kind == 'IndependentMasking' and masker.get('ratio') is None:
        hidden = patches - patches // count
    else:
        hidden = math.ceil(patches * hidden_ratio(masker) - 1e-9)  # the rounding of mim_mm.masking.num_hidden
    together = patches * (masker.get('mask_ratio', 0) + masker.get('throw_ratio', 0))
    thrown = math.floor(together + 1e-9) - hidden
    thrown = max(thrown, 0) if masker.get('throw_ratio') else 0
    if not 0 < hidden < patches - thrown:
        raise ValueError(
            f'{kind} hides {hidden} and throws {thrown} of {patches} patches: nothing to see or to predict'
        )
    return [(patches - hidden - thrown, hidden)] * count


def _looks_first(masker: Mapping) -> bool:
    """Whether the whole image runs through the encoder once, without gradient, to find what to hide."""
    return bare(masker['type']) in ('AttentionMasking', 'AttMask')


def visible_encoder(backbone: Mapping, size: tuple[int, int]) -> PlainViT | HiViT:
    """Geometry of a backbone that can encode visible patches only.

    Raises:
        ValueError: another backbone.
    """
    kind = bare(backbone['type'])
    if kind == 'HiViT':
        return hivit(backbone, size)
    if kind == 'VisionTransformer':
        return plain_vit(backbone, size)
    raise ValueError(f'{kind} has no formula for MAE: known are VisionTransformer and HiViT')


def masked_autoencoder(model: Mapping, size: tuple[int, int], width: int) -> Work:
    """MAE and EMAE: patches embedded once, encoder and decoder for each of the K parts, head on hidden patches only."""
    net = visible_encoder(model['backbone'], size)
    masker, decoder = model['masker'], model.get('decoder') or {}
    seen = parts_seen(masker, net.patches)
    dims, values = decoder.get('embed_dims', 512), 3 * net.patch**2
    ffn = int(decoder.get('mlp_ratio', 4.0) * dims)
    inside = [visible + net.prefix for visible, _ in seen]
    outside = [visible + hidden + net.prefix for visible, hidden in seen]
    parts = [net.embedding(width=width)]
    if _looks_first(masker):
        look = net.encoder(None, FROZEN, width, 'attention for the masks')
        parts.append(Part(look.name, look.forward, FROZEN, 0, look.saved))
    parts += [
        net.encoder(inside, width=width),
        linear('decoder input', sum(inside), net.dims, dims, width=width),
        blocks('decoder', decoder.get('depth', 8), dims, ffn, outside, width=width),
        # The predictions are compared in fp32, pair by pair: two copies a part live until the backward pass.
        _with_saved(linear('head', sum(h for _, h in seen), dims, values, width=width),
                    8.0 * values * sum(h for _, h in seen)),
    ]  # fmt: skip
    count = f' K={len(seen)}' if len(seen) > 1 else f' hidden={seen[0][1]}/{net.patches}'
    name = f'{bare(model["type"])} {net.name} {size[0]}px{count} decoder {dims}x{decoder.get("depth", 8)}'
    return Work(name, tuple(parts), size[0] * size[1], _notes(masker))


def _with_saved(part: Part, more: float) -> Part:
    return Part(part.name, part.forward, part.backward, part.params, part.saved + more)


def _notes(masker: Mapping) -> tuple[str, ...]:
    if isinstance(masker.get('ratio'), Mapping):
        return ('the adaptive mask ratio counts by its base; what it hides depends on the images',)
    return ()


def full_tokens(model: Mapping, size: tuple[int, int], width: int) -> Work:
    """SimMIM and BEiT: mask tokens at the input, so the encoder sees every token."""
    kind, backbone, masker = bare(model['type']), model['backbone'], model['masker']
    if 'Swin' in bare(backbone['type']):
        parts, maps, name = swin(backbone, size, width=width)
        (tokens, dims), stride = maps[-1], 32
        first = parts[0]
    else:
        net = plain_vit(backbone, size, prefix=1)
        first = net.embedding(width=width)
        parts = [first, net.encoder(width=width)]
        tokens, dims, stride, name = net.patches, net.dims, net.patch, net.name
        if _looks_first(masker):
            look = net.encoder(None, FROZEN, width, 'attention for the masks')
            parts.append(Part(look.name, look.forward, FROZEN, 0, look.saved))
    # The masker looks at embedded patches, which the backbone embeds again.
    parts.append(Part('embedding for the masks', first.forward, FROZEN))
    if kind == 'SimMIM':
        parts.append(linear('head', tokens, dims, 3 * stride**2, width=width))
    else:
        hidden = parts_seen(masker, tokens)[0][1]
        parts.append(linear('head', hidden, dims, model.get('vocabulary', 8192), width=width))
        parts.append(counted_tokenizer(model['tokenizer'], (size[0] // 2, size[1] // 2)))
    return Work(f'{kind} {name} {size[0]}px', tuple(parts), size[0] * size[1], _notes(masker))


def context_autoencoder(model: Mapping, size: tuple[int, int], width: int) -> Work:
    """CAE: encoder on visible, its copy on hidden patches, regressor by cross attention, decoder on hidden patches."""
    net, neck = plain_vit(model['backbone'], size, prefix=1), model.get('neck') or {}
    (visible, hidden), dims = parts_seen(model['masker'], net.patches)[0], net.dims
    ffn = int(neck.get('mlp_ratio', 4) * dims)
    depth = neck.get('regressor_depth', 6)
    cross = hidden * (4.0 * dims**2 + 4.0 * dims * ffn) + net.patches * (4.0 * dims**2 + 4.0 * hidden * dims)
    kept = block_saved(hidden, dims, ffn, width, net.heads * hidden * net.patches) + 3.0 * width * net.patches * dims
    teacher = net.encoder([hidden + 1], FROZEN, width, 'copy of the encoder')
    vocabulary = neck.get('num_classes', 8192)
    parts = (
        net.embedding(width=width),
        net.encoder([visible + 1], width=width),
        Part('second and third embedding', 2 * net.embedding().forward, FROZEN),  # of the copy and of the masker
        teacher,
        Part('regressor', depth * cross, TRAINED, depth * block_params(dims, ffn), depth * kept),
        blocks('decoder', neck.get('decoder_depth', 8), dims, ffn, [hidden], width=width, heads=net.heads),
        linear('head', hidden, dims, vocabulary, width=width),
        counted_tokenizer(model['tokenizer'], (size[0] // 2, size[1] // 2)),
    )
    return Work(f'CAE {net.name} {size[0]}px', parts, size[0] * size[1], _notes(model['masker']))
