"""A resumed run follows the schedule and the rates of its own config.

mmengine puts the checkpoint's schedulers and parameter groups over those that were built from the config, so that a run
resumed with another ``max_epochs``, batch or learning rate logs one schedule and trains with another. Here what the
config built is kept aside, compared with what the checkpoint brought, and where they differ the config's schedulers are
stepped from 0 to where the checkpoint is: the rates are then those of a run that had these settings from the start.
A resume that changes nothing is left alone, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop

from mim_mm.checkpoint.whole import check_floor, report_of
from mim_mm.compat.internals import resumes
from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.start import data_order, resume_place, same_tensors
from mim_mm.engine.stop.exact_resume import ResumeError
from mim_mm.registry import HOOKS

# Of a scheduler's state, what counts steps; everything else follows from its config and the optimizer's.
COUNTERS = ('last_step', '_global_step', '_last_value', 'verbose')
MIN_LOADED = 0.95  # least part of a model that load_from must fill
PER_GROUP = ('base_values', '_last_value')  # lists with one entry a parameter group


def by_name(wrapper, schedulers) -> dict[str, tuple[Any, list]]:
    """``{name: (optimizer wrapper, its schedulers)}``; the name of a single optimizer is empty."""
    if not isinstance(wrapper, OptimWrapperDict):
        return {'': (wrapper, list(schedulers or []))}
    return {name: (one, list((schedulers or {}).get(name) or [])) for name, one in wrapper.items()}


def numbers(group: dict) -> dict[str, Any]:
    """The hyperparameters of a parameter group that are numbers, or tuples of them (betas)."""

    def is_number(value) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    return {
        key: value
        for key, value in group.items()
        if is_number(value) or (isinstance(value, (tuple, list)) and value and all(map(is_number, value)))
    }


def state(scheduler) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in vars(scheduler).items() if key != 'optimizer'}


class _Groups:
    """What a scheduler sees of an optimizer: parameter groups. ``step`` only keeps it from warning."""

    _global_step = 0

    def __init__(self, groups: list[dict]):
        self.param_groups = groups

    def step(self) -> None:
        pass

    step._with_counter = True


def replay(
    schedulers: list, fresh: list[dict], groups: list[dict], iterations: int, epoch: int, length: int | None
) -> tuple[list[dict], list[dict[str, Any]]]:
    """Step newly built schedulers as training would have.

    Groups of equal hyperparameters are stepped as one: a ViT has hundreds of groups and few different ones.

    Args:
        schedulers: whose classes are stepped; they are not changed.
        fresh: the state of each after its construction.
        groups: the hyperparameters of each parameter group then, see :func:`numbers`.
        iterations, epoch: finished ones.
        length: iterations of an epoch; None in an iteration-based loop, where no scheduler is stepped by epoch.

    Returns:
        the hyperparameters of each group, and the state of each scheduler, after these steps.
    """
    keys = [repr(sorted(group.items())) for group in groups]
    first = [keys.index(key) for key in dict.fromkeys(keys)]
    place = {keys[index]: i for i, index in enumerate(first)}
    back = [place[key] for key in keys]
    few = _Groups([dict(groups[index]) for index in first])
    copies = []
    for scheduler, begin in zip(schedulers, fresh, strict=True):
        one = copy.copy(scheduler)
        vars(one).update(copy.deepcopy(begin), optimizer=few)
        for name in PER_GROUP:
            setattr(one, name, [getattr(one, name)[index] for index in first])
        copies.append(one)
    each_iteration = [one for one in copies if not one.by_epoch]
    each_epoch = [one for one in copies if one.by_epoch]
    for iteration in range(1, iterations + 1):
        for one in each_iteration:
            one.step()
        if length and iteration % length == 0 and iteration // length <= epoch:
            for one in each_epoch:
                one.step()
    states = []
    for one in copies:
        for name in PER_GROUP:
            setattr(one, name, [getattr(one, name)[index] for index in back])
        states.append(state(one))
    return [dict(few.param_groups[index]) for index in back], states


@HOOKS.register_module()
class ResumeScheduleHook(Hook):
    """Give a resumed run the schedule, the rates, the iteration count and the place in the data of its own config.

    - Before anything is filled every tensor of the checkpoint is compared (:mod:`.same_tensors`), and the images.
    - ``max_epochs``, ``param_scheduler``, learning rate or weight decay changed: see the module's docstring.
    - Another batch or number of devices: the checkpoint's place is counted in images and turned into iterations of
      this run, from the end of an epoch and, where the order of the images allows it and the new batch divides what
      was seen, from the middle of one: no image is seen twice or left out. A loop that counts iterations goes on where
      ``max_iters`` and what the schedule counts in iterations mean as many images as before.
    - Nothing is left to do: said.

    Args:
        allow: settings that may change, as of ``--allow-change``; ``train_dataloader.dataset`` and ``optimizer`` are
            asked for here.

    Raises:
        ResumeError: the checkpoint is of another model, or the schedule of this run has no place for it; the message
            says what to resume with.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = tuple(allow)
        self._built: dict[str, tuple[list[dict], list[dict]]] | None = None
        self._loaded: dict[str, list[dict]] = {}
        self._meta: dict[str, Any] = {}
        self._whole: dict[str, tuple] | None = None  # of a model that is sharded by now
        self._converted = False
        self._data: dict[str, Any] | None = None

    def before_wrap(self, runner, model) -> None:
        self._whole = same_tensors.tensor_kinds(model)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if not _is_built(runner.optim_wrapper):
            return  # a model that was not trained
        pairs = by_name(runner.optim_wrapper, runner.param_schedulers)
        types = {name: [type(one).__name__ for one in schedulers] for name, (_, schedulers) in pairs.items()}
        loop, loader = runner.train_loop, runner.train_dataloader
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        if by_epoch:
            checkpoint['meta'].setdefault('epoch_length', len(loader))
        schedule = dict(images=data_order.images_an_iteration(loader), types=types, devices=get_world_size())
        if not by_epoch:
            schedule.update(max_iters=loop.max_iters, counted=resume_place.counted_in_iterations(_all(pairs)))
        if self._whole is None:
            names = _names(runner)
            schedule['groups'] = {
                name: same_tensors.group_names(wrapper.optimizer, names) for name, (wrapper, _) in pairs.items()
            }
        if self._data is None:
            self._data = data_order.describe(loader)
        checkpoint['meta']['schedule'] = dict(schedule, data=self._data)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Called before model, optimizer and schedulers are filled: compare, convert, keep what the config built."""
        if not _is_built(runner.optim_wrapper):
            return  # an evaluation
        pairs = by_name(runner.optim_wrapper, runner.param_schedulers)
        self._built = {
            name: ([numbers(group) for group in wrapper.param_groups], [state(one) for one in schedulers])
            for name, (wrapper, schedulers) in pairs.items()
        }
        self._meta = dict(checkpoint.get('meta') or {})
        if not resumes(runner):
            self._report_load(runner, checkpoint)
        else:
            self._compare(runner, checkpoint, pairs)
            counted, order = resume_place.counted_in_iterations(_all(pairs)), self._data['order']
            self._converted = resume_place.convert(runner, checkpoint['meta'], self._schedule(), order, counted)
        saved = checkpoint.get('param_schedulers')
        if saved is None:
            self._loaded = {}
            return
        single = list(self._built) == ['']
        self._loaded = {'': list(saved)} if single and not isinstance(saved, dict) else dict(saved)
        # mmengine fills as many schedulers as it finds states, whatever their kinds; the config's go in instead.
        states = {name: copy.deepcopy(begin) for name, (_, begin) in self._built.items()}
        checkpoint['param_schedulers'] = states[''] if single else states

    def _compare(self, runner, checkpoint: dict, pairs: dict) -> None:
        """ResumeError unless every tensor of the checkpoint has its place, and the images are those of its run."""
        name, own = str(runner.cfg.get('load_from') or 'the checkpoint'), self._whole
        names = _names(runner) if own is None else None  # a sharded run compares its optimizer by itself
        problems = same_tensors.problems_of(
            checkpoint,
            own or same_tensors.tensor_kinds(bare_model(runner)),
            any(isinstance(hook, EMAHook) for hook in runner.hooks),
            {part: wrapper.optimizer for part, (wrapper, _) in pairs.items()} if names else {},
            names or {},
            self._schedule().get('groups') or {},
            _allowed(same_tensors.OPTIMIZER, self.allow),
        )
        same_tensors.refuse(problems, name)
        then, self._data = self._schedule().get('data') or {}, data_order.describe(runner.train_dataloader)
        other = data_order.other_images(then, self._data)
        if other and not _allowed('train_dataloader.dataset', self.allow):
            raise ResumeError(
                f'--resume: {name} was trained on other images: {other}. Give the data that it was trained on, or '
                '--allow-change train_dataloader.dataset to go on with these'
            )

    def _report_load(self, runner, checkpoint: dict) -> None:
        """Of ``load_from``: the load report, and LoadError below the floor (``min_loaded`` of the config)."""
        own = self._whole or same_tensors.tensor_kinds(bare_model(runner))
        state, floor = checkpoint.get('state_dict', checkpoint), runner.cfg.get('min_loaded', MIN_LOADED)
        report = report_of(own, state, str(runner.cfg.get('load_from')), floor)
        if is_main_process():
            report.save(runner.work_dir)
            runner.logger.info(f'{report.table()}\nSaved as {runner.work_dir}/load_report.json')
        check_floor(report, 'load_from')

    def _schedule(self) -> dict[str, Any]:
        found = self._meta.get('schedule')
        return found if isinstance(found, dict) else {}

    def before_train(self, runner) -> None:
        built, self._built = self._built, None
        loop = runner.train_loop
        if built is None or loop.iter == 0:
            return
        self._say_if_over(runner)
        self._check_place(runner)
        types = (self._meta.get('schedule') or {}).get('types') or {}
        for name, (wrapper, schedulers) in by_name(runner.optim_wrapper, runner.param_schedulers).items():
            groups, fresh = built[name]
            loaded = self._loaded.get(name)
            changes = group_changes(wrapper.param_groups, groups, {one.param_name for one in schedulers})
            if any(getattr(one, 'need_val_args', False) for one in schedulers):
                self._keep_measured(schedulers, fresh, loaded, changes)
                continue
            changes = scheduler_changes(schedulers, fresh, loaded, types.get(name)) + changes
            if loaded is not None and not changes and not self._converted:
                for one, old in zip(schedulers, loaded, strict=True):
                    one.load_state_dict(old)
                continue
            epochs = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None
            before = wrapper.param_groups[0].get('lr')
            values, states = replay(schedulers, fresh, groups, loop.iter, loop.epoch, epochs)
            for group, value in zip(wrapper.param_groups, values, strict=True):
                group.update(value)
            for one, new in zip(schedulers, states, strict=True):
                one.load_state_dict(new)
            now = wrapper.param_groups[0].get('lr')
            words = '; '.join(changes) or 'counted in the iterations of this run'
            rate = f'; the rate goes on at {now:.4g} (checkpoint: {before:.4g})' if now is not None else ''
            runner.logger.info(f'schedule of this run{f" ({name})" if name else ""}: {words}{rate}')

    @staticmethod
    def _keep_measured(schedulers: list, fresh: list[dict], loaded: list[dict] | None, changes: list[str]) -> None:
        """ReduceOnPlateau and its like: their course depends on what was measured and cannot be computed again."""
        if changes or [s['base_values'] for s in loaded or ()] != [s['base_values'] for s in fresh]:
            raise ResumeError(
                'param_scheduler has one that follows measured values (ReduceOnPlateau), and the rates or the number '
                'of schedulers changed: nobody can compute where it would be. Resume with the settings of the '
                'checkpoint, or start a new run from its weights (load_from, without --resume)'
            )
        for one, old in zip(schedulers, loaded, strict=True):
            one.load_state_dict(old)

    @staticmethod
    def _say_if_over(runner) -> None:
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, total = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        if done >= total:
            unit, key = ('epoch', 'max_epochs') if by_epoch else ('iteration', 'max_iters')
            runner.logger.warning(
                f'nothing left to do: the checkpoint is from after {unit} {done}, and train_cfg.{key} is {total}; '
                f'for a longer training set it higher: --cfg-options train_cfg.{key}=N'
            )

    def _check_place(self, runner) -> None:
        """ResumeError where a checkpoint does not say how long its epochs were and is not at the end of one."""
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop) or self._meta.get('epoch_length') is not None:
            return
        now, epoch = len(loop.dataloader), loop.epoch
        if loop.iter != epoch * now:
            raise ResumeError(
                f'the checkpoint counts {loop.iter} iterations in {epoch} epochs, an epoch has {now} here: other '
                'batch size, number of devices or data, or the middle of an epoch; it does not say which. Resume '
                'with the settings that it was trained with, from the end of an epoch'
            )


def _is_built(wrapper) -> bool:
    """Whether a Runner has made its optimizer out of the config already."""
    return isinstance(wrapper, OptimWrapperDict) or hasattr(wrapper, 'param_groups')


def _names(runner) -> dict[int, str]:
    return {id(parameter): name for name, parameter in bare_model(runner).named_parameters()}


def _all(pairs: dict[str, tuple[Any, list]]) -> list:
    return [one for _, schedulers in pairs.values() for one in schedulers]


def _allowed(path: str, allow: Sequence[str]) -> bool:
    return any(path == key or path.startswith(f'{key}.') or key.startswith(f'{path}.') for key in allow)


def scheduler_changes(
    schedulers: list, fresh: list[dict], loaded: list[dict] | None, types: list[str] | None
) -> list[str]:
    """What is different about the schedulers of a checkpoint, in words; empty where they follow the same course."""
    names = [type(one).__name__ for one in schedulers]
    if loaded is None:
        return ['the checkpoint has no schedulers']
    if len(loaded) != len(fresh) or (types and types != names):
        old = ', '.join(types or [f'{len(loaded)} schedulers']) or 'none'
        return [f'schedulers {old} -> {", ".join(names) or "none"}']
    changes = []
    for name, new, old in zip(names, fresh, loaded, strict=True):
        for key in dict.fromkeys([*new, *old]):
            a, b = old.get(key), new.get(key)
            if key in COUNTERS or _same(a, b):
                continue
            if key == 'base_values':
                changes.append(f'{name} base rate {max(a):.4g} -> {max(b):.4g}')
            else:
                changes.append(f'{name}.{key} {a} -> {b}')
    return changes


def group_changes(loaded: list[dict], fresh: list[dict], scheduled: set) -> list[str]:
    """Hyperparameters that the checkpoint brought and the config states otherwise, each once, in words."""
    changes = []
    for old, new in zip(loaded, fresh, strict=True):
        for key, value in new.items():
            if key not in scheduled and not _same(old.get(key), value):
                changes.append(f'{key} {old.get(key)} -> {value}')
    changes = list(dict.fromkeys(changes))
    return changes if len(changes) <= 4 else [*changes[:3], f'and {len(changes) - 3} more in other parameter groups']


def _same(a: Any, b: Any) -> bool:
    """Equality of two values of a scheduler's state; functions are their names, tensors what they show."""
    if callable(a) and callable(b):
        return True
    try:
        return bool(_plain(a) == _plain(b))
    except (TypeError, ValueError, RuntimeError):
        return repr(a) == repr(b)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
