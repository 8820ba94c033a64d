"""What hidden patches are compared with: pixels, normalised per patch or not."""

from __future__ import annotations

import torch
from torch import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (B, C, H, W) to patches (B, N, p*p*C), row-major; inside a patch row, column, then channel (MAE)."""
    batch, channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f'images of {height} x {width} px are no whole number of {patch_size}-px patches: crop them')
    rows, columns = height // patch_size, width // patch_size
    x = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * channels)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify`: patches (B, N, p*p*C) on a grid (rows, columns) to images (B, C, H, W)."""
    rows, columns = grid
    batch = patches.shape[0]
    if patches.shape[1] != rows * columns:
        raise ValueError(f'{patches.shape[1]} patches do not fill a grid of {rows} x {columns}: pass their own grid')
    x = patches.reshape(batch, rows, columns, patch_size, patch_size, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch_size, columns * patch_size)


def patch_statistics(patches: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and ``sqrt(var + eps)`` of each patch, (B, N, 1) each; the variance is unbiased, as in MAE's release."""
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (var + eps).sqrt()


def channel_statistics(patches: Tensor, channels: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and ``sqrt(var + eps)`` of each channel of each patch (B, N, p*p*C), spread over its values: (B, N, p*p*C)
    each; the variance is biased, as in BootMAE's release."""
    var, mean = torch.var_mean(patches.unflatten(-1, (-1, channels)), dim=2, correction=0, keepdim=True)
    pixels = patches.shape[-1] // channels
    return tuple(x.expand(-1, -1, pixels, -1).flatten(2) for x in (mean, (var + eps).sqrt()))


def pixel_target(images: Tensor, patch_size: int, norm_pix: bool, eps: float = 1e-6) -> Tensor:
    """Regression target (B, N, p*p*C) in fp32, made once an image.

    Args:
        images: normalised images (B, C, H, W).
        norm_pix: standardise each patch by its own mean and variance (MAE, section 4, "reconstruction target").
        eps: variance floor. 1e-6 is MAE's; raise it (0.02 where images have unit variance) for data with flat patches,
            whose noise would otherwise be blown up to unit variance and learned.
    """
    patches = patchify(images.float(), patch_size)
    if not norm_pix:
        return patches
    mean, std = patch_statistics(patches, eps)
    return (patches - mean).div_(std)
