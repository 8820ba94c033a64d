"""LARS as MAE's linear probe has it, without a host synchronisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from mim_mm.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARS(Optimizer):
    """SGD with momentum in which each matrix moves in proportion to its own norm (You et al. 2017, arXiv 1708.03888).

    MAE's variant (He et al. 2022, ``util/lars.py``), with g the gradient, p the parameter::

        ndim > 1:  g <- g + weight_decay p;  g <- g * trust_coefficient ||p|| / ||g||   (* 1 where a norm is 0)
        buffer <- momentum * buffer + g;  p <- p - lr * buffer

    Parameters with one dimension or none (biases, norms) get neither decay nor trust ratio. mmpretrain's LARS gives
    the bias a trust ratio unless told not to, has the rate *inside* the buffer, which is another optimizer while the
    rate changes, and waits for the GPU twice a parameter and step. Here all stays on the device, in a few fused calls.

    Args:
        params: parameters or groups of them.
        lr: learning rate; MAE's probe: 0.1 x images a step / 256.
        momentum: in [0, 1).
        weight_decay: of parameters with two dimensions or more.
        trust_coefficient: see above.

    Raises:
        ValueError: A value outside of its range.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f'momentum={momentum} must be in [0, 1)')
        for name, value in (('lr', lr), ('weight_decay', weight_decay), ('trust_coefficient', trust_coefficient)):
            if value < 0:
                raise ValueError(f'{name}={value} must not be negative')
        options = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient)
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; returns the closure's loss, if there is a closure.

        Gradients are left as they are. Sparse ones are not supported.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            if not params:
                continue
            wide = [p for p in params if p.ndim > 1]
            flat = [p for p in params if p.ndim <= 1]
            updates = [*(_trusted(wide, group) if wide else ()), *(p.grad for p in flat)]
            params = wide + flat
            buffers = [self._buffer(p) for p in params]
            torch._foreach_mul_(buffers, group['momentum'])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(params, buffers, alpha=-group['lr'])
        return loss

    def _buffer(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(param)
        return state['momentum_buffer']


def _trusted(params: list[Tensor], group: dict) -> Sequence[Tensor]:
    """Decayed gradients times their trust ratios: new tensors of the parameters' shapes."""
    updates = torch._foreach_add([p.grad for p in params], params, alpha=group['weight_decay'])
    ratios = []
    for weight, update in zip(torch._foreach_norm(params), torch._foreach_norm(updates), strict=True):
        ratio = group['trust_coefficient'] * weight / update
        ratios.append(torch.where((weight > 0) & (update > 0), ratio, torch.ones_like(ratio)))
    return torch._foreach_mul(updates, ratios)
