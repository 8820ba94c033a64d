"""FLOPs, parameters and activations of one image of any recipe, from its config alone.

Forward pass of a block on T tokens of width D: ``24 T D^2`` in linears and ``4 T^2 D`` in attention. Training is
three times the forward pass, except that the patch projection needs no gradient of its input, a frozen encoder has no
backward pass, and recomputed blocks run forward twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from mim_mm.cost import pretrain
from mim_mm.cost.backbones import bare, hivit, pair, plain_vit, swin
from mim_mm.cost.counted import counted_backbone
from mim_mm.cost.detector import mask_rcnn
from mim_mm.cost.progressive import mean_work, spans_of
from mim_mm.cost.work import FIRST, FROZEN, TRAINED, Part, Work, linear

LINEAR_HEADS = ('LinearClsHead', 'VisionTransformerClsHead')
PRETRAIN = {
    'MAE': pretrain.masked_autoencoder,
    'EMAE': pretrain.masked_autoencoder,
    'SimMIM': pretrain.full_tokens,
    'BEiT': pretrain.full_tokens,
    'CAE': pretrain.context_autoencoder,
}


def work_of(cfg: Mapping, size: int | tuple[int, int] | None = None) -> Work:
    """What one training image of a recipe costs, with ``ProgressiveResolutionHook`` in the mean over its epochs.

    Args:
        cfg: a resolved training config (mmengine's or a plain dict).
        size: side of the input or (height, width), in place of what the config implies.

    Raises:
        ValueError: a model, backbone or neck that is not known here.
    """
    model, width = cfg['model'], value_bytes(cfg)
    kind = bare(model['type'])
    if kind not in PRETRAIN and kind not in ('ImageClassifier', 'MultiProbe') and not kind.endswith('MaskRCNN'):
        known = ', '.join([*PRETRAIN, 'ImageClassifier', 'MultiProbe', 'MaskRCNN'])
        raise ValueError(f'model {kind} has no cost model: known are {known}')
    stages = [] if size or kind not in ('MAE', 'EMAE') else spans_of(cfg)
    if stages:
        return mean_work(stages, [PRETRAIN[kind](model, span.size, width) for span in stages])
    size = pair(size) if size else input_size(cfg)
    if kind in PRETRAIN:
        return PRETRAIN[kind](model, size, width)
    return mask_rcnn(model, size, width) if kind.endswith('MaskRCNN') else classifier(model, size, width)


def value_bytes(cfg: Mapping) -> int:
    """2 where the recipe computes in bf16 or fp16 (autocast), 4 otherwise."""
    kind = bare((cfg.get('optim_wrapper') or {}).get('type', ''))
    return 2 if kind in ('AutocastOptimWrapper', 'AmpOptimWrapper') or bare(cfg['model']['type']) == 'MultiProbe' else 4


def input_size(cfg: Mapping) -> tuple[int, int]:
    """Height and width of a training image as the network gets it.

    Detectors: the padding of the preprocessor if it fixes the size; else the mean short side of the multi-scale list
        at an
    aspect of 4:3, padded. Others: the size of the crop, else the backbone's.
    """
    model = cfg['model']
    steps = train_steps(cfg)
    if bare(model['type']).endswith('MaskRCNN'):
        divisor = (model.get('data_preprocessor') or {}).get('pad_size_divisor', 32)
        if divisor >= 256:
            return divisor, divisor
        shorts = [min(s) for step in steps if bare(step['type']) == 'RandomChoiceResize' for s in step['scales'][:99]]
        final = [s for s in shorts if s >= 480] or shorts
        if final:
            short = sum(final) / len(final)
            return tuple(-(-int(side) // divisor) * divisor for side in (short, short * 4 / 3))
        return pair(model['backbone'].get('img_size', 1024))
    for step in steps:
        if 'Crop' in bare(step['type']):
            sides = [pair(step[key]) for key in ('size', 'crop_size', 'scale') if step.get(key)]
            whole = [
                side for side in sides if all(isinstance(n, int) for n in side)
            ]  # some call the crop's range a scale
            if whole:
                return whole[0]
    return pair(model['backbone'].get('img_size', 224))


def train_steps(cfg: Mapping) -> list[Mapping]:
    """All transforms of the training pipeline, those inside of choices too."""
    found, queue = [], [((cfg.get('train_dataloader') or {}).get('dataset') or {}).get('pipeline') or []]
    while queue:
        item = queue.pop(0)
        if isinstance(item, (list, tuple)):
            queue = list(item) + queue
        elif isinstance(item, Mapping):
            found.append(item)
            queue = list(item.get('transforms') or []) + queue
    return found


def classifier(model: Mapping, size: tuple[int, int], width: int) -> Work:
    """Linear probe (frozen encoder), fine-tuning, and the many heads of the quick probe."""
    backbone, head = model['backbone'], model['head']
    probe = bare(model['type']) == 'MultiProbe'
    parts, dims, depth, name = _encoder(backbone, size, width, probe)
    if probe:
        heads = [linear('', 1, _pooled(dims, b, p), head['num_classes'], FIRST, 4) for b in head.get('blocks', (1, 4))
                 for p in head.get('pooling', ('cls', 'mean', 'cls_mean'))]  # fmt: skip
        copies = len(head.get('norm', (False, True))) * len(head.get('lrs', range(13)))
        total = [copies * sum(getattr(h, field) for h in heads) for field in ('forward', 'params', 'saved')]
        parts.append(Part(f'{copies * len(heads)} heads', total[0], FIRST, *total[1:]))
        return Work(f'quick probe {name} {size[0]}px', tuple(parts), size[0] * size[1])
    frozen = not any(part.backward for part in parts)
    classes = head.get('num_classes', 1000)
    last = linear('head', 1, head.get('in_channels') or dims, classes, FIRST if frozen else TRAINED, width)
    label = 'linear probe' if frozen else 'fine-tune'
    notes = ()
    if bare(head.get('type', 'LinearClsHead')) not in LINEAR_HEADS or 'num_classes' not in head:
        notes = (f'the head {bare(head.get("type"))} counts as one linear layer to {classes} classes',)
    return Work(f'{label} {name} {size[0]}px', (*parts, last), size[0] * size[1], notes)


def _pooled(dims: int, count: int, pooling: str) -> int:
    """Width of what a head of the quick probe reads (evaluation/probes/probe_features.py)."""
    return dims * (count + (pooling == 'cls_mean'))


def _encoder(backbone: Mapping, size: tuple[int, int], width: int, frozen: bool) -> tuple[list[Part], int, int, str]:
    """Parts, output width, depth and name of a classifier's backbone."""
    kind, stages = bare(backbone['type']), backbone.get('frozen_stages', -1)
    if kind in ('VisionTransformer', 'BEiTViT', 'BEiTPretrainViT', 'HiViT'):
        net = hivit(backbone, size) if kind == 'HiViT' else plain_vit(backbone, size)
        whole = frozen or stages >= net.depth
        projection = FROZEN if whole or stages >= 0 else TRAINED if kind == 'HiViT' else FIRST
        first = net.embedding(projection, width)
        body = net.encoder(None, FROZEN if whole else TRAINED, width)
        return [first, body], net.dims, net.depth, net.name
    backward = FROZEN if frozen or stages >= 4 else TRAINED
    if kind == 'SwinTransformer':
        parts, maps, name = swin(backbone, size, backward, width)
    else:
        parts, maps, name = counted_backbone(backbone, size, backward, width)
    return parts, maps[-1][1], 4, name
