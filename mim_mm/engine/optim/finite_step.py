"""An optimizer step that is left out, on the device, where the loss or a gradient is not finite.

The gradient decides, after it was averaged over the ranks, so all of them leave out the same steps. A loss that is not
finite reaches it by the first factor of the backward pass (1, or NaN on the rank whose loss it is), at no cost and with
no message of its own. Parameters, optimizer state and buffers (statistics of BatchNorm) are afterwards those from
before the step, bit by bit; schedules and data go on. The host is asked for nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import ShardingStrategy

from mim_mm.compat.internals import loss_scale

NAN = float('nan')


class FiniteStep:
    """Stands around ``backward``, ``clip_func`` and ``step`` of an optimizer wrapper, whatever its class.

    How a step is left out, by the kind of optimizer (``way``):

    - 'kernel': fused ones (``fused=True``) take the flag ``found_inf`` that torch's loss scaler uses;
    - 'scaler': under ``AmpOptimWrapper`` the scaler itself leaves it out;
    - 'host': on a CPU nothing has to be waited for, so the step is not called; also for optimizers that keep a part of
      their state on the host while the model is on a GPU (AdamW without ``fused=True``), one wait a step;
    - 'restore': others on a GPU (LARS, SGD) get parameters and state back from copies, which must fit in memory.

    Args:
        wrapper: of one optimizer.
        model: as the runner holds it; its buffers are put back as well.
        may_diverge: beginnings of names of parameters that are trained independently of each other, and that may
            diverge (the heads of a multi-probe). Then a step is left out where all gradients are not finite.
        way: None chooses.

    Attributes:
        counts: int64 (5,) on the device: bad steps in a row up to now, all bad steps, the iteration (from 0) of the
            first bad one of the last row, whether this rank's own loss was not finite there, steps.
        norm: fp32 scalar on the device, the last step's gradient norm before clipping; None before the first.
        norms_at_first: norm of each gradient of that first one, in the order of ``names_at_first``.
    """

    def __init__(
        self, wrapper: OptimWrapper, model: nn.Module, may_diverge: Sequence[str] = (), way: str | None = None
    ) -> None:
        self.wrapper, self.model = wrapper, model
        self.may_diverge = tuple(may_diverge)
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.device = next(p.device for group in wrapper.param_groups for p in group['params'])
        self.counts = torch.zeros(5, dtype=torch.int64).to(self.device)
        self.loss_bad = torch.zeros((), dtype=torch.bool, device=self.device)
        self.norm: Tensor | None = None
        self.norms_at_first: Tensor | None = None
        self.names_at_first: list[str] = []
        self.iteration = 0
        self.stepped = False
        self.scaled = hasattr(wrapper, 'loss_scaler')
        self._plain = dict(backward=wrapper.backward, step=wrapper.step, clip_func=getattr(wrapper, 'clip_func', None))
        self._clips_by_norm = self._plain['clip_func'] is torch.nn.utils.clip_grad_norm_
        self._own: dict[str, Callable | None] = {}
        self._places = [(module, name) for module in model.modules() for name, _ in module.named_buffers(recurse=False)]
        self._copies: dict[int, tuple[Tensor, Tensor, int]] = {}  # of a place: the buffer, its copy, its version then
        _start_momentum(wrapper.optimizer)
        self.way = way or self._choose()

    def install(self) -> None:
        """From here on the wrapper's steps are guarded."""
        # schedulers have marked the step that they count
        step = functools.wraps(self._plain['step'])(lambda **kwargs: self._step(**kwargs))
        for name, function in dict(backward=self._backward, step=step, clip_func=self._clip).items():
            self._own[name] = vars(self.wrapper).get(name)
            setattr(self.wrapper, name, function)

    def remove(self) -> None:
        """Leave the wrapper as it was."""
        for name, function in self._own.items():
            delattr(self.wrapper, name) if function is None else setattr(self.wrapper, name, function)

    def begin(self, iteration: int) -> None:
        """Before the forward pass of an iteration; at the first of an accumulation window the buffers are noted."""
        self.iteration, self.stepped = iteration, False
        if self.wrapper.inner_count == 0 or self.wrapper.should_update():
            self.loss_bad.zero_()
            self._note_buffers()

    def _choose(self) -> str:
        optimizer = self.wrapper.optimizer
        if self.scaled:
            return 'scaler'
        dampened = any(group.get('dampening') for group in optimizer.param_groups)
        if getattr(optimizer, '_step_supports_amp_scaling', False) and not dampened:
            return 'kernel'
        if self.device.type == 'cpu':
            return 'host'
        on_host = [kind.__name__ for kind in type(optimizer).__mro__ if kind.__module__.startswith('torch.optim')]
        stepless = type(optimizer).__module__.startswith('mim_mm') or 'SGD' in on_host
        return 'restore' if stepless and not dampened else 'host'

    # ---- what takes the place of the wrapper's own

    def _backward(self, loss: Tensor, **kwargs) -> None:
        fine = loss.detach().isfinite()
        self.loss_bad |= ~fine
        first = torch.where(fine, 1.0, NAN).to(loss.dtype)
        given = kwargs.pop('gradient', None)
        self._plain['backward'](loss, gradient=first if given is None else given * first, **kwargs)

    def _step(self, **kwargs) -> None:
        grads, names = self._gradients()
        norms = _norms(grads) if grads else torch.zeros(1, device=self.device)  # an empty shard helps to add up
        self.norm = self._total(norms)
        bad = ~norms.isfinite().any() if self.may_diverge else ~self.norm.isfinite()
        if self.scaled:
            scale = loss_scale(self.wrapper)
            self.norm = self.norm / scale
            # that the scale is too large is found out this way: no fault before it is down at 1
            counted = bad & (self._any_rank(self.loss_bad) | (scale <= 1))
        else:
            counted = bad
        self._do(bad, kwargs)
        self._put_buffers_back(bad)
        self._count(counted, norms, names)
        self.stepped = True

    def _do(self, bad: Tensor, kwargs: dict) -> None:
        """The wrapper's step, clipping included, without effect where ``bad``."""
        optimizer, step = self.wrapper.optimizer, self._plain['step']
        if self.way == 'kernel':
            optimizer.grad_scale, optimizer.found_inf = None, bad.float()
            try:
                step(**kwargs)
            finally:
                del optimizer.grad_scale, optimizer.found_inf
        elif self.way == 'restore':
            with _undone_where(bad, optimizer):
                step(**kwargs)
        elif self.way == 'scaler' or not bad:
            step(**kwargs)

    def _clip(self, params: list, **kwargs) -> None:
        """Clip; the norm is known, and returning it would have mmengine wait for it in every step."""
        kinds = {(p.grad.device, p.grad.dtype) for p in params}
        known = (
            self._clips_by_norm and not self.scaled and not self.may_diverge and kinds == {(self.device, torch.float32)}
        )
        if known and not set(kwargs) - {'max_norm', 'norm_type'} and kwargs.get('norm_type', 2) == 2:
            torch.nn.utils.clip_grads_with_norm_(params, kwargs['max_norm'], self.norm)  # as clip_grad_norm_ does it
        else:
            self._plain['clip_func'](params, **kwargs)

    # ---- measuring

    def _gradients(self) -> tuple[list[Tensor], list[str]]:
        params = [p for group in self.wrapper.param_groups for p in group['params'] if p.grad is not None]
        return [p.grad for p in params], [self.names.get(id(p), '?') for p in params]

    def _total(self, norms: Tensor) -> Tensor:
        """The norm over all parameters, of which a rank holds its shard only under FSDP."""
        if self.may_diverge:
            norms = torch.where(norms.isfinite(), norms, 0)
        total = torch.linalg.vector_norm(norms)
        if isinstance(self.model, FSDP) and self.model.sharding_strategy != ShardingStrategy.NO_SHARD:
            total = total.square()
            torch.distributed.all_reduce(total, group=self.model.process_group)
            total = total.sqrt()
        return total

    def _any_rank(self, flag: Tensor) -> Tensor:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return flag
        number = flag.float()
        torch.distributed.all_reduce(number)
        return number > 0

    def _count(self, bad: Tensor, norms: Tensor, names: list[str]) -> None:
        row, total, first, own, steps = self.counts.unbind()
        new = bad & (row == 0)
        first.masked_fill_(new, self.iteration)
        own.masked_fill_(new, 0).add_(new & self.loss_bad)
        row.add_(1).mul_(bad)
        total.add_(bad)
        steps.add_(1)
        if self.names_at_first == names:
            self.norms_at_first = torch.where(new, norms, self.norms_at_first)
        else:
            self.norms_at_first, self.names_at_first = norms, names

    # ---- buffers

    def _note_buffers(self) -> None:
        """Copy those that were written to since they were last copied: of most models none after the first time."""
        for place, (module, name) in enumerate(self._places):
            buffer, known = getattr(module, name, None), self._copies.get(place)
            if buffer is None:
                self._copies.pop(place, None)
            elif known is None or known[1].shape != buffer.shape or known[1].device != buffer.device:
                self._copies[place] = (buffer, buffer.detach().clone(), buffer._version)
            elif _written(module, name, buffer, known):
                known[1].copy_(buffer)
                self._copies[place] = (buffer, known[1], buffer._version)

    def _put_buffers_back(self, bad: Tensor) -> None:
        for place, known in self._copies.items():
            module, name = self._places[place]
            buffer = getattr(module, name, None)
            if buffer is not None and buffer.shape == known[1].shape and _written(module, name, buffer, known):
                with torch.no_grad():
                    buffer.copy_(torch.where(bad, known[1], buffer))


def _written(module: nn.Module, name: str, buffer: Tensor, known: tuple[Tensor, Tensor, int]) -> bool:
    """Whether a buffer may have changed; batch norms write their statistics without counting it as a version."""
    counted = known[0] is not buffer or known[2] != buffer._version
    return counted or (name.startswith('running_') and module.training)


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """(P,) fp32 norms of tensors on one device, as ``clip_grad_norm_`` takes them."""
    return torch.stack([norm.to(tensors[0].device) for norm in torch._foreach_norm(list(tensors), 2.0)]).float()


def _start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give torch's fused SGD the momentum 0 to start from: a first step that is left out would leave it unset."""
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group.get('fused') and group['momentum'] and not group['dampening']:
            for param in group['params']:
                if param.requires_grad and optimizer.state[param].get('momentum_buffer') is None:
                    optimizer.state[param]['momentum_buffer'] = torch.zeros_like(param)


@contextmanager
def _undone_where(bad: Tensor, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Parameters and optimizer state are those from before where ``bad``; state that is new is 0 there."""
    params = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
    old = [p.detach().clone() for p in params]
    states = [{k: v.clone() for k, v in optimizer.state.get(p, {}).items() if isinstance(v, Tensor)} for p in params]
    yield
    with torch.no_grad():
        for param, value, state in zip(params, old, states):
            param.copy_(torch.where(bad, value, param))
            for key, now in optimizer.state.get(param, {}).items():
                if isinstance(now, Tensor):
                    now.copy_(torch.where(bad, state.get(key, torch.zeros_like(now)), now))
