"""Learning rates and weight decay as the releases compute them, value by value, also under gradient accumulation.

mmengine's ``LinearLR`` is at its peak one iteration before the end of the warm-up, and under accumulation every rate is
that of the last micro-step before the update. The classes here take ``like``, one of four ways of looking up a rate.
An optimizer step is made of A iterations (``accumulative_counts``); i is the first of them, W the end of the warm-up,
T that of training, all in iterations (or epochs, for a schedule by epoch).

=========  ==============================================  ======================================  ===================
``like``   warm-up from s to the rate r                    cosine from r to m                      s and m
=========  ==============================================  ======================================  ===================
``mae``    s + (r - s) i / W                               half a wave from W to T                 scaled by layer
``beit``   s + (r - s) i / (W - A): r in the last step     half a wave from W to T                 scaled by layer
``timm``   s + (r - s) t / W with t = i - 1, the step      half a wave from 0 to T, looked up at   the same for all
           before: set after the update                    t, so that there is a drop at W         layers
``msn``    s + (r - s) t / W with t = i + A, the step      half a wave from W to ``stretch`` T,    scaled by layer
           behind: set before the update                   looked up at t
=========  ==============================================  ======================================  ===================

``mae``: MAE's ``adjust_learning_rate`` (util/lr_sched.py), also detectron2's and mmdetection 2's warm-up. ``beit``: the
numpy table of one entry an optimizer step (``cosine_scheduler``) of DINO, iBOT, BEiT, CAE and BootMAE. ``timm``: its
``CosineLRScheduler`` and the like, stepped after the optimizer: SimMIM by iteration, DeiT and MoCo v3 by epoch.
``msn``: ``WarmupCosineSchedule`` and ``CosineWDSchedule`` of MSN and I-JEPA, which count before they look.

An optimizer step may begin in one epoch and end in the next, since mmengine counts iterations through; where A divides
the epoch that never happens, and where not, MAE starts each epoch's count anew.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler

from mim_mm.registry import PARAM_SCHEDULERS

LIKE = ('mae', 'beit', 'timm', 'msn')


class _Rate(_ParamScheduler):
    """A rate that follows from the count of iterations alone.

    Its state is plain: ``begin``, ``end``, ``base_values``, the counts and the arguments. What it has computed before
    has no influence, so that a run goes on right after any of them has been changed.

    Args:
        begin, end: in epochs, or iterations with ``by_epoch=False`` or after ``convert_to_iter_based``.
        like: 'mae', 'beit', 'timm' or 'msn', see the head of this file.

    Raises:
        ValueError: for any other ``like``.
    """

    sets_what = 'lr'  # the entry of a parameter group

    def __init__(
        self,
        optimizer,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        like: str = 'mae',
    ) -> None:
        if like not in LIKE:
            raise ValueError(f"{type(self).__name__}: like is '{like}': use one of {', '.join(LIKE)}")
        self.like = like
        # A, iterations an optimizer step; 1 for schedules by epoch.
        self.accumulated = getattr(optimizer, '_accumulative_counts', 1) if not by_epoch else 1
        super().__init__(
            optimizer, self.sets_what, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose
        )

    @classmethod
    def build_iter_from_epoch(cls, *args, epoch_length: int, begin=0, end=INF, by_epoch=True, **kwargs) -> _Rate:
        """mmengine's way from epochs to iterations (``convert_to_iter_based=True``)."""
        if not by_epoch:
            raise ValueError(f'{cls.__name__}: convert_to_iter_based=True wants by_epoch=True')
        end = end if end == INF else int(end * epoch_length)
        return cls(*args, begin=int(begin * epoch_length), end=end, by_epoch=False, **kwargs)

    def load_state_dict(self, state_dict: dict) -> None:
        """As mmengine's, but how many iterations are accumulated is for the optimizer at hand to say."""
        super().load_state_dict({**state_dict, 'accumulated': self.accumulated})

    def lookup(self, step: int) -> int:
        """The iteration (or epoch) whose rate iteration ``step`` has."""
        first = step - step % self.accumulated
        if self.like == 'msn':
            return first + self.accumulated
        return max(0, first - 1) if self.like == 'timm' else first

    def sets(self, at: int) -> bool:
        """Whether it is this scheduler that sets the rate of iteration ``at``."""
        return self.begin <= at < self.end or (self.like == 'msn' and at == self.end)  # looks ahead, to the end

    def step(self) -> None:
        """One iteration (or epoch) further; sets the rates where :meth:`sets` says so."""
        self._global_step += 1
        at = self.lookup(self._global_step)
        if self.sets(at):
            self.last_step += 1
            top = max(self.base_values)
            for number, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_values, strict=True)):
                group[self.param_name] = self.rate(at, base, top if self.like == 'timm' else base)
                self.print_value(self.verbose, number, group[self.param_name])
        self._last_value = [group[self.param_name] for group in self.optimizer.param_groups]

    def rate(self, at: int, base: float, reference: float) -> float:
        """Of a parameter group at iteration ``at``.

        Args:
            base: the group's own rate, layer decay included.
            reference: what factors of start and end are taken of: ``base``, or the largest of all groups.
        """
        raise NotImplementedError


@PARAM_SCHEDULERS.register_module()
class WarmupLR(_Rate):
    """Linear from ``start_factor`` of the rate to the rate, which it leaves to the schedulers behind it in the list.

    They may be these or mmengine's, which multiply what they find.

    Args:
        start_factor: 0 in MAE, BEiT and their relatives, 0.2 in I-JEPA.
        **kwargs: ``begin``, ``end``, ``by_epoch``, ``like``.
    """

    def __init__(self, optimizer, start_factor: float = 0.0, **kwargs) -> None:
        if not 0 <= start_factor <= 1:
            raise ValueError(f'WarmupLR: start_factor is {start_factor}: it is a part of the rate, 0 to 1')
        self.start_factor = start_factor
        super().__init__(optimizer, **kwargs)

    def sets(self, at: int) -> bool:
        left = self._global_step > 0 and self.lookup(self._global_step - 1) < self.end <= at
        return super().sets(at) or left  # once more, at the end or in the first optimizer step behind it: the rate

    def rate(self, at: int, base: float, reference: float) -> float:
        length = self.end - self.begin - (self.accumulated if self.like == 'beit' else 0)
        done = (at - self.begin) / length if length > 0 else 0.0
        start = self.start_factor * reference
        return start + (base - start) * min(done, 1.0)


@PARAM_SCHEDULERS.register_module()
class HalfCosineLR(_Rate):
    """Half a cosine wave from the rate at ``begin`` (``like='timm'``: at 0) to ``eta_min`` at ``end``.

    Args:
        eta_min: the last rate, the same for all groups. At most one of the two.
        eta_min_ratio: it as a part of the rate: of each group's own, or with ``like='timm'`` of the largest.
        stretch: the wave ends at ``stretch * end``, behind the training: 1.25 in MSN and I-JEPA.
        **kwargs: ``begin``, ``end``, ``by_epoch``, ``like``.
    """

    def __init__(
        self,
        optimizer,
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        stretch: float = 1.0,
        **kwargs,
    ) -> None:
        if eta_min is not None and eta_min_ratio is not None:
            raise ValueError(f'HalfCosineLR: eta_min={eta_min} and eta_min_ratio={eta_min_ratio}: give one of them')
        if stretch < 1:
            raise ValueError(
                f'{type(self).__name__}: stretch is {stretch}: the wave ends with the training or behind it'
            )
        self.eta_min, self.eta_min_ratio, self.stretch = eta_min, eta_min_ratio, stretch
        super().__init__(optimizer, **kwargs)

    def rate(self, at: int, base: float, reference: float) -> float:
        start = 0 if self.like == 'timm' else self.begin
        floor = self.eta_min_ratio * reference if self.eta_min_ratio is not None else self.eta_min or 0.0
        return floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * (at - start) / (self._horizon - start)))

    @property
    def _horizon(self) -> float:
        """Where the wave ends; whole iterations, as the releases that stretch it count."""
        return self.end if self.stretch == 1 else int(self.stretch * self.end)


@PARAM_SCHEDULERS.register_module()
class HalfCosineWeightDecay(HalfCosineLR):
    """Weight decay on half a cosine wave from that of the optimizer to ``eta_min``, here the last and larger value.

    DINO's and iBOT's 0.04 -> 0.4 with ``like='beit'``. Groups without weight decay stay without.
    """

    sets_what = 'weight_decay'

    def rate(self, at: int, base: float, reference: float) -> float:
        return super().rate(at, base, reference) if base else 0.0


@PARAM_SCHEDULERS.register_module()
class StepsLR(_Rate):
    """The rate, times ``gamma`` from each milestone on; before ``begin`` it leaves the rate to others (a warm-up).

    Args:
        milestones: counted from 0, whatever ``begin`` is; epochs or iterations as ``begin``.
        gamma: 0.1 in SimMIM.
        **kwargs: ``begin``, ``end``, ``by_epoch``, ``like``.
    """

    def __init__(self, optimizer, milestones: Sequence[int], gamma: float = 0.1, **kwargs) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, **kwargs)

    @classmethod
    def build_iter_from_epoch(cls, *args, milestones: Sequence[int], epoch_length: int, **kwargs) -> StepsLR:
        """As the others; the milestones are converted, too."""
        milestones = [int(m * epoch_length) for m in milestones]
        return super().build_iter_from_epoch(*args, milestones=milestones, epoch_length=epoch_length, **kwargs)

    def rate(self, at: int, base: float, reference: float) -> float:
        return base * self.gamma ** bisect_right(self.milestones, at)


@PARAM_SCHEDULERS.register_module()
class PolyLR(_Rate):
    """The rate times (1 - i / end) to a power; before ``begin`` it leaves the rate to others (a warm-up).

    i is counted from 0, whatever ``begin`` is, as mmcv 1.x does, with which UperNet's figures were made; mmengine's
    class of that name counts from ``begin``. There the warm-up has the factor as well, here it does not: it ends above
    by ``begin / end``, 0.9 % in the recipes.

    Args:
        power: 1 in BEiT's, MAE's and iBOT's segmentation: a straight line.
        **kwargs: as the others.
    """

    def __init__(self, optimizer, power: float = 1.0, **kwargs) -> None:
        self.power = power
        super().__init__(optimizer, **kwargs)

    def rate(self, at: int, base: float, reference: float) -> float:
        return base * (1 - at / self.end) ** self.power
