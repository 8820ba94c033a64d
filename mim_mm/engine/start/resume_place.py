"""Where a checkpoint stands, counted as the run that resumes from it counts: in its own batches, on its own devices.

The place is counted in images. From the end of an epoch the run goes on at that epoch. In the middle of one, and in a
loop that counts iterations, it goes on where the order of the images is known and the new batch divides what was seen
(:mod:`.data_order`): no image is seen twice or left out. Else it is refused, with what to resume with.
"""

from __future__ import annotations

from typing import Any

from mmengine.runner import EpochBasedTrainLoop

from mim_mm.checkpoint.atomic import epoch_advice
from mim_mm.engine.start import data_order
from mim_mm.engine.stop.exact_resume import ResumeError


def convert(runner, meta: dict, schedule: dict[str, Any], order: str | None, counted: list[int]) -> bool:
    """Put this run's count of iterations and epochs into the ``meta`` of a checkpoint, before anybody reads it.

    Args:
        runner: that resumes.
        meta: of the checkpoint; changed in place.
        schedule: what the run that wrote it noted of its batches, images and schedule.
        order: of this run's images, see :func:`mim_mm.engine.start.data_order.describe`.
        counted: what this run's schedule counts in iterations, see :func:`counted_in_iterations`.

    Returns:
        Whether an iteration of this run is another one.

    Raises:
        ResumeError: there is no such place in this run.
    """
    images, mine = schedule.get('images'), data_order.images_an_iteration(runner.train_dataloader)
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return _in_epochs(runner, meta, schedule, order, images, mine)
    if not (images and mine and images != mine):
        return False
    iteration = _in_iterations(runner.train_loop, meta['iter'], schedule, order, counted, mine)
    runner.logger.info(
        f'an iteration has {mine} images now, {images} in the run that wrote the checkpoint: after its {meta["iter"]} '
        f'iterations this run goes on at iteration {iteration} of {runner.train_loop.max_iters}'
    )
    meta['iter'] = iteration
    return True


def _in_epochs(runner, meta: dict, schedule: dict, order: str | None, images: int | None, mine: int | None) -> bool:
    then, now, epoch = meta.get('epoch_length'), len(runner.train_loop.dataloader), meta['epoch']
    if then is None:
        return False
    seen = meta['iter'] - epoch * then
    other = then != now or bool(images and mine and images != mine)
    if seen >= then and other:  # stopped after the last iteration of an epoch, before its end was noted
        epoch, seen = epoch + 1, 0
    batches = 0
    if seen > 0:
        data = schedule.get('data') or {}
        moved = 'order' in data and data['order'] != order
        batches = _seen_batches(runner, seen, then, epoch, data, order, images, mine) if other or moved else seen
    if then == now and batches == seen:
        return False
    where = f'epoch {epoch} ended at iteration {epoch * now} of this run, which is where it goes on'
    if batches:
        where = (
            f'the first {seen} of epoch {epoch + 1} are {batches} of this run, with the same {seen * images} images; '
            f'it goes on at iteration {epoch * now + batches}'
        )
    runner.logger.info(f'an epoch has {now} iterations now, {then} in the run that wrote the checkpoint: {where}')
    meta.update(iter=epoch * now + batches, epoch=epoch, epoch_length=now)
    return True


def _seen_batches(runner, seen, then, epoch, data, order, images, mine) -> int:
    """Batches of this run that hold the images of the first ``seen`` of an epoch; ResumeError: there are none."""
    now = len(runner.train_loop.dataloader)
    where = f'the checkpoint is from the middle of epoch {epoch + 1}, after {seen} of {then} batches'
    fix = f'Resume with the settings it was stopped with, or {epoch_advice(runner.work_dir, epoch)}'
    # Batches of the same size in an epoch of another length: other images.
    if not (data.get('order') and data['order'] == order and images and mine) or (images == mine and then != now):
        raise ResumeError(
            f'{where}; an epoch has {now} batches now (other batch size, number of devices, seed or data), so nobody '
            f'can tell which images were seen. {fix}'
        )
    if seen * images % mine:
        raise ResumeError(
            f'{where}, which are {seen * images} images; an epoch has {now} batches now, of {mine} over all devices, '
            f'which do not divide them: some would be seen twice or left out. Take a batch that does, or: {fix}'
        )
    return seen * images // mine


def _in_iterations(loop, iteration: int, schedule: dict, order: str | None, counted: list[int], mine: int) -> int:
    """The iteration of this run after as many images; ResumeError where it means something else there."""
    images, total = schedule['images'], schedule.get('max_iters')
    begin = f'the checkpoint is from iteration {iteration} of {images} images each, an iteration has {mine} now'
    same = f'resume with batch size x devices = {images} (gradient accumulation may change), or start a new run'
    stored = (schedule.get('data') or {}).get('order')
    if not stored or stored != order or not total:
        raise ResumeError(f'{begin}, and nobody can tell which images were seen: {same}')
    if iteration * images % mine:
        raise ResumeError(f'{begin}, which does not divide the {iteration * images} images that were seen: {same}')
    theirs, own = [total, *(schedule.get('counted') or [])], [loop.max_iters, *counted]
    if [value * images for value in theirs] != [value * mine for value in own]:
        wanted = [f'{value * images / mine:g}' for value in theirs]
        steps = f', {", ".join(wanted[1:])} for what param_scheduler counts in iterations' if wanted[1:] else ''
        raise ResumeError(
            f'{begin}, so that neither its place in the schedule nor max_iters means the same. For as many images as '
            f'before set train_cfg.max_iters={wanted[0]}{steps}; or {same}'
        )
    return iteration * images // mine


def counted_in_iterations(schedulers: list) -> list[int]:
    """What schedulers count in iterations: begin, end, length and steps of each, in order."""
    found = []
    for one in schedulers:
        if one.by_epoch:
            continue
        for key in ('begin', 'end', 'T_max', 'step_size'):  # total_iters follows from them
            value = vars(one).get(key)
            if isinstance(value, int) and 0 < value < 10**9:  # mmengine's word for no end
                found.append(value)
        found += sorted(int(step) for step in (vars(one).get('milestones') or ()))
    return found
