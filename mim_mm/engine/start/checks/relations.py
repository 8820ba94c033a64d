"""Settings that are sound by themselves and not together: loops, loaders, schedules, checkpoints. Imports no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mim_mm.config_parts import type_name
from mim_mm.engine.start.checks.rules import is_number
from mim_mm.engine.start.checks.words import ConfigError, shown

WARM_UPS = ('WarmupLR', 'LinearLR', 'ConstantLR')


def check_relations(cfg: Config) -> None:
    """Refuse what contradicts itself before a schedule is fitted to a shortened run.

    Raises:
        ConfigError: with both settings and which of them to change.
    """
    for check in (_channels, _erasing, _loop, _samplers, _schedulers, _counted_by_epoch, _validation, _steps_of_rate):
        said = check(cfg)
        if said:
            raise ConfigError(said)


def check_fitted(cfg: Config) -> None:
    """Refuse a schedule that still ends or begins behind the training, after ``schedule.fit_schedule``.

    Raises:
        ConfigError: with the scheduler and the end of training.
    """
    loop = cfg.get('train_cfg') or {}
    by_epoch = bool(loop.get('max_epochs'))
    total, unit = loop.get('max_epochs') or loop.get('max_iters'), 'epochs' if by_epoch else 'iterations'
    for path, scheduler in schedulers_of(cfg):
        if not is_number(total) or scheduler.get('by_epoch', True) != by_epoch:
            continue
        begin, end = scheduler.get('begin', 0), scheduler.get('end')
        name = type_name(scheduler)
        if is_number(end) and end > total and name in WARM_UPS:
            raise ConfigError(
                f'{path}.end={end}: the warm-up ({name}) is longer than the training of {total} {unit}: end it earlier '
                "(and begin the next scheduler there), or set train_cfg's duration"
            )
        if is_number(begin) and begin >= total:
            raise ConfigError(
                f'{path}.begin={begin}: {name} would begin when training has ended, at {total} {unit}: begin it earlier'
            )


def schedulers_of(cfg: Mapping) -> Iterator[tuple[str, Mapping]]:
    """Every scheduler with its place; several optimizers have lists by their names."""
    settings = cfg.get('param_scheduler')
    lists = {'param_scheduler': settings}
    if isinstance(settings, Mapping) and 'type' not in settings:
        lists = {f'param_scheduler.{name}': value for name, value in settings.items()}
    for place, value in lists.items():
        if isinstance(value, Mapping):
            yield place, value
        for index, one in enumerate(value if isinstance(value, (list, tuple)) else ()):
            if isinstance(one, Mapping):
                yield f'{place}.{index}', one


def _is_iter_based(loop: Mapping) -> bool:
    return type_name(loop) == 'IterBasedTrainLoop' or (not loop.get('type') and loop.get('by_epoch') is False)


def _is_epoch_based(loop: Mapping) -> bool:
    return type_name(loop) == 'EpochBasedTrainLoop' or (not loop.get('type') and bool(loop.get('by_epoch')))


def _channels(cfg: Mapping) -> str | None:
    model = cfg.get('model') if isinstance(cfg.get('model'), Mapping) else {}
    for path, holder in (('', cfg), ('model.', model)):
        settings = holder.get('data_preprocessor')
        mean, std = (settings.get(key) if isinstance(settings, Mapping) else None for key in ('mean', 'std'))
        if isinstance(mean, (list, tuple)) and isinstance(std, (list, tuple)) and len(mean) != len(std):
            return f'{path}data_preprocessor.std={shown(std)}: mean has {len(mean)} channels: give as many of both'
    return None


def _erasing(cfg: Mapping) -> str | None:
    """A box that is drawn in the pipeline and that nobody fills would be no erasing, without a word."""
    loader = cfg.get('train_dataloader') or {}
    dataset = loader.get('dataset')
    steps = (dataset.get('pipeline') if isinstance(dataset, Mapping) else None) or ()
    kinds = [type_name(step) for step in steps]
    if 'RandomErasingBox' not in kinds:
        return None
    pack = next((step for step, kind in zip(steps, kinds) if kind == 'PackInputs'), {})
    if 'erase_box' not in (pack.get('meta_keys') or ()):
        return (
            'train_dataloader: RandomErasingBox draws a box that PackInputs leaves behind: set its '
            "meta_keys=('img_path', 'erase_box')"
        )
    model = cfg.get('model') if isinstance(cfg.get('model'), Mapping) else {}
    fills = type_name(cfg.get('data_preprocessor') or model.get('data_preprocessor') or {}) == 'LabelledPreprocessor'
    if not fills or type_name(loader.get('collate_fn') or {}) != 'collate_labelled':
        return (
            'train_dataloader: RandomErasingBox draws a box that data_preprocessor fills: set '
            "data_preprocessor.type='mim_mm.LabelledPreprocessor' and train_dataloader.collate_fn=dict(type="
            "'mim_mm.collate_labelled'), or take mmpretrain's RandomErasing"
        )
    return None


def _loop(cfg: Mapping) -> str | None:
    loop = cfg.get('train_cfg') or {}
    if 'type' in loop and 'by_epoch' in loop:
        return (
            f'train_cfg.by_epoch={loop["by_epoch"]}: the loop is {type_name(loop)}, which says by what it counts: '
            'leave out by_epoch, or type'
        )
    for wrong, right, applies in (
        ('max_epochs', 'max_iters', _is_iter_based),
        ('max_iters', 'max_epochs', _is_epoch_based),
    ):
        if applies(loop) and loop.get(wrong) is not None:
            kind = type_name(loop) or f'by_epoch={loop["by_epoch"]}'
            return f'train_cfg.{wrong}={loop[wrong]}: {kind} does not read it: did you mean {right}?'
    return None


def _samplers(cfg: Mapping) -> str | None:
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        sampler = (cfg.get(name) or {}).get('sampler')
        endless = type_name(sampler) == 'InfiniteSampler'
        if endless and (name != 'train_dataloader' or _is_epoch_based(cfg.get('train_cfg') or {})):
            what = 'an epoch of EpochBasedTrainLoop' if name == 'train_dataloader' else 'an evaluation'
            return f'{name}.sampler.type={shown(sampler["type"])}: it has no end, nor would {what}: use DefaultSampler'
    return None


def _schedulers(cfg: Mapping) -> str | None:
    for path, scheduler in schedulers_of(cfg):
        begin, end = scheduler.get('begin', 0), scheduler.get('end')
        if is_number(begin) and is_number(end) and end <= begin:
            return f'{path}.end={end}: {type_name(scheduler)} begins at {begin}: its end must lie behind its begin'
        late = [m for m in scheduler.get('milestones') or () if is_number(m) and is_number(end) and m >= end]
        if late:
            return f'{path}.milestones={shown(scheduler["milestones"])}: {late[0]} is not before its end={end}'
        if scheduler.get('convert_to_iter_based') and scheduler.get('by_epoch') is False:
            return (
                f'{path}.convert_to_iter_based=True: by_epoch=False says that it counts iterations already: leave out '
                'one of them'
            )
    return None


def _counted_by_epoch(cfg: Mapping) -> str | None:
    """A loop without epochs: a scheduler by epoch never steps, a checkpoint by epoch is never written."""
    if not _is_iter_based(cfg.get('train_cfg') or {}):
        return None
    rule = 'training counts iterations (IterBasedTrainLoop), and epochs never come: set by_epoch=False'
    for path, scheduler in schedulers_of(cfg):
        if scheduler.get('by_epoch', True) is True:
            return f'{path}.by_epoch=True: {rule} in {type_name(scheduler)}'
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    written = 'by_epoch' in checkpoint or 'interval' in checkpoint
    if written and checkpoint.get('by_epoch', True) is True and checkpoint.get('interval', -1) != -1:
        return f'default_hooks.checkpoint.by_epoch=True: {rule}, and interval in iterations'
    return None


def _validation(cfg: Mapping) -> str | None:
    loop = cfg.get('train_cfg') or {}
    interval, total = loop.get('val_interval'), loop.get('max_epochs') or loop.get('max_iters')
    if cfg.get('val_dataloader'):
        return None
    if is_number(interval) and is_number(total) and interval <= total:
        return (
            f'train_cfg.val_interval={interval}: there is no val_dataloader, so nothing would be validated: '
            'leave it out, or add val_dataloader, val_cfg and val_evaluator'
        )
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if checkpoint.get('save_best'):
        return (
            f'default_hooks.checkpoint.save_best={shown(checkpoint["save_best"])}: there is no val_dataloader to '
            'find a best by: leave it out'
        )
    return None


def _steps_of_rate(cfg: Mapping) -> str | None:
    """A floor of the rate above the rate itself."""
    lr = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    for path, scheduler in schedulers_of(cfg):
        floor = scheduler.get('eta_min')
        if not type_name(scheduler).endswith('LR'):  # of weight decay or momentum, which may rise
            continue
        if is_number(lr) and is_number(floor) and floor > lr:
            return (
                f'{path}.eta_min={floor}: the rate would rise, optim_wrapper.optimizer.lr={lr} is below: lower eta_min'
            )
    return None


def check_together(cfg: Config) -> None:
    """Refuse a loop of which a part is missing: mmengine takes all three or none.

    Raises:
        ConfigError: with the missing key.
    """
    for what, keys in dict(
        train=('train_dataloader', 'train_cfg', 'optim_wrapper'),
        val=('val_dataloader', 'val_cfg', 'val_evaluator'),
        test=('test_dataloader', 'test_cfg', 'test_evaluator'),
    ).items():
        there = [key for key in keys if cfg.get(key) is not None]
        lost = [key for key in keys if cfg.get(key) is None]
        if there and lost:
            raise ConfigError(f'{", ".join(there)} without {", ".join(lost)}: to {what} takes all of {", ".join(keys)}')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader: Any = cfg.get(name)
        for key in ('dataset', 'sampler') if isinstance(loader, Mapping) else ():
            if loader.get(key) is None:
                raise ConfigError(f'{name}.{key} is missing: mmengine asks for one' + (
                    ", sampler=dict(type='DefaultSampler', shuffle=True)" if key == 'sampler' else ''
                ))  # fmt: skip
