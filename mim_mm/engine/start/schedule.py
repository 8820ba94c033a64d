"""One statement of a duration: what follows from it when the command line changes it."""

from __future__ import annotations

from mmengine.config import Config

from mim_mm.compat.schedulers import fit_in_runner


def total_duration(cfg: Config) -> tuple[int, bool] | None:
    """``(duration, by_epoch)`` of training, or None without a train loop."""
    train_cfg = cfg.get('train_cfg') or {}
    if train_cfg.get('max_epochs'):
        return int(train_cfg['max_epochs']), True
    if train_cfg.get('max_iters'):
        return int(train_cfg['max_iters']), False
    return None


def fit_schedule(cfg: Config) -> list[str]:
    """Make the learning-rate schedule end with training, in place.

    A scheduler without ``end`` ends with training anyway (mmengine), which is how our recipes state a duration once.
    What is left: configs that do state ``end`` and ``T_max``, which a run shortened by ``--cfg-options
    train_cfg.max_epochs=...`` would leave in the middle of its cosine, and a warm-up that takes more than half of the
    shortened run, which becomes a twentieth of it (none below 20). Steps (``milestones``) are for whoever changes the
    duration to set; those that would never come are named.

    Returns:
        What was changed, a line each; empty for a schedule that fits.
    """
    duration = total_duration(cfg)
    schedulers = cfg.get('param_scheduler')
    if duration is None or not schedulers:
        return []
    total, by_epoch = duration
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    schedulers = [s for s in schedulers if s.get('by_epoch', True) == by_epoch]
    unit = 'epochs' if by_epoch else 'iterations'
    changes = []
    for before, after in zip(schedulers, schedulers[1:], strict=False):
        if before.get('end') == after.get('begin') and before.get('end', 0) > total / 2:
            short = total // 20
            changes.append(f'warm-up {before["end"]} -> {short} {unit}')
            before['end'] = after['begin'] = short
    if any(s.get('end') == 0 for s in schedulers):  # mmengine refuses an empty stretch
        cfg['param_scheduler'] = [s for s in cfg['param_scheduler'] if s.get('end') != 0]
    last = schedulers[-1] if schedulers else {}
    if last.get('end') not in (None, total):
        changes.append(f'{last["type"]} ends at {last["end"]} -> {total} {unit}')
        last['end'] = total
    if changes and last.get('T_max'):
        last['T_max'] = total - last.get('begin', 0)
    for scheduler in schedulers:
        late = [step for step in scheduler.get('milestones') or () if step >= total]
        if late:
            changes.append(
                f'WARNING: {scheduler["type"]} has steps at {late}, but training ends at {total} {unit}: they never '
                'come; set the milestones in param_scheduler'
            )
    return changes


def effective_batch(cfg: Config, world_size: int) -> int | None:
    """Images an optimizer step: a GPU's batch x GPUs x accumulation."""
    batch = (cfg.get('train_dataloader') or {}).get('batch_size')
    if batch is None:
        return None
    return batch * world_size * (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def scale_lr(cfg: Config, world_size: int) -> str:
    """Scale the learning rate linearly from ``auto_scale_lr.base_batch_size`` to the effective batch, in place.

    mmengine's own scaling forgets gradient accumulation, so it is switched off.

    Returns:
        A line that says what was done.

    Raises:
        ValueError: if the config does not state its base batch size.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not base:
        raise ValueError(
            '--auto-scale-lr: the config states no auto_scale_lr.base_batch_size; add '
            'auto_scale_lr = dict(base_batch_size=<images an optimizer step that lr is meant for>)'
        )
    cfg['auto_scale_lr']['enable'] = False
    batch = effective_batch(cfg, world_size)
    optimizer = cfg['optim_wrapper']['optimizer']
    old = optimizer['lr']
    optimizer['lr'] = old * batch / base
    return f'lr {old:.4g} for batch {base} -> {optimizer["lr"]:.4g} for batch {batch}'


fit_in_runner(fit_schedule)  # for a Runner that is made without tools/train.py
