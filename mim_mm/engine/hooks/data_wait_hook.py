"""How much of the time a run waits for its data, said after every epoch."""

from __future__ import annotations

import time

from mmengine.hooks import Hook

from mim_mm.engine.hooks.harmless import harmless
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class DataWaitHook(Hook):
    """Log ``waited on data x %`` after each training epoch; ``train/data_wait`` holds the last figure, in percent.

    That is the time between asking the loader for a batch and having it (``train/data_time`` of mmengine's
    ``IterTimerHook``, which must run), over the time of the epoch on the host. Nothing is asked of the device. As a
    logged scalar of training it stands in the following log lines, in TensorBoard and in ``progress.json`` as well.

    On a GPU the host runs ahead of the device: as long as it does, batches that come late cost nothing and count
    nevertheless. A share of a few percent is therefore no loss; one that grows is a loader that does not keep up.
    Iteration-based loops have one epoch: the run.

    Args:
        hint_above: percent from which the log says what to do about it.
    """

    # After IterTimerHook (NORMAL) has set data_time, before LoggerHook (BELOW_NORMAL).
    priority = 55

    def __init__(self, hint_above: float = 10.0) -> None:
        if not 0 <= hint_above <= 100:
            raise ValueError(f'hint_above={hint_above} must be a percentage, 0 to 100')
        self.hint_above = hint_above

    def before_train_epoch(self, runner) -> None:
        self.start = time.perf_counter()
        self.waited = 0.0

    @harmless
    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        timer = runner.message_hub.log_scalars.get('train/data_time')
        if timer is not None:  # no IterTimerHook: nothing is known
            self.waited += timer.current()

    @harmless
    def after_train_epoch(self, runner) -> None:
        hub, whole = runner.message_hub, time.perf_counter() - self.start
        if 'train/data_time' not in hub.log_scalars or whole <= 0:
            return
        percent = min(100.0, 100 * self.waited / whole)
        hub.update_scalar('train/data_wait', round(percent, 2))
        text = f'Epoch {runner.epoch + 1}: waited on data {percent:.1f} % ({self.waited:.1f} of {whole:.1f} s)'
        if percent > self.hint_above:
            workers = getattr(runner.train_dataloader, 'num_workers', 0)
            text += f'; num_workers is {workers}: docs/data_loading.md says what makes loading faster'
        runner.logger.info(text)
