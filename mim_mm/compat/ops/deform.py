"""Deformable convolution v1 / v2 on torchvision's kernels, multi-scale deformable attention on mmcv's torch form.

Gradients go through autograd of the same call: torchvision recomputes its columns in backward anyway, so the repeated
forward costs about a third of the step, and no private kernel is needed.
"""

import torch
import torchvision

from mim_mm.compat.ops._cast import compute_dtype, no_autocast


def _convolve(input, offset, weight, bias, stride, padding, dilation, mask):
    return torchvision.ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def _check_groups(input, weight, offset, group, deformable_group):
    """torchvision derives both group counts from shapes; a call that contradicts its shapes must not pass."""
    points = 2 * weight.shape[2] * weight.shape[3]
    if input.shape[1] != weight.shape[1] * group or offset.shape[1] != points * deformable_group:
        raise ValueError(
            f'deformable convolution: input has {input.shape[1]} channels for a weight of {weight.shape[1]} x {group} '
            f'groups, offset {offset.shape[1]} channels for {points} x {deformable_group} deform groups. '
            f'Fix: offset channels = 2 * kernel height * kernel width * deform_groups.'
        )


def _gradients(function, tensors, grad_output):
    """Gradients of ``function(*tensors)`` for fp32 (fp64) copies of ``tensors``; None stays None."""
    dtype = compute_dtype(grad_output)
    with no_autocast(grad_output), torch.enable_grad():
        leaves = [None if t is None else t.detach().to(dtype).requires_grad_() for t in tensors]
        result = function(*leaves)
        wanted = [leaf for leaf in leaves if leaf is not None]
        found = iter(torch.autograd.grad(result, wanted, grad_output.to(dtype)))
        return [None if leaf is None else next(found) for leaf in leaves]


def deform_conv_forward(
    input,
    weight,
    offset,
    output,
    columns,
    ones,
    kW,
    kH,
    dW,
    dH,
    padW,
    padH,
    dilationW,
    dilationH,
    group,
    deformable_group,
    im2col_step,
):
    """Deformable convolution (Dai et al., 2017). input (B, C, H, W), offset (B, 2 * kH * kW * G, H', W') as y, x pairs.

    Fills output (B, C', H', W'). ``columns``, ``ones`` and ``im2col_step`` are workspace of mmcv's kernel, unused.
    """
    _check_groups(input, weight, offset, group, deformable_group)
    dtype = compute_dtype(input)
    with no_autocast(input):
        result = _convolve(
            input.to(dtype),
            offset.to(dtype),
            weight.to(dtype),
            None,
            (dH, dW),
            (padH, padW),
            (dilationH, dilationW),
            None,
        )
    output.copy_(result)


def _deform_gradients(input, offset, weight, grad_output, stride, padding, dilation):
    return _gradients(
        lambda x, o, w: _convolve(x, o, w, None, stride, padding, dilation, None), (input, offset, weight), grad_output
    )


def deform_conv_backward_input(
    input,
    offset,
    grad_output,
    grad_input,
    grad_offset,
    weight,
    columns,
    kW,
    kH,
    dW,
    dH,
    padW,
    padH,
    dilationW,
    dilationH,
    group,
    deformable_group,
    im2col_step,
):
    """Fills grad_input and grad_offset."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    by_input, by_offset, _ = _deform_gradients(input, offset, weight, grad_output, *geometry)
    grad_input.copy_(by_input)
    grad_offset.copy_(by_offset)


def deform_conv_backward_parameters(
    input,
    offset,
    grad_output,
    grad_weight,
    columns,
    ones,
    kW,
    kH,
    dW,
    dH,
    padW,
    padH,
    dilationW,
    dilationH,
    group,
    deformable_group,
    scale,
    im2col_step,
):
    """Adds ``scale`` times the gradient by the weight to grad_weight."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    # only the shape and dtype of the weight matter here: the output is linear in it
    weight = torch.zeros_like(grad_weight)
    _, _, by_weight = _deform_gradients(input, offset, weight, grad_output, *geometry)
    grad_weight.add_(by_weight.to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input,
    weight,
    bias,
    ones,
    offset,
    mask,
    output,
    columns,
    kernel_h,
    kernel_w,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dilation_h,
    dilation_w,
    group,
    deformable_group,
    with_bias,
):
    """Modulated deformable convolution (Zhu et al., 2019): as above, times mask (B, kH * kW * G, H', W') per point."""
    _check_groups(input, weight, offset, group, deformable_group)
    dtype = compute_dtype(input)
    with no_autocast(input):
        result = _convolve(
            input.to(dtype),
            offset.to(dtype),
            weight.to(dtype),
            bias.to(dtype) if with_bias else None,
            (stride_h, stride_w),
            (pad_h, pad_w),
            (dilation_h, dilation_w),
            mask.to(dtype),
        )
    output.copy_(result)


def modulated_deform_conv_backward(
    input,
    weight,
    bias,
    ones,
    offset,
    mask,
    columns,
    grad_input,
    grad_weight,
    grad_bias,
    grad_offset,
    grad_mask,
    grad_output,
    kernel_h,
    kernel_w,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dilation_h,
    dilation_w,
    group,
    deformable_group,
    with_bias,
):
    """Fills the five gradients (grad_bias only ``with_bias``)."""
    stride, padding, dilation = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)
    found = _gradients(
        lambda x, o, m, w, b: _convolve(x, o, w, b, stride, padding, dilation, m),
        (input, offset, mask, weight, bias if with_bias else None),
        grad_output,
    )
    for target, value in zip((grad_input, grad_offset, grad_mask, grad_weight, grad_bias), found):
        if value is not None:
            target.copy_(value)


def _attend(value, shapes, locations, weights):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_forward(
    value, spatial_shapes, level_start_index, sampling_locations, attention_weights, im2col_step
):
    """Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021).

    value (B, keys, heads, D), locations (B, queries, heads, levels, points, 2) in [0, 1] as x, y, weights without the
    last axis; returns (B, queries, heads * D). mmcv calls this on GPUs only and uses its torch form on the CPU.
    """
    dtype = compute_dtype(value)
    with no_autocast(value):
        result = _attend(value.to(dtype), spatial_shapes, sampling_locations.to(dtype), attention_weights.to(dtype))
    return result.to(value.dtype)


def ms_deform_attn_backward(
    value,
    spatial_shapes,
    level_start_index,
    sampling_locations,
    attention_weights,
    grad_output,
    grad_value,
    grad_sampling_loc,
    grad_attn_weight,
    im2col_step,
):
    """Fills the three gradients."""
    found = _gradients(
        lambda v, s, w: _attend(v, spatial_shapes, s, w), (value, sampling_locations, attention_weights), grad_output
    )
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), found):
        target.copy_(gradient)
