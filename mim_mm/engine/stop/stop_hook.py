"""Stopping politely: on SIGTERM, Ctrl-C, SIGUSR1 or SIGUSR2 save after the iteration, and end so that it can go on."""

from __future__ import annotations

import signal
from pathlib import Path

import torch
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop

from mim_mm import files
from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.compat.internals import built_loop
from mim_mm.engine.hooks.finite_hook import may_be_saved
from mim_mm.engine.hooks.progress import read_progress, write_progress
from mim_mm.engine.stop.exact_hook import prepare_save
from mim_mm.engine.stop.signals import EARLY, IN_TRAINING, INTERRUPTED, REQUEST, shield_workers
from mim_mm.registry import HOOKS

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, call again


class Stopped(SystemExit):
    """Training was asked to stop and has saved its checkpoint; the process ends with :data:`EXIT_CODE`, after Ctrl-C
    with 130."""

    def __init__(self, message: str, number: int = 0):
        super().__init__(INTERRUPTED if number == signal.SIGINT else EXIT_CODE)
        self.message = message


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Save ``stopped_iter_<n>.pth`` and end with exit code 75 (after Ctrl-C 130) when a signal asks for it.

    A single process looks at every iteration. Several agree by one all-reduce of a number every ``interval``
    iterations, the only ones at which the host waits for the device. Where gradients are accumulated the stop waits for
    the next optimizer step, and in an iteration-based loop for a validation that is due. Resuming from the file goes on
    with the next batch, also in the middle of an epoch, see :class:`mim_mm.engine.stop.exact_hook.ExactResumeHook`. The
    file is removed once a later checkpoint is there.

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
        self._leftover: Path | None = None

    def before_run(self, runner) -> None:
        REQUEST.listen(*EARLY)
        shield_workers(getattr(built_loop(runner, 'train'), 'dataloader', None))
        shield_workers(getattr(built_loop(runner, 'val'), 'dataloader', None))

    def before_train(self, runner) -> None:
        REQUEST.listen(*IN_TRAINING)
        loop = runner.train_loop
        if loop.iter == 0:  # weights may have been loaded, but nothing is resumed
            return
        newest = latest_checkpoint(runner.work_dir)
        if newest is not None and newest.name.startswith('stopped_iter_'):
            self._leftover = newest
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        over = loop.epoch >= loop.max_epochs if by_epoch else loop.iter >= loop.max_iters
        if over and runner.val_loop is not None:
            # Cut off between the last iteration and the end of its validation: the loop would not measure again.
            runner.val_loop.run()

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
            raise Stopped(
                f'{name}: stopped after iteration {done}; --resume goes on from the last checkpoint', self.agreed
            )
        out_dir = next((h.out_dir for h in runner.hooks if isinstance(h, CheckpointHook) and h.out_dir), None)
        out_dir = Path(out_dir or runner.work_dir)
        path = out_dir / f'stopped_iter_{done}.pth'
        prepare_save(runner)
        runner.save_checkpoint(
            str(out_dir),
            path.name,
            by_epoch=False,
            backend_args=dict(backend='atomic_local'),
            meta=dict(stopped=dict(signal=name)),
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
        runner.visualizer.close()
        # The handlers stay: torchrun may pass the same signal on once more before this process has ended.
        REQUEST.number = 0
        raise Stopped(message, self.agreed)

    # ---- tidying up

    def after_train_epoch(self, runner) -> None:
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
