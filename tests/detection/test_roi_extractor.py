"""RoI features of bf16 maps: boxes must not be rounded to the maps' type."""

import torch

from mim_mm.registry import MODELS


def extractor(kind):
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=2)
    return MODELS.build(
        dict(type=kind, roi_layer=layer, out_channels=2, featmap_strides=[4, 8], finest_scale=56, _scope_='mmdet')
    )


def test_boxes_keep_their_edges_in_bf16():
    # A ramp along x: the mean of a RoI's features is the x of its centre, in cells.
    ramps = [(torch.arange(width).float() / width).expand(1, 2, 256, width) for width in (256, 128)]
    maps = tuple(ramp.bfloat16() for ramp in ramps)
    exact = tuple(m.float() for m in maps)
    rois = torch.tensor([[0, 701.3, 10, 760.9, 60], [0, 301.0, 5, 990.6, 400]])
    upstream = extractor('SingleRoIExtractor')
    ours = extractor('mim_mm.FullPrecisionRoIExtractor')
    torch.testing.assert_close(ours(maps, rois), upstream(exact, rois))
    # The trap is real: rounding moves the boxes. If this fails upstream has mended it and the class can go.
    rounded = upstream(exact, rois.bfloat16().float())
    torch.testing.assert_close(upstream(maps, rois).float(), rounded, rtol=0.02, atol=0.02)
    assert (rounded - upstream(exact, rois)).abs().max() > 1e-3


def test_gradients_reach_bf16_maps():
    maps = tuple(torch.randn(1, 2, s, s).bfloat16().requires_grad_() for s in (64, 32))
    extractor('mim_mm.FullPrecisionRoIExtractor')(maps, torch.tensor([[0, 20.0, 20, 90, 90]])).sum().backward()
    assert all(m.grad is not None for m in maps) and maps[0].grad.abs().sum() > 0
