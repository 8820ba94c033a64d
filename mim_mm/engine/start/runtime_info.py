"""Metrics that stay on the device until somebody reads them, and that are forgotten when nobody will any more."""

from __future__ import annotations

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook

from mim_mm.engine.hooks.histories import forget, longest_average
from mim_mm.engine.hooks.host_memory import HostMemory
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook`` without a device synchronisation every iteration.

    The parent calls ``.item()`` on every logged value of every step, whatever the logging interval, which stops the GPU
    each time. Here the tensors wait in a list and are handed to the message hub in one go when a log line is due, so
    the history (and every average made of it) is the same. Of a history the newest values are kept.

    Each log line also has ``host_memory``: GiB that the first process and its loader workers hold, at most a minute old
    (:class:`mim_mm.engine.hooks.host_memory.HostMemory`). A figure that rises epoch after epoch is a leak.
    """

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.waiting: list[dict] = []
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.log_interval = min(intervals, default=1)
        self.kept = longest_average(runner)
        self.memory = HostMemory()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if outputs is not None:
            # Detached: a value with its graph would keep alive what the step computed.
            self.waiting.append({k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in outputs.items()})
        due = (
            self.every_n_inner_iters(batch_idx, self.log_interval)
            or self.every_n_train_iters(runner, self.log_interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or self.is_last_train_iter(runner)
        )
        if due:
            self.flush(runner)

    def flush(self, runner) -> None:
        """Hand everything that waits to the message hub, oldest first."""
        waiting, self.waiting = self.waiting, []
        for outputs in waiting:
            super().after_train_iter(runner, 0, outputs=outputs)
        gib = self.memory.gib()
        if gib is not None:
            runner.message_hub.update_scalar('train/host_memory', round(gib, 3))
        for buffer in runner.message_hub.log_scalars.values():
            forget(buffer, self.kept)
