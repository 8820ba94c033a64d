"""Batch normalisation over the images of all ranks, on any device."""

from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class GlobalBatchNorm(_BatchNorm):
    """torch's ``SyncBatchNorm``, and on CPUs, where that refuses to train in a process group, the same by all-reduces.

    The one place where it is chosen. No subclass of torch's: DDP refuses a module on a CPU that holds one. Names in
    checkpoints are those of ``BatchNorm1d``. Ranks may differ in their number of images: each image weighs the same.
    The running variance is the unbiased one of the whole batch.

    Input (B, C) or (B, C, L); the methods normalise vectors.
    """

    process_group = None  # all ranks; SyncBatchNorm's forward asks
    _check_input_dim = nn.SyncBatchNorm._check_input_dim
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != 'cpu':
            return nn.SyncBatchNorm.forward(self, input)
        if not self.training or get_world_size() == 1:
            return super().forward(input)
        x = input.transpose(1, -1) if input.dim() > 2 else input
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of bf16 would lose the mean
        rows = x.reshape(-1, self.num_features)
        # Two passes, since mean(x^2) - mean(x)^2 cancels.
        total = all_reduce(torch.cat([rows.sum(dim=0), rows.new_tensor([len(rows)])]))
        count = total[-1].detach()
        mean = total[:-1] / count
        var = all_reduce((rows - mean).square().sum(dim=0)) / count
        if self.track_running_stats:
            self._follow(mean.detach(), var.detach() * count / (count - 1))
        y = (x - mean) * (var + self.eps).rsqrt()
        if self.affine:
            y = y * self.weight + self.bias
        return (y.transpose(1, -1) if input.dim() > 2 else y).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)
