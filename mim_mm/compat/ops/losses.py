"""Focal losses (Lin et al., Focal Loss for Dense Object Detection, 2017), per element, as mmcv's kernels state them.

``target`` (N,) long; a class index, or any other value (mmdet writes C) for background. ``weight`` is empty or (C,),
the weight of the row's target class; rows of background weigh 1 (mmcv's kernel reads past the end there).
"""

import torch
from torch.nn import functional as F

from mim_mm.compat.ops._cast import compute_dtype


def _row_weight(weight, target, num_classes, dtype):
    inside = (target >= 0) & (target < num_classes)
    row = weight.to(dtype)[target.clamp(0, num_classes - 1)]
    return torch.where(inside, row, torch.ones_like(row))


def _one_hot(target, logits):
    return target[:, None] == torch.arange(logits.shape[1], device=logits.device)


def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    """Fills output (N, C) with -a_t (1 - p_t)^gamma log(p_t), p the sigmoid of the logits ``input`` (N, C)."""
    logits = input.to(compute_dtype(input))
    positive = _one_hot(target, logits)
    signed = torch.where(positive, logits, -logits)  # p_t = sigmoid(signed)
    loss = -(torch.sigmoid(-signed) ** gamma) * F.logsigmoid(signed)
    loss = torch.where(positive, alpha * loss, (1 - alpha) * loss)
    if weight.numel():
        loss = loss * _row_weight(weight, target, logits.shape[1], logits.dtype)[:, None]
    output.copy_(loss)


def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    """Fills grad_input (N, C) with the derivative of the element's loss by its logit."""
    logits = input.to(compute_dtype(input))
    positive = _one_hot(target, logits)
    signed = torch.where(positive, logits, -logits)
    p, q = torch.sigmoid(signed), torch.sigmoid(-signed)
    # d/ds [-(q^g) log p] = q^g (g p log p - q), since dq/ds = -p q and dlog(p)/ds = q
    slope = q**gamma * (gamma * p * F.logsigmoid(signed) - q)
    grad = torch.where(positive, alpha * slope, (alpha - 1) * slope)
    if weight.numel():
        grad = grad * _row_weight(weight, target, logits.shape[1], logits.dtype)[:, None]
    grad_input.copy_(grad)


def _softmax_rows(softmax, target, weight, alpha):
    p = softmax.to(compute_dtype(softmax))
    inside = (target >= 0) & (target < p.shape[1])
    picked = p.gather(1, target.clamp(0, p.shape[1] - 1)[:, None])[:, 0]
    scale = inside.to(p.dtype) * alpha
    if weight.numel():
        scale = scale * _row_weight(weight, target, p.shape[1], p.dtype)
    return p, picked, scale, torch.log(picked.clamp(min=torch.finfo(torch.float32).tiny))


def softmax_focal_loss_forward(softmax, target, weight, output, gamma, alpha):
    """Fills output (N,) with -alpha (1 - p)^gamma log(p), p the probability of the target; 0 outside [0, C)."""
    _, picked, scale, log_p = _softmax_rows(softmax, target, weight, alpha)
    output.copy_(-scale * (1 - picked) ** gamma * log_p)


def softmax_focal_loss_backward(softmax, target, weight, buff, grad_input, gamma, alpha):
    """Fills grad_input (N, C), the derivative by the logits; ``buff`` (N,) receives p * dloss/dp as in mmcv."""
    p, picked, scale, log_p = _softmax_rows(softmax, target, weight, alpha)
    q = 1 - picked
    row = scale * (-(q**gamma) + gamma * q ** (gamma - 1) * picked * log_p)
    buff.copy_(row)
    grad_input.copy_(row[:, None] * (_one_hot(target, p).to(p.dtype) - p))
