"""mmpretrain's ConvNeXt and ResNet under a mask plan, by masked convolutions (SparK, Tian et al., ICLR 2023).

Whatever is hidden is zero, and after every convolution, normalisation, pooling and linear layer it is zero again, so a
visible place computes what a sparse convolution over the visible places would give it: no pixel of a hidden square, and
nothing that leaked out of one, is in it. BatchNorm takes its statistics over visible places alone; LayerNorm looks at
one place at a time. The backbone is the plain mmpretrain module: the layers are masked by hooks for the time of a pass.

A "patch" is what the last map has one place for, a square of 32 px. A masker sees its pixels: nothing else of a
convolutional stem belongs to one square alone. Positions are known by the borders of image and squares only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from mmpretrain.models import ConvNeXt, ResNet
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from mim_mm.encoders.base import Encoder
from mim_mm.encoders.grid import Grid
from mim_mm.encoders.packed import Packing
from mim_mm.encoders.positions import plain_drop_path

IMAGE = 224  # px, where nobody says for which size a backbone without positions pretrains (``img_size`` of MAE)
MAPS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LayerNorm)


class MaskedConvEncoder(Encoder):
    """What the families share; a family says its stride and how its last map comes about."""

    any_size = True

    @property
    def stride(self) -> int:
        """Pixels between neighbours of the last map."""
        raise NotImplementedError

    def last_map(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, D, H / stride, W / stride), the final norm included."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """D, channels of the last map."""
        raise NotImplementedError

    @property
    def grid(self) -> Grid:
        size = getattr(self.backbone, 'img_size', IMAGE)
        height, width = (size, size) if isinstance(size, int) else size
        first = next(module for module in self.backbone.modules() if isinstance(module, nn.Conv2d))
        return Grid(height // self.stride, width // self.stride, self.stride, first.in_channels, self.channels, 0)

    def prepare(self, pos_embed: str) -> None:
        """mmpretrain's own start; there is no table of positions, so ``pos_embed`` decides nothing here."""
        last = self.stages and len(self.stages) - 1
        if tuple(self.backbone.out_indices) != (last,):
            raise ValueError(
                f'{type(self.backbone).__name__} has out_indices {tuple(self.backbone.out_indices)}: pretraining uses '
                f'the last map alone, and norms of others would never train; set out_indices=({last},)'
            )
        if getattr(self.backbone, 'frozen_stages', 0) > 0 or getattr(self.backbone, 'norm_eval', False):
            raise ValueError(
                f'{type(self.backbone).__name__} has frozen_stages or norm_eval: pretraining trains it all'
            )
        plain_drop_path(self.backbone)

    def embed(self, images: Tensor) -> Tensor:
        rows, columns = self.grid.of_image(images)
        squares = images.unflatten(2, (rows, self.stride)).unflatten(4, (columns, self.stride))
        return squares.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def encode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        shown = torch.zeros(*visible.shape[:2], tokens.shape[1], dtype=torch.bool, device=tokens.device)
        shown = shown.scatter(2, visible, True).flatten(0, 1)
        images = self._images(tokens).repeat_interleave(visible.shape[1], dim=0)
        patches = self._masked_map(images, shown)
        return patches.gather(1, visible.flatten(0, 1)[..., None].expand(-1, -1, patches.shape[-1]))

    def encode_packed(self, tokens: Tensor, packing: Packing) -> Tensor:
        patches, lines = tokens.shape[1], len(packing.lengths)
        line = packing.destination // patches  # there are no prefix tokens
        place = line * patches + packing.source % patches
        shown = torch.zeros(lines * patches, dtype=torch.bool, device=tokens.device).index_fill(0, place, True)
        image = line.new_zeros(lines).scatter(0, line, packing.source // patches)
        return self._masked_map(self._images(tokens)[image], shown.view(lines, patches)).flatten(0, 1)[place]

    def encode_whole(self, images: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.last_map(images).flatten(2).transpose(1, 2)
        return patches[:, :0], patches

    def _images(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`embed`, also for a batch of another size of the same proportions."""
        grid = self.grid
        rows = math.isqrt(tokens.shape[1] * grid.height // grid.width)
        squares = tokens.unflatten(1, (rows, -1)).unflatten(3, (self.stride, self.stride, -1))
        return squares.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def _masked_map(self, images: Tensor, shown: Tensor) -> Tensor:
        """Images (R, C, H, W) of which bool (R, N) is shown -> (R, N, D), 0 at hidden places."""
        rows = images.shape[-2] // self.stride
        shown = shown.unflatten(1, (rows, -1))[:, None]
        with masked(self.backbone, shown) as mask:
            found = self.last_map(images * mask(images.shape[-2:], images.dtype))
        return found.flatten(2).transpose(1, 2)


class ConvNeXtEncoder(MaskedConvEncoder):
    """ConvNeXt V1 and V2 (its response normalisation sees zeros at hidden places, which add nothing to its norms)."""

    backbones = (ConvNeXt,)
    backbone: ConvNeXt

    @property
    def stride(self) -> int:
        return self.backbone.downsample_layers[0][0].stride[0] * 2 ** (self.backbone.num_stages - 1)

    @property
    def channels(self) -> int:
        return self.backbone.channels[-1]

    @property
    def stages(self) -> list[int]:
        return list(self.backbone.depths)

    @property
    def norm(self) -> nn.Module:
        return getattr(self.backbone, f'norm{self.backbone.num_stages - 1}')

    def last_map(self, images: Tensor) -> Tensor:
        x = images
        for downsample, stage in zip(self.backbone.downsample_layers, self.backbone.stages):
            x = stage(downsample(x))
        return self.norm(x)  # of each place, as with gap_before_final_norm=False


class ResNetEncoder(MaskedConvEncoder):
    """ResNet, its BatchNorms over visible places; ``SyncBN``: over those of all processes."""

    backbones = (ResNet,)
    backbone: ResNet

    @property
    def stride(self) -> int:
        return 4 * math.prod(self.backbone.strides)

    @property
    def channels(self) -> int:
        return self.backbone.feat_dim

    @property
    def stages(self) -> list[int]:
        return list(self.backbone.stage_blocks)

    def last_map(self, images: Tensor) -> Tensor:
        return self.backbone(images)[-1]


@contextmanager
def masked(backbone: nn.Module, shown: Tensor) -> Iterator:
    """Inside, every layer of the backbone puts out zeros at hidden places.

    Args:
        shown: bool (R, 1, rows, columns), True where something is to be seen; maps have a multiple of its size.

    Yields:
        A function (height, width), dtype -> the mask of maps of that size, (R, 1, height, width).
    """
    known: dict[tuple, Tensor] = {}

    def mask(size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        key = (*size, dtype)
        if key not in known:
            times = [side // of for side, of in zip(size, shown.shape[-2:])]
            if any(of * t != side for side, of, t in zip(size, shown.shape[-2:], times)):
                raise ValueError(f'a map of {tuple(size)} does not divide into {tuple(shown.shape[-2:])} squares')
            large = shown.repeat_interleave(times[0], dim=2).repeat_interleave(times[1], dim=3)
            known[key] = large.to(dtype)
        return known[key]

    def hide(module: nn.Module, inputs: tuple, options: dict, output: Tensor) -> Tensor:
        if isinstance(module, nn.Linear) or options.get('data_format') == 'channel_last':
            return output * mask(output.shape[1:3], output.dtype).movedim(1, -1)
        return output * mask(output.shape[-2:], output.dtype)

    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    layers = [module for module in backbone.modules() if isinstance(module, (*MAPS, nn.Linear))]
    handles = [layer.register_forward_hook(hide, with_kwargs=True) for layer in layers]
    for norm in norms:
        norm.forward = partial(_normalise, norm, mask)
    try:
        yield mask
    finally:
        for handle in handles:
            handle.remove()
        for norm in norms:
            del norm.forward


def _normalise(norm: _BatchNorm, mask, x: Tensor) -> Tensor:
    """BatchNorm of (R, C, h, w) with the statistics of visible places, of all processes for ``SyncBatchNorm``."""
    y = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of bf16 would lose the mean
    seen = mask(x.shape[-2:], y.dtype)
    if not norm.training and norm.track_running_stats:
        mean, var = norm.running_mean, norm.running_var
    else:
        together = isinstance(norm, nn.SyncBatchNorm) and dist.is_initialized() and dist.get_world_size() > 1
        total = all_reduce if together else lambda value: value
        count = total(seen.sum())
        mean = total((y * seen).sum(dim=(0, 2, 3))) / count
        var = total(((y - mean.view(-1, 1, 1)).square() * seen).sum(dim=(0, 2, 3))) / count
        if norm.training and norm.track_running_stats:
            _follow(norm, mean.detach(), var.detach() * count / (count - 1))
    y = (y - mean.view(-1, 1, 1)) * (var.view(-1, 1, 1) + norm.eps).rsqrt()
    if norm.affine:
        y = y * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    return (y * seen).to(x.dtype)


@torch.no_grad()
def _follow(norm: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Running statistics, as torch's BatchNorm keeps them (with the unbiased variance)."""
    norm.num_batches_tracked += 1
    share = 1 / norm.num_batches_tracked.float() if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(var.to(norm.running_var.dtype), share)
