"""The guard against NaN of every training: steps left out, going back, stopping, and what may be saved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapper

from mim_mm.checkpoint.finite import MAY_DIVERGE, newest_finite, not_finite
from mim_mm.checkpoint.leftovers import some
from mim_mm.checkpoint.read import read_content
from mim_mm.compat.internals import take_averages
from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.hooks.finite_diagnosis import Batches, diagnose
from mim_mm.engine.hooks.histories import logged
from mim_mm.engine.hooks.later import Later
from mim_mm.engine.optim.finite_step import FiniteStep
from mim_mm.registry import HOOKS


class NotFiniteError(FloatingPointError):
    """A training that cannot go on, or whose result is worth nothing; the message says where, and what to do."""


@HOOKS.register_module()
class FiniteHook(Hook):
    """Leave out the steps whose loss or gradient is not finite, go back when they do not end, and stop in the end.

    :class:`mim_mm.engine.optim.finite_step.FiniteStep` leaves them out, without a wait for the device. The count lies
    on the device; a CPU is asked after every optimizer step, a GPU gets a copy of it under way every ``interval`` steps
    and reads it ``interval`` steps later, when it has long arrived. All ranks read the same count at the same step.

    Going back means weights, averages and optimizer state of the newest checkpoint of this run whose tensors are all
    finite (a copy in memory would take three times the model); counters, schedules and data go on, so the batches at
    fault are not met again. Where there is no checkpoint yet, steps go on being left out until ``stop_after``.

    ``train/grad_norm`` (before clipping) is logged like the loss. One line warns when it or the loss exceeds both twice
    the median of its last ``window`` values and ``spike`` robust standard deviations (1.4826 MAD) above it.

    ``configs/_base_/default_runtime.py`` has this hook and ``tools/train.py`` adds it where it is missing; of several
    in one run the first acts.

    Args:
        rollback_after: bad steps in a row before the run goes back.
        stop_after: bad steps in a row before it stops with a diagnosis.
        interval: optimizer steps between two looks at the count on a GPU.
        spike: see above; 0 switches the alarm off.
        window: values of the recent history.

    Raises:
        ValueError: an argument out of range.
        NotFiniteError: weights that are not finite at the start or at the end; ``stop_after`` bad steps in a row; the
            last step of the training was bad.
    """

    priority = 5  # before whatever looks at outputs or saves
    changes_learning = False

    def __init__(
        self,
        rollback_after: int = 5,
        stop_after: int = 20,
        interval: int = 10,
        spike: float = 10.0,
        window: int = 100,
    ) -> None:
        if not 1 <= rollback_after < stop_after:
            raise ValueError(
                f'FiniteHook: rollback_after={rollback_after}, stop_after={stop_after}: both count bad steps in a row, '
                'and the run must go back before it stops: 1 <= rollback_after < stop_after'
            )
        if interval < 1 or window < 20 or spike < 0:
            raise ValueError(
                f'FiniteHook: interval={interval} must be at least 1 step, window={window} at least 20 values, '
                f'spike={spike} at least 0'
            )
        self.rollback_after, self.stop_after, self.interval = rollback_after, stop_after, interval
        self.spike, self.window = spike, window
        self.acts, self.only = False, True

    # ---- start and end

    def before_train(self, runner) -> None:
        self.only = self.acts = self is next(hook for hook in runner.hooks if isinstance(hook, FiniteHook))
        if self.acts and not isinstance(runner.optim_wrapper, OptimWrapper):
            self.acts = False
            runner.logger.warning('FiniteHook: several optimizers: NaN is looked for when saving and at the end only')
        if not self.acts:
            return
        bad = bad_tensors(runner)
        if bad:
            raise NotFiniteError(
                f'before the first step these are not finite: {some(bad)}. Start from other weights (load_from, init), '
                'or --resume an earlier checkpoint'
            )
        self.step = FiniteStep(runner.optim_wrapper, runner.model, may_diverge(runner))
        self.step.install()
        if self.step.way == 'host' and self.step.device.type != 'cpu':
            kind = type(runner.optim_wrapper.optimizer).__name__
            runner.logger.warning(
                f'{kind} cannot leave out a step without waiting for the device: set optim_wrapper.optimizer.fused=True'
            )
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        self.batches = Batches((self.stop_after + 2 * self.interval) * accumulated)
        self.sent: Later | None = None
        self.steps = self.told = 0
        self.gone_back_for, self.gone_back_to = -1, []
        self.seen: dict[str, int] = {}
        self.spiking: dict[str, bool] = {}

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if self.acts:
            self._look_for_spikes(runner)
            self.step.begin(runner.iter)
            self.batches.note(runner, batch_idx, data_batch)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not self.acts or not self.step.stepped:
            return
        if outputs is not None:
            outputs['grad_norm'] = self.step.norm
        self.steps += 1
        counts = self._counts()
        if counts is not None:
            self._act(runner, data_batch, counts)

    def after_train(self, runner) -> None:
        if self.acts:
            self._look_for_spikes(runner)
            row, total, first = self.step.counts.tolist()[:3]
            self._tell(runner, total)
            self.step.remove()
            if row:
                raise NotFiniteError(
                    f'training ended, but the last {row} step(s), from iteration {first + 1} on, had a loss or '
                    'gradient that is not finite and were left out. The checkpoint holds the weights from before them; '
                    '--resume ends the run with these weights if that is what you want'
                )
        bad = bad_tensors(runner) if self.only else []
        if bad:
            raise NotFiniteError(
                f'training ended with weights that are not finite: {some(bad)}. They were not saved; the newest '
                f'checkpoint is from before: --resume goes on from it'
            )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        free = may_diverge(runner)
        if free:
            checkpoint.setdefault('meta', {})[MAY_DIVERGE] = list(free)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        bad = [f'{name}={value}' for name, value in (metrics or {}).items() if _number_is_bad(value)]
        if bad and self.only:
            runner.logger.error(f'validation: {", ".join(bad)}: not a finite number, so it says nothing of the model')

    # ---- bad steps

    def _counts(self) -> list[int] | None:
        """The counts of some step: of this one on a CPU, of ``interval`` steps ago on a GPU; None between looks."""
        counts = self.step.counts
        if counts.device.type == 'cpu':
            return counts.tolist()
        if self.steps % self.interval:
            return None
        before, self.sent = self.sent, Later(counts)
        return None if before is None else before.tolist()  # arrived, unless the host is that many steps ahead

    def _act(self, runner, data_batch, counts: list[int]) -> None:
        row, total, first, own, _ = counts
        self._tell(runner, total)
        if row >= self.stop_after:
            text = diagnose(runner, self.step, self.batches, data_batch, first, own, row)
            raise NotFiniteError(f'stopped after {row} steps in a row that are not finite, {text}. {ADVICE}')
        if row >= self.rollback_after and first != self.gone_back_for:
            self.gone_back_for = first
            path = self._newest(runner)
            if path is None:
                runner.logger.error(f'{row} bad steps in a row, and no finite checkpoint of this run to go back to yet')
                return
            if self.gone_back_to.count(path) == 2:
                text = diagnose(runner, self.step, self.batches, data_batch, first, own, row)
                raise NotFiniteError(f'stopped: the run went back to {path} twice and fails again, {text}. {ADVICE}')
            self.gone_back_to.append(path)
            go_back(runner, path)
            runner.logger.error(
                f'{row} bad steps in a row, from iteration {first + 1} on: weights and optimizer state are those of '
                f'{path} again; data and schedules go on'
            )

    def _tell(self, runner, total: int) -> None:
        """A line for each of the first ten bad steps, then at each doubling of their number."""
        if total > self.told and (total <= 10 or total.bit_length() > self.told.bit_length()):
            runner.logger.warning(
                f'{total} step(s) left out up to iteration {runner.iter + 1}: loss or gradient not finite; '
                'weights and optimizer state are as before them'
            )
            self.told = total

    @staticmethod
    def _newest(runner) -> Path | None:
        found: list = [None]
        if is_main_process():
            folder = next((h.out_dir for h in runner.hooks if isinstance(h, CheckpointHook) and h.out_dir), None)
            found[0], refused = newest_finite(folder or runner.work_dir)
            for sentence in refused:
                runner.logger.warning(sentence)
        broadcast_object_list(found)
        return found[0]

    # ---- spikes

    def _look_for_spikes(self, runner) -> None:
        """Look at what the last log line brought to the host; nothing is asked of the device."""
        for key in ('grad_norm', 'loss') if self.spike else ():
            history = runner.message_hub.log_scalars.get(f'train/{key}')
            values = None if history is None else history.data[0]
            if values is None or logged(history) == self.seen.get(key, 0):
                continue
            new = min(len(values), logged(history) - self.seen.get(key, 0))
            self.seen[key] = logged(history)
            past = np.asarray(values[max(0, len(values) - new - self.window) : len(values) - new], dtype=float)
            limit = spike_limit(past, self.spike)
            top = max((float(v) for v in values[-new:] if math.isfinite(v)), default=0.0)
            if limit is not None and top > limit and not self.spiking.get(key):
                runner.logger.warning(
                    f'spike: {key} {top:.4g} up to iteration {runner.iter}, median before {np.nanmedian(past):.4g} '
                    f'(alarm above {limit:.4g}); training goes on'
                )
            self.spiking[key] = limit is not None and top > limit


ADVICE = 'Look at these images; resume from a checkpoint (--resume PATH) with a lower lr, clip_grad.max_norm=1 or fp32'


@HOOKS.register_module()
class FiniteLossHook(FiniteHook):
    """The name under which recipes stated the guard before it looked at every step; ``interval`` is not read."""

    def __init__(self, interval: int = 50) -> None:
        super().__init__()


def spike_limit(past: np.ndarray, spike: float) -> float | None:
    """The value above which a new one is a spike; None with fewer than 20 finite values to judge by.

    Args:
        past: earlier values.
        spike: robust standard deviations above the median.
    """
    past = past[np.isfinite(past)]
    if len(past) < 20:
        return None
    median = float(np.median(past))
    deviation = 1.4826 * float(np.median(np.abs(past - median)))
    return max(2 * abs(median), median + spike * deviation)


def may_diverge(runner) -> tuple[str, ...]:
    """Beginnings of names of parts of the model that are trained independently, so that one may be lost alone."""
    return tuple(getattr(bare_model(runner), 'may_diverge', ()))


def bad_tensors(runner) -> list[str]:
    """Names of weights, buffers and optimizer state that are not finite, on any rank; all ranks must ask.

    Waits for the device once.
    """
    model, free = bare_model(runner), may_diverge(runner)
    saved = {name: value for name, value in model.named_parameters()}
    names = set(dict(model.named_buffers()))
    for module_name, module in model.named_modules():
        lost = getattr(module, '_non_persistent_buffers_set', ())
        names -= {f'{module_name}.{name}' if module_name else name for name in lost}
    saved |= {name: value for name, value in model.named_buffers() if name in names}
    bad = not_finite(saved, free)
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is not None and not free:
        named = {id(p): name for name, p in model.named_parameters()}
        states = {
            f'{key} of {named.get(id(p), "a parameter")}': value
            for p, state in optimizer.state.items()
            for key, value in state.items()
            if isinstance(value, torch.Tensor)
        }
        bad += not_finite(states)
    anywhere = torch.tensor(float(bool(bad)), device=next(model.parameters()).device)
    all_reduce(anywhere, op='max')
    return bad or (['tensors of another rank'] if anywhere else [])


def may_be_saved(runner) -> bool:
    """Whether everything that a checkpoint would hold is finite; the log says what is not. All ranks must ask."""
    bad = bad_tensors(runner)
    if bad:
        runner.logger.error(f'NOT saved, the last checkpoint stays the newest: not finite: {some(bad)}')
    return not bad


def go_back(runner, path: Path) -> None:
    """Take weights, averages and optimizer state from a checkpoint of this run; everything else stays as it is."""
    content = read_content(path, mmap=True)
    for hook in runner.hooks:
        if isinstance(hook, EMAHook) and 'ema_state_dict' in content:
            take_averages(hook, content)
    strategy, wrapper = getattr(runner, 'strategy', None), runner.optim_wrapper
    sharded = hasattr(strategy, 'load_optim_state_dict')
    if sharded:
        strategy.load_model_state_dict(content['state_dict'], strict=True)
    else:
        bare_model(runner).load_state_dict(content['state_dict'])
    saved = content.get('optimizer')
    if not saved:
        return
    now = wrapper.optimizer.param_groups  # rates are those of this iteration
    groups = [{**g, 'params': old['params']} for g, old in zip(now, saved['param_groups'], strict=True)]
    state = dict(state=saved['state'], param_groups=groups)
    if sharded:
        strategy.load_optim_state_dict(state)
    else:
        wrapper.optimizer.load_state_dict(state)
    wrapper.zero_grad()


def _number_is_bad(value) -> bool:
    try:
        return not math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
