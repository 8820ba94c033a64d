"""Clipping each gradient by its own norm (DINO, iBOT, AttMask), where torch clips all of them by their common one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_each_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale every gradient whose 2-norm n exceeds ``max_norm`` by ``max_norm / (n + 1e-6)``, in place.

    The host does not wait for the device.

    Returns:
        The largest of the norms before, a scalar: nothing was clipped while it is below ``max_norm``.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch._foreach_norm(gradients, 2)
    factors = [(max_norm / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, factors)
    return torch.stack([norm.float() for norm in norms]).max()
