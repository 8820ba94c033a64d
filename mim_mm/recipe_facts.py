"""What a resolved config says of a run, in the words of the published table: method, mask, encoder, duration, protocol.

Every fact is a number or a short word under the name that the columns of the table use, so that differences are
computed and not written by hand. None means: not known here. Plain mappings in, nothing is built and nothing imported,
so that the chain (before a run) and the page (after it, from what the run left) decide by the same facts and never by
the name of a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mim_mm.config_parts import type_name

PLAIN_VITS = {  # width, depth, patch -> name, heads
    (384, 12, 16): ('ViT-S/16', 6), (768, 12, 16): ('ViT-B/16', 12), (1024, 24, 16): ('ViT-L/16', 16),
    (1280, 32, 14): ('ViT-H/14', 16),
}  # fmt: skip
# Types of backbones that the published table calls ViT; 'ViT': of a checkpoint, which does not say more.
PLAIN_KINDS = (
    'VisionTransformer MAEViT MoCoV3ViT BEiTViT BEiTPretrainViT CAEPretrainViT PostNormViT WindowedViT ViT'.split()
)
ARCHS = {  # width, depth, heads of mmpretrain's names; its 'small' is no ViT-S
    'deit-t deit-tiny': (192, 12, 3), 'deit-s deit-small dinov2-s dinov2-small': (384, 12, 6),
    'b base deit-b deit-base': (768, 12, 12), 'l large': (1024, 24, 16), 'h huge': (1280, 32, 16),
    's small': (768, 8, 8), 'mocov3-s mocov3-small': (384, 12, 12),
}  # fmt: skip
POOLING = {'cls_token': 'cls', 'avg_featmap': 'mean', 'with_cls_token': 'cls'}
NECK_HEADS = {'AttentivePool': 'attentive'}
# How the published methods are set, where a config states it; what a config leaves out is our default, which is this.
PUBLISHED_SETTINGS = {
    'norm_pix': True, 'norm_eps': 1e-6, 'pos_embed': 'sincos', 'per_image_mean': False,
    'whole_weight': 1.0, 'consistency_weight': 1.0, 'normalizer': 'overlap', 'consistency_ramp': 0,
    'decoder.embed_dims': 512, 'decoder.depth': 8, 'decoder.num_heads': 16, 'decoder.positions': 'sincos',
    'mask_unit': 32,
}  # fmt: skip
# Masks of methods whose rows in the table do not state them, and SBAM's ratio, which goes without saying.
PUBLISHED_MASKS = {'SimMIM': 'random r=3/5', 'BEiT': 'block r=5/13', 'CAE': 'block r=1/2', 'data2vec': 'block r=11/18'}
PUBLISHED_NAMES = {'IJEPA': 'I-JEPA', 'data2vec2': 'data2vec 2.0'}
NAMED_BY_MASK = {('iBOT', 'AttMask'): 'AttMask'}  # methods that are another one with their own mask
TABLE_NAMES = {'MoCoV3': 'MoCo v3'}  # of methods whose class is called otherwise
SALIENCE_RATIO = 0.75
MASKER_DEFAULTS = {
    'RandomMasking': dict(ratio=0.75), 'ParallelMasking': dict(num_parts=4), 'SalienceMasking': dict(ratio=0.75),
    'SalienceParallelMasking': dict(num_parts=4), 'BlockMasking': dict(ratio=75 / 196),
    'DrawnRatio': dict(masker=dict(type='RandomMasking'), ratio=(0.1, 0.5)),
}  # fmt: skip
CHANGING_HOOKS = {
    'ProgressiveResolutionHook': 'progressive resolution',
    'ConsistencyRampHook': 'a ramp of the consistency term',
}


def square(size: Any) -> Any | None:
    """``224`` and ``(224, 224)`` -> 224; other pairs stay pairs."""
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]) if size[0] == size[1] else [int(size[0]), int(size[1])]
    return int(size) if isinstance(size, int) else None


def backbone_name(kind: str, width: Any, depth: Any, patch: Any, heads: Any = None) -> str:
    """``ViT-B/16`` for a plain ViT of a published size, else the sizes in words; ``heads`` None: not known."""
    name, usual = PLAIN_VITS.get((width, depth, patch), (None, None)) if kind in PLAIN_KINDS else (None, None)
    if name and heads in (None, usual):
        return name
    sizes = f'width {width}, depth {depth}' + (f', patch {patch}' if patch else '')
    return f'{kind} ({sizes}{f", heads {heads}" if name else ""})'


def stated_backbone(settings: Any) -> str | None:
    """The name of a backbone by its settings, without building it; None where they do not say its sizes."""
    if not isinstance(settings, Mapping):
        return None
    kind, arch = type_name(settings), settings.get('arch', 'base')
    if isinstance(arch, Mapping):
        sizes = tuple(arch.get(key) for key in ('embed_dims', 'num_layers', 'num_heads'))
    else:
        sizes = next((found for names, found in ARCHS.items() if str(arch) in names.split()), None)
    if kind not in PLAIN_KINDS or not sizes or None in sizes:
        return None
    return backbone_name(kind, sizes[0], sizes[1], square(settings.get('patch_size', 16)), sizes[2])


def variant(masker: Mapping) -> str | None:
    """The mask in the words of the published table: ``random r=3/4``, ``parallel K=4``, ``salience``."""
    masker = {**MASKER_DEFAULTS.get(type_name(masker), {}), **masker}
    if type_name(masker) == 'CellMasking' and isinstance(masker.get('masker'), Mapping):
        return f'{variant(masker["masker"])}, cells {masker.get("cell", 4)} x {masker.get("cell", 4)}'
    if isinstance(masker.get('masker'), Mapping):  # one around another, which it may give its own ratio
        ratio = {} if masker.get('ratio') is None else dict(ratio=masker['ratio'])
        return variant({**masker['masker'], **ratio})
    kind = type_name(masker).replace('Masking', '')
    ratio = masker.get('ratio')
    text = re.sub(r'(?<!^)([A-Z])', r' \1', kind).lower()
    if kind in ('Parallel', 'SalienceParallel'):
        text += f' K={masker["num_parts"]}'
    elif isinstance(ratio, (int, float)) and (kind, ratio) != ('Salience', SALIENCE_RATIO):
        text += f' r={Fraction(ratio).limit_denominator(20)}'
    elif isinstance(ratio, (list, tuple)):
        text += f' r={" to ".join(f"{value:g}" for value in ratio)}'
    return text + (', ratio by image' if isinstance(ratio, Mapping) else '') or None


def views(masker: Mapping) -> int | None:
    """K: how often an image is encoded in an iteration."""
    kind = type_name(masker)
    if kind == 'ComplementaryMasking':
        return 2  # its num_parts is the share that the first part sees
    if 'num_parts' in masker:
        return int(masker['num_parts'])
    return None if 'Parallel' in kind or 'Independent' in kind else 1  # a default of the class, not stated


def schedule(config: Mapping) -> dict[str, Any]:
    """``epochs`` or ``iters`` (the other is None) and ``batch_per_device`` (accumulation included)."""
    train, loader = config.get('train_cfg') or {}, config.get('train_dataloader') or {}
    size = loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size')
    steps = (config.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    by_iters = train.get('max_iters')
    return dict(
        epochs=None if by_iters else train.get('max_epochs'),
        iters=by_iters,
        batch_per_device=size * steps if size else None,
    )


def pretraining(config: Mapping) -> dict[str, Any]:
    """Method, mask, duration, batch and views of a pretraining config, and where it leaves the published method."""
    model = config.get('model') or {}
    masker = dict(model.get('masker') or {})
    method = TABLE_NAMES.get(type_name(model), type_name(model)) or None
    inner = type_name(masker.get('masker') or masker)
    if inner == 'SalienceMasking' and method:
        method += ' + SBAM'  # what the published table calls it
    method = PUBLISHED_NAMES.get(method, method)
    method = NAMED_BY_MASK.get((method, inner), method)
    facts = dict(method=method, mask_variant=variant(masker), views=views(masker), **schedule(config))
    return dict(facts, changes=changes(config))


def changes(config: Mapping) -> list[str]:
    """Settings that make it another method than the published one of its name, in words."""
    model = config.get('model') or {}
    found = []
    for key, published in PUBLISHED_SETTINGS.items():
        node: Any = model
        for word in key.split('.'):
            node = node.get(word, published) if isinstance(node, Mapping) else published
        if node != published:
            found.append(f'{key}: {node} here, {published} in the method')
    mask, published = variant(model.get('masker') or {}), PUBLISHED_MASKS.get(type_name(model))
    if published and mask != published:
        found.append(f'mask: {mask} here, {published} in the method')
    size = square((model.get('backbone') or {}).get('img_size'))
    if size not in (None, 224) and stated_backbone(model.get('backbone')):
        found.append(f'pretraining input: {size} px here, 224 in the method')
    hooks = map(type_name, config.get('custom_hooks') or ())
    return found + [CHANGING_HOOKS[kind] for kind in hooks if kind in CHANGING_HOOKS]


def until(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """``epoch_100.pth`` of a run of 300 epochs has seen 100.

    Args:
        facts: of :func:`pretraining`; changed in place.
        name: the checkpoint's file name.
    """
    found = re.search(r'(epoch|iter)_(\d+)(\.pth)?$', name)
    if found:
        facts['epochs' if found[1] == 'epoch' else 'iters'] = int(found[2])
    return facts


def tuned_words(blocks: Any) -> str | None:
    """``tuned_blocks`` of a partial fine-tuning in words; None where all is tuned."""
    if blocks is None or blocks == 'all':
        return None
    named = {0: 'no block tuned', 0.5: 'half a block tuned', 1: '1 block tuned'}
    return named.get(blocks, f'{blocks} blocks tuned') if isinstance(blocks, (int, float)) else f'{blocks} tuned'


def downstream(config: Mapping) -> dict[str, Any]:
    """Duration, batch, resolution and head of a downstream config, and how much a partial fine-tuning tunes.

    ``tuned`` is None where a protocol trains what it always trains. ``head`` for classifiers: what is pooled, and the
    norm before the linear layer (``cls + BN``), or the kind of probe; for detectors the pyramid (``fpn`` or ``simple
    pyramid``); for segmentation ``UperNet`` or ``linear``.
    """
    model = config.get('model') or {}
    backbone, neck = model.get('backbone') or {}, model.get('neck') or {}
    neck_type = type_name(neck)
    if model.get('roi_head'):
        head = {'SimplePyramid': 'simple pyramid', 'DeconvPyramid': 'fpn', 'FPN': 'fpn'}.get(neck_type)
    elif model.get('decode_head'):
        head = 'UperNet' if type_name(model['decode_head']).endswith('UPerHead') else 'linear'
    elif type_name(model) == 'MultiProbe':
        head = 'many heads at once'
    elif neck_type in NECK_HEADS:
        head = NECK_HEADS[neck_type]
    else:
        pooling = POOLING.get(backbone.get('out_type', 'cls_token'))
        pooling = 'mean' if neck_type == 'GlobalAveragePooling' else pooling
        head = f'{pooling} + BN' if pooling and neck_type == 'ClsBatchNormNeck' else pooling
    tuned = tuned_words(model.get('tuned_blocks'))
    return dict(resolution=square(backbone.get('img_size')), head=head, tuned=tuned, **schedule(config))


def totals(facts: Mapping, gpus: int | None, images: int | None) -> tuple:
    """(batch over all devices, epochs), with iterations turned into epochs where the images were counted."""
    size = facts.get('batch_per_device')
    batch = size * max(1, gpus) if size and gpus is not None else None
    epochs = facts.get('epochs')
    if epochs is None and facts.get('iters') and batch and images:
        epochs = round(facts['iters'] * batch / images, 1)
    return batch, epochs
