"""Mask R-CNN by formula: backbone, pyramid, RPN, box head, mask head.

Counted: every convolution and linear layer, at the padded input, with as many RoIs as the sampler may draw (``num``)
and as many of them positive as it allows. Not counted: RoIAlign, NMS, target assignment, losses, norms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mim_mm.cost.backbones import bare, hivit, plain_vit, swin
from mim_mm.cost.counted import counted_backbone
from mim_mm.cost.work import RECOMPUTED, TRAINED, Part, Work, block_flops, block_saved, linear

Maps = list[tuple[float, int]]  # tokens and channels of each level


def windowed_vit(backbone: Mapping, size: tuple[int, int], width: int) -> tuple[list[Part], Maps, str]:
    """``WindowedViT``: qkv, projection and attention on windows padded to w x w; global attention in a few blocks.

    Decomposed relative positions add ``2 T D (h + w)`` and widen the products of the attention by ``(d + h + w) / d``
    where they are folded into queries and keys (d: width of a head; see ``detection/relative_positions.py``).
    """
    net = plain_vit(backbone, size, prefix=0)
    windows = backbone.get('window_size', 16)
    given = backbone.get('global_attn_indexes')
    everywhere = net.depth if not windows else len(given) if given is not None else 4
    flops = kept = 0.0
    for count, window in ((everywhere, None), (net.depth - everywhere, windows)):
        if not count:
            continue
        side = net.grid if window is None else tuple(min(window, n) for n in net.grid)
        padded = math.prod(math.ceil(n / w) * w for n, w in zip(net.grid, side))
        seen, head = math.prod(side), net.dims // net.heads
        one = block_flops(net.patches, net.dims, net.ffn, 0) + 8.0 * (padded - net.patches) * net.dims**2
        attention = 4.0 * padded * seen * net.dims
        if backbone.get('rel_pos', 'decomposed') == 'decomposed':
            folded = head + sum(side) <= 256
            attention = attention * ((head + sum(side)) / head if folded else 1) + 2.0 * padded * net.dims * sum(side)
        one += attention
        flops += count * one
        kept += count * block_saved(net.patches, net.dims, net.ffn, width)
    backward = RECOMPUTED if backbone.get('with_cp') else TRAINED
    if backbone.get('with_cp'):
        kept = 4.0 * net.depth * net.patches * net.dims + kept / net.depth
    if backbone.get('rel_pos') == 'shared_bias':
        kept += (4 + width) * net.heads * net.patches**2
    body = Part('encoder', flops, backward, net.encoder([0]).params, kept)
    maps = [(net.patches, net.dims)] * len(backbone.get('out_indices', (-1,)))
    return [net.embedding(width=width), body], maps, f'{net.name} windows {windows}'


def backbone_maps(backbone: Mapping, size: tuple[int, int], width: int) -> tuple[list[Part], Maps, str]:
    kind = bare(backbone['type'])
    if kind == 'WindowedViT':
        return windowed_vit(backbone, size, width)
    if kind == 'SwinTransformer':
        return swin(backbone, size, width=width)
    if kind == 'HiViTMaps':
        net = hivit(backbone, size)
        backward = RECOMPUTED if backbone.get('with_cp') else TRAINED
        maps = [(net.patches * (4 >> k) ** 2, net.dims // (4 >> k)) for k in range(3)]
        return [net.embedding(width=width), net.encoder(backward=backward, width=width)], maps, net.name
    return counted_backbone(backbone, size, width=width)


def _rescaled(tokens: float, channels: int, scale: float, halve: bool, width: int) -> tuple[list[Part], float, int]:
    """Deconvolutions of ``necks._rescale``, one a factor of two; pooling is free."""
    parts, steps = [], int(math.log2(scale)) if scale > 1 else 0
    for _ in range(steps):
        out = channels // 2 if halve else channels
        parts.append(linear('', tokens, channels, 4 * out, width=width))
        tokens, channels = tokens * 4, out
    return parts, tokens * min(scale, 1) ** 2, channels


def fpn(levels: Maps, out: int, count: int, width: int) -> tuple[list[Part], Maps]:
    """Laterals and 3 x 3 outputs; levels beyond the given ones are taken by stride."""
    parts = [linear('', tokens, channels, out, width=width) for tokens, channels in levels]
    parts += [linear('', tokens, 9 * out, out, width=0) for tokens, _ in levels]
    parts.append(Part('', 0, saved=width * sum(tokens * out for tokens, _ in levels)))
    return parts, _extended(levels, out, count)


def _extended(levels: Maps, out: int, count: int) -> Maps:
    tokens = [n for n, _ in levels]
    while len(tokens) < count:
        tokens.append(math.ceil(tokens[-1] / 4))
    return [(n, out) for n in tokens]


def neck_maps(neck: Mapping, maps: Maps, width: int) -> tuple[Part, Maps]:
    """The pyramid as one part, and its levels.

    Raises:
        ValueError: a neck without a formula.
    """
    kind, parts = bare(neck['type']), []
    scales: Sequence[float] = neck.get('scales', (4, 2, 1, 0.5))
    if kind == 'DeconvPyramid':
        levels = []
        for scale, (tokens, channels) in zip(scales, maps * len(scales) if len(maps) == 1 else maps):
            more, tokens, channels = _rescaled(tokens, channels, scale, False, width)
            parts, levels = parts + more, levels + [(tokens, channels)]
        if neck.get('fpn'):
            more, levels = fpn(levels, neck['fpn'].get('out_channels', 256), neck['fpn'].get('num_outs', 5), width)
            parts += more
    elif kind == 'SimplePyramid':
        out, levels = neck.get('out_channels', 256), []
        for scale in scales:
            more, tokens, channels = _rescaled(*maps[-1], scale, True, width)
            convs = [linear('', tokens, channels, out, width=width), linear('', tokens, 9 * out, out, width=0)]
            parts, levels = parts + more + convs, levels + [(tokens, out)]
        levels = _extended(levels, out, neck.get('num_outs', 5))
    elif kind == 'FPN':
        parts, levels = fpn(maps, neck.get('out_channels', 256), neck.get('num_outs', 5), width)
    else:
        raise ValueError(f'neck {kind} has no formula: known are DeconvPyramid, SimplePyramid and FPN')
    return _sum('pyramid', parts), levels


def _sum(name: str, parts: Sequence[Part]) -> Part:
    return Part(name, sum(p.forward for p in parts), TRAINED, sum(p.params for p in parts), sum(p.saved for p in parts))


def rpn(head: Mapping, levels: Maps, width: int) -> Part:
    """3 x 3 convolutions, then objectness and 4 offsets for each anchor, on every level."""
    fan_in, feat = head.get('in_channels', 256), head.get('feat_channels', 256)
    anchors = head.get('anchor_generator') or {}
    count = len(anchors.get('scales', [8])) * len(anchors.get('ratios', [0.5, 1.0, 2.0]))
    tokens, parts = sum(n for n, _ in levels), []
    for index in range(head.get('num_convs', 1)):
        parts.append(linear('', tokens, 9 * (feat if index else fan_in), feat, width=0))
    parts.append(linear('', tokens, feat, 5 * count, width=width))
    kept = Part('', 0, saved=float(width * tokens * feat * head.get('num_convs', 1)))
    return _sum('RPN', [*parts, kept])


def box_head(head: Mapping, rois: int, width: int) -> Part:
    """Shared convolutions (four in ``Shared4Conv1FCBBoxHead``), shared linears (one or two), classes and boxes."""
    four = '4Conv' in bare(head['type'])
    channels, side = head.get('in_channels', 256), head.get('roi_feat_size', 7)
    out, classes = head.get('fc_out_channels', 1024), head.get('num_classes', 80)
    parts = []
    for _ in range(4 if four else 0):
        parts.append(linear('', rois * side**2, 9 * channels, channels, width=0))
        parts.append(Part('', 0, saved=2.0 * width * rois * side**2 * channels))
    parts.append(linear('', rois, channels * side**2, out, width=width))
    parts += [] if four else [linear('', rois, out, out, width=width)]
    boxes = 4 * (1 if head.get('reg_class_agnostic') else classes)
    return _sum('box head', [*parts, linear('', rois, out, classes + 1 + boxes, width=width)])


def mask_head(head: Mapping, rois: int, side: int, width: int) -> Part:
    channels, inner = head.get('in_channels', 256), head.get('conv_out_channels', 256)
    parts = []
    for index in range(head.get('num_convs', 4)):
        fan_in = inner if index else channels
        parts.append(linear('', rois * side**2, 9 * fan_in, inner, width=0))
        parts.append(Part('', 0, saved=float(width * rois * side**2 * fan_in)))
    parts.append(linear('', rois * side**2, inner, 4 * inner, width=width))  # the deconvolution to twice the side
    classes = 1 if head.get('class_agnostic') else head.get('num_classes', 80)
    parts.append(linear('', rois * 4 * side**2, inner, classes, width=width))
    return _sum('mask head', parts)


def mask_rcnn(model: Mapping, size: tuple[int, int], width: int) -> Work:
    """A detector of mmdet's Mask R-CNN layout on one padded image."""
    parts, maps, name = backbone_maps(model['backbone'], size, width)
    pyramid, levels = neck_maps(model['neck'], maps, width)
    roi, sampler = model['roi_head'], model['train_cfg']['rcnn']['sampler']
    parts += [pyramid, rpn(model['rpn_head'], levels, width), box_head(roi['bbox_head'], sampler['num'], width)]
    if roi.get('mask_head'):
        side = roi['mask_roi_extractor']['roi_layer']['output_size']
        positive = int(sampler['num'] * sampler.get('pos_fraction', 0.25))
        parts.append(mask_head(roi['mask_head'], positive, side, width))
    notes = (f'{sampler["num"]} RoIs an image; RoIAlign, NMS, assignment and losses are not counted',)
    return Work(f'Mask R-CNN {name} {size[0]}x{size[1]}px', tuple(parts), size[0] * size[1], notes)
