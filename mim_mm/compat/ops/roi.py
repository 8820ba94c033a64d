"""RoIAlign on torchvision's kernels, RoIPool in torch. RoIs are (batch index, x1, y1, x2, y2) in image pixels."""

import torch
import torchvision

from mim_mm.compat.finder import MissingOpError
from mim_mm.compat.ops._cast import compute_dtype, no_autocast


def _align(feature, rois, height, width, scale, sampling_ratio, aligned):
    return torchvision.ops.roi_align(feature, rois, (height, width), scale, sampling_ratio, aligned)


def _refuse_max(name, pool_mode):
    if pool_mode == 0:
        raise MissingOpError(f"{name} with pool_mode='max'", "torchvision averages only; use pool_mode='avg'")


def roi_align_forward(
    input,
    rois,
    output,
    argmax_y,
    argmax_x,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """RoIAlign (He et al., Mask R-CNN, 2017), average pooling.

    input (B, C, H, W), rois (R, 5); fills output (R, C, aligned_height, aligned_width). ``aligned`` shifts by half a
    pixel; ``sampling_ratio`` 0 takes ceil(bin size) points a side. Raises MissingOpError for max pooling.
    """
    _refuse_max('roi_align_forward', pool_mode)
    dtype = compute_dtype(input)
    with no_autocast(input):
        pooled = _align(
            input.to(dtype), rois.to(dtype), aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned
        )
    output.copy_(pooled)


def roi_align_backward(
    grad_output,
    rois,
    argmax_y,
    argmax_x,
    grad_input,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """Fills grad_input (B, C, H, W) from grad_output (R, C, aligned_height, aligned_width)."""
    _refuse_max('roi_align_backward', pool_mode)
    dtype = compute_dtype(grad_output)
    grad, rois = grad_output.to(dtype), rois.to(dtype)
    size = (aligned_height, aligned_width)
    with no_autocast(grad_output):
        if torch.are_deterministic_algorithms_enabled():
            # torchvision's kernel adds atomically; its Python form is deterministic, and reached through autograd only
            with torch.enable_grad():
                feature = torch.zeros_like(grad_input, dtype=dtype, requires_grad=True)
                pooled = _align(feature, rois, *size, spatial_scale, sampling_ratio, aligned)
                (result,) = torch.autograd.grad(pooled, feature, grad)
        else:
            result = torch.ops.torchvision._roi_align_backward(
                grad.contiguous(), rois, spatial_scale, *size, *grad_input.shape, sampling_ratio, aligned
            )
    grad_input.copy_(result)


def _pool_edges(start, size, bins, limit):
    """Integer bin edges [low, high) of one axis of one RoI, clipped to the map: mmcv rounds outwards."""
    step = size / bins
    edges = []
    for i in range(bins):
        low = int(torch.floor(i * step + start))
        high = int(torch.ceil((i + 1) * step + start))
        edges.append((min(max(low, 0), limit), min(max(high, 0), limit)))
    return edges


def roi_pool_forward(input, rois, output, argmax, pooled_height, pooled_width, spatial_scale):
    """RoIPool (Girshick, Fast R-CNN, 2015) with mmcv's bins, which torchvision's differ from.

    A RoI covers [x1 * s, (x2 + 1) * s); bins round outwards; an empty bin gives 0. Fills output and argmax
    (R, C, pooled_height, pooled_width), argmax being h * W + w or -1. Loops over RoIs and bins: exact, not fast.
    """
    dtype = compute_dtype(input)
    channels, height, width = input.shape[1:]
    output.zero_()
    argmax.fill_(-1)
    for r, roi in enumerate(rois.to(dtype).cpu()):
        x1, y1 = roi[1] * spatial_scale, roi[2] * spatial_scale
        x2, y2 = (roi[3] + 1) * spatial_scale, (roi[4] + 1) * spatial_scale
        if x2 <= x1 or y2 <= y1:
            continue
        columns = _pool_edges(x1, x2 - x1, pooled_width, width)
        for i, (top, bottom) in enumerate(_pool_edges(y1, y2 - y1, pooled_height, height)):
            for j, (left, right) in enumerate(columns):
                if bottom <= top or right <= left:
                    continue
                region = input[int(roi[0]), :, top:bottom, left:right].to(dtype)
                value, index = region.flatten(1).max(1)
                output[r, :, i, j] = value.to(output.dtype)
                row, column = index // (right - left), index % (right - left)
                argmax[r, :, i, j] = ((top + row) * width + left + column).to(argmax.dtype)


def roi_pool_backward(grad_output, rois, argmax, grad_input, pooled_height, pooled_width, spatial_scale):
    """Adds each output gradient to the input pixel that was the maximum."""
    dtype = compute_dtype(grad_output)
    batch, channels, height, width = grad_input.shape
    flat = torch.zeros(batch * channels, height * width, dtype=dtype, device=grad_input.device)
    line = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    line = line[:, :, None, None].expand_as(argmax)
    hit = argmax >= 0
    flat.index_put_((line[hit], argmax[hit].long()), grad_output.to(dtype)[hit], accumulate=True)
    grad_input.copy_(flat.view_as(grad_input))
