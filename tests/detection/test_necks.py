"""Strides, channels and norms of the two pyramids."""

import pytest
import torch

from mim_mm.registry import MODELS


def build(**cfg):
    import mmdet.models  # noqa: F401  (registers FPN)

    return MODELS.build(cfg)


def strides(maps, image=1024):
    return [image // m.shape[-1] for m in maps]


def test_deconv_pyramid_and_fpn_give_the_strides_of_the_recipe():
    neck = build(type='mim_mm.DeconvPyramid', in_channels=32, fpn=dict(type='mmdet.FPN', out_channels=16, num_outs=5))
    maps = [torch.randn(1, 32, 64, 64) for _ in range(4)]
    outs = neck(maps)
    assert strides(outs) == [4, 8, 16, 32, 64]
    assert all(o.shape[1] == 16 for o in outs)


@pytest.mark.parametrize(
    'norm', [dict(type='GN', num_groups=8), dict(type='BN'), dict(type='SyncBN'), dict(type='LN2d')]
)
def test_deconv_pyramid_keeps_channels_for_every_norm(norm):
    neck = build(type='mim_mm.DeconvPyramid', in_channels=16, scales=(2, 1, 0.5), norm_cfg=norm).train()
    outs = neck([torch.randn(2, 16, 8, 8)])
    assert [tuple(o.shape) for o in outs] == [(2, 16, 16, 16), (2, 16, 8, 8), (2, 16, 4, 4)]


def test_four_times_upsampling_has_one_norm_and_one_gelu_between_two_deconvolutions():
    neck = build(type='mim_mm.DeconvPyramid', in_channels=32)
    names = [type(m).__name__ for m in neck.levels[0]]
    assert names == ['ConvTranspose2d', 'GroupNorm', 'GELU', 'ConvTranspose2d']
    assert neck.levels[0][1].num_groups == 32
    assert [type(level).__name__ for level in neck.levels] == ['Sequential', 'Sequential', 'Identity', 'MaxPool2d']


def test_each_level_reads_its_own_map():
    neck = build(type='mim_mm.DeconvPyramid', in_channels=4, scales=(1, 0.5), norm_cfg=dict(type='BN'))
    first, second = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    outs = neck([first, second])
    assert torch.equal(outs[0], first)
    assert torch.equal(outs[1], second.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)))
    with pytest.raises(ValueError, match='out_indices'):
        neck([first] * 3)


def test_simple_pyramid_strides_channels_and_last_level():
    neck = build(type='mim_mm.SimplePyramid', in_channels=32, out_channels=16)
    outs = neck([torch.zeros(1, 32, 64, 64), torch.randn(1, 32, 64, 64)])
    assert strides(outs) == [4, 8, 16, 32, 64]
    assert torch.equal(outs[4], outs[3][:, :, ::2, ::2])
    widths = [m.out_channels for m in neck.levels[0][0] if isinstance(m, torch.nn.ConvTranspose2d)]
    assert widths == [16, 8]
    # channel norm: every position of a level has mean 0 and variance 1 over the channels
    assert outs[1].mean(1).abs().max() < 1e-4
    torch.testing.assert_close(outs[1].var(1, unbiased=False), torch.ones(1, 128, 128), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    'cfg', [dict(type='mim_mm.DeconvPyramid', scales=(3,)), dict(type='mim_mm.SimplePyramid', num_outs=2)]
)
def test_wrong_options_are_refused(cfg):
    with pytest.raises(ValueError):
        build(in_channels=32, **cfg)
