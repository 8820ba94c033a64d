"""Masked convolution (guided anchoring), CARAFE upsampling and mmcv's own synchronised BatchNorm, in torch."""

import torch
from torch.nn import functional as F

from mim_mm.compat.ops._cast import compute_dtype, no_autocast
from mim_mm.compat.ops.deform import _gradients


def masked_im2col_forward(im, mask_h_idx, mask_w_idx, col, kernel_h, kernel_w, pad_h, pad_w):
    """Fills col (C * kh * kw, M) with the patches of im (1, C, H, W) around the M given output positions."""
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx[:, None, None] + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx[:, None, None] + torch.arange(kernel_w, device=im.device)
    col.copy_(padded[:, rows, columns].permute(0, 2, 3, 1).reshape(col.shape))


def masked_col2im_forward(col, mask_h_idx, mask_w_idx, im, height, width, channels):
    """Writes col (C, M) to the M positions of im (1, C, height, width); the rest is left as it is."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)


def _carafe(features, masks, kernel_size, group_size, scale_factor):
    batch, channels, height, width = features.shape
    area, up = kernel_size**2, scale_factor
    windows = F.unfold(features, kernel_size, padding=kernel_size // 2)
    windows = windows.view(batch, group_size, channels // group_size, area, height, 1, width, 1)
    kernels = masks.view(batch, group_size, 1, area, height, up, width, up)
    return (windows * kernels).sum(3).reshape(batch, channels, height * up, width * up)


def carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor):
    """CARAFE (Wang et al., 2019): each output pixel is a weighted sum of a k x k window of the low-resolution map.

    features (B, C, H, W), masks (B, k * k * G, sH, sW); fills output (B, C, sH, sW). Pixels outside count as 0.
    """
    dtype = compute_dtype(features)
    with no_autocast(features):
        output.copy_(_carafe(features.to(dtype), masks.to(dtype), kernel_size, group_size, scale_factor))


def carafe_naive_backward(top_grad, features, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor):
    """Fills the gradients by features and masks."""
    geometry = (kernel_size, group_size, scale_factor)
    by_features, by_masks = _gradients(lambda f, m: _carafe(f, m, *geometry), (features, masks), top_grad)
    bottom_grad.copy_(by_features)
    mask_grad.copy_(by_masks)


def carafe_forward(features, masks, rfeatures, routput, rmasks, output, kernel_size, group_size, scale_factor):
    """As ``carafe_naive_forward``; ``rfeatures``, which mmcv keeps for backward, receives a copy of the features."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad,
    rfeatures,
    masks,
    rtop_grad,
    rbottom_grad_hs,
    rbottom_grad,
    rmask_grad,
    bottom_grad,
    mask_grad,
    kernel_size,
    group_size,
    scale_factor,
):
    """As ``carafe_naive_backward``."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


def _column(vector):
    return vector[None, :, None]


def sync_bn_forward_mean(input, mean):
    """Fills mean (C,) of input (B, C, L)."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input, mean, var):
    """Fills the biased variance (C,) around the given mean."""
    var.copy_((input.float() - _column(mean)).square().mean((0, 2)))


def sync_bn_forward_output(
    input, mean, var, weight, bias, running_mean, running_var, norm, std, output, eps, momentum, group_size
):
    """Fills norm, std and output, and moves the running statistics (unbiased variance) by ``momentum``."""
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - _column(mean)) / _column(std))
    scaled = norm if weight is None else norm * _column(weight) + _column(bias)
    output.copy_(scaled)
    if running_mean is not None:
        count = input.shape[0] * input.shape[2] * group_size
        unbiased = var * count / (count - 1) if count > 1 else var
        running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
        running_var.copy_(momentum * unbiased + (1 - momentum) * running_var)


def sync_bn_backward_param(grad_output, norm, grad_weight, grad_bias):
    """Fills grad_weight and grad_bias (C,) of this process."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(grad_output, weight, grad_weight, grad_bias, norm, std, grad_input):
    """Fills grad_input (B, C, L) from the gradients already averaged over the processes."""
    factor = grad_output.shape[0] * grad_output.shape[2]
    shared = (_column(grad_weight) * norm + _column(grad_bias)) / factor
    grad_input.copy_(_column(weight / std) * (grad_output.float() - shared))
