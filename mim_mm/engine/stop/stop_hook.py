"""Stopping politely: on SIGTERM, SIGUSR1 or SIGUSR2 save after the current iteration, and end so that it can go on."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop

from mim_mm import files
from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.compat.internals import built_loop
from mim_mm.engine.hooks.finite_hook import may_be_saved
from mim_mm.engine.hooks.progress import read_progress, write_progress
from mim_mm.engine.stop import exact_resume
from mim_mm.engine.stop.signals import EARLY, REQUEST, shield_workers
from mim_mm.registry import HOOKS

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, call again


class Stopped(SystemExit):
    """Training was asked to stop and has saved its checkpoint; the process ends with :data:`EXIT_CODE`."""

    def __init__(self, message: str):
        super().__init__(EXIT_CODE)
        self.message = message


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Save ``stopped_iter_<n>.pth`` and end with exit code 75 when a signal asks for it.

    A single process looks at every iteration. Several agree by one all-reduce of a number every ``interval``
    iterations, the only ones at which the host waits for the device. Where gradients are accumulated the stop waits for
    the next optimizer step, and in an iteration-based loop for a validation that is due. Resuming from the file goes on
    with the next batch, also in the middle of an epoch: see :mod:`mim_mm.engine.stop.exact_resume`. The file is removed
    once a later checkpoint is there.

    Args:
        interval: iterations between two agreements of several processes.
    """

    priority = 'LOWEST'  # after the scheduler's step and every other hook of the iteration
    changes_learning = False

    def __init__(self, interval: int = 10):
        if interval < 1:
            raise ValueError(f'StopOnSignalHook: interval={interval} must be at least 1 iteration')
        self.interval = interval
        self.agreed = 0
        self._meta: dict[str, Any] = {}
        self._leftover: Path | None = None

    # ---- going on from a checkpoint

    def before_run(self, runner) -> None:
        REQUEST.listen(*EARLY)
        shield_workers(getattr(built_loop(runner, 'train'), 'dataloader', None))
        shield_workers(getattr(built_loop(runner, 'val'), 'dataloader', None))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            checkpoint['meta']['epoch_length'] = len(runner.train_dataloader)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._meta = dict(checkpoint.get('meta') or {})

    def before_train(self, runner) -> None:
        REQUEST.listen(signal.SIGTERM)
        loop, meta, self._meta = runner.train_loop, self._meta, {}
        if loop.iter == 0:  # weights may have been loaded, but nothing is resumed
            return
        stopped = meta.get('stopped')
        state = self._own_state(runner, stopped) if stopped else None
        if stopped:
            self._leftover = latest_checkpoint(runner.work_dir)
        if isinstance(loop, EpochBasedTrainLoop):
            # As the checkpoint counts: ResumeScheduleHook may have placed the loop in epochs of another length.
            iteration, epoch = meta.get('iter', loop.iter), meta.get('epoch', loop.epoch)
            seen = exact_resume.unseen(loop, iteration, epoch, meta.get('epoch_length'))
            if seen:
                runner.logger.info(f'epoch {loop.epoch + 1} goes on after {seen} of {len(loop.dataloader)} batches')
                exact_resume.go_on_inside_epoch(loop, seen, state)
        elif state is not None and not getattr(loop, 'fast_forward_on_resume', False):
            exact_resume.go_on_iterations(loop, state)
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        over = loop.epoch >= loop.max_epochs if by_epoch else loop.iter >= loop.max_iters
        if over and runner.val_loop is not None:
            # Cut off between the last iteration and the end of its validation: the loop would not measure again.
            runner.val_loop.run()

    def _own_state(self, runner, stopped: dict) -> dict | None:
        states = stopped.get('random') or []
        if len(states) == get_world_size():
            return states[get_rank()]
        runner.logger.warning(
            f'stopped on {len(states)} processes, going on on {get_world_size()}: random states start anew'
        )
        return None

    # ---- stopping

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not self.agreed:
            self.agreed = self._agree(runner)
        if self.agreed and self._may_stop(runner):
            self._stop(runner)

    def _agree(self, runner) -> int:
        """The signal that any process got, 0 for none; the same on all of them."""
        if get_world_size() == 1:
            return REQUEST.number
        if (runner.iter + 1) % self.interval:
            return 0
        number = torch.tensor(float(REQUEST.number), device=next(runner.model.parameters()).device)
        all_reduce(number, op='max')
        return int(number)

    @staticmethod
    def _may_stop(runner) -> bool:
        accumulated = getattr(runner.optim_wrapper, 'should_update', lambda: True)()
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            return accumulated
        done, loop = runner.iter + 1, runner.train_loop
        last = done >= loop.max_iters
        due = runner.val_loop is not None and done >= loop.val_begin and done % loop.val_interval == 0
        return accumulated and not last and not due

    def _stop(self, runner) -> None:
        done, name = runner.iter + 1, signal.Signals(self.agreed).name
        if not may_be_saved(runner):
            REQUEST.forget()
            raise Stopped(f'{name}: stopped after iteration {done}; --resume goes on from the last checkpoint')
        states = all_gather_object(exact_resume.random_state())
        out_dir = next((h.out_dir for h in runner.hooks if isinstance(h, CheckpointHook) and h.out_dir), None)
        out_dir = Path(out_dir or runner.work_dir)
        path = out_dir / f'stopped_iter_{done}.pth'
        runner.save_checkpoint(
            str(out_dir),
            path.name,
            by_epoch=False,
            backend_args=dict(backend='atomic_local'),
            meta=dict(stopped=dict(signal=name, random=states)),
        )
        message = f'{name}: stopped after iteration {done} of {runner.max_iters}; {path} is saved, --resume goes on'
        if is_main_process():
            files.write_text(Path(runner.work_dir) / 'last_checkpoint', str(path))
            self._drop_leftover(runner)
            progress = dict(read_progress(runner.work_dir), iter=done, stopped=name, checkpoint=path.name)
            try:
                write_progress(runner.work_dir, progress)
            except OSError:  # a signal to others, as ProgressHook says
                pass
        barrier()  # nobody ends, and has the launcher end the others, before the file is there
        runner.logger.warning(message)
        REQUEST.forget()
        raise Stopped(message)

    # ---- tidying up

    def after_train_epoch(self, runner) -> None:
        vars(runner.train_loop).pop('run_iter', None)
        self._drop_leftover(runner)

    def after_train(self, runner) -> None:
        self._drop_leftover(runner)
        REQUEST.forget()

    def _drop_leftover(self, runner) -> None:
        """Remove the file of an earlier stop once the newest checkpoint is another one."""
        old = self._leftover
        if old is None or not is_main_process() or not old.name.startswith('stopped_iter_'):
            return
        newest = latest_checkpoint(runner.work_dir)
        if newest is not None and newest.name != old.name:
            old.unlink(missing_ok=True)
            self._leftover = None
