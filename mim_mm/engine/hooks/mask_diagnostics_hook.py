"""Look at the masks that training really uses, every so often, without touching what is trained."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mim_mm import files
from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.hooks.harmless import harmless
from mim_mm.registry import HOOKS, METRICS

FILE_NAME = 'mask_diagnostics.jsonl'


class Recorder:
    """A masker that remembers what it was asked and what it answered; everything else is the masker's own."""

    def __init__(self, masker) -> None:
        self.masker = masker
        self.tokens, self.plan = None, None

    def __call__(self, tokens, *args, **kwargs):
        plan = self.masker(tokens, *args, **kwargs)
        self.tokens, self.plan = tokens.detach(), plan
        return plan

    def __getattr__(self, name: str):
        return getattr(self.__dict__['masker'], name)


@HOOKS.register_module()
class MaskDiagnosticsHook(Hook):
    """Log what the masks of a step look like; nothing is drawn or computed a second time, so no random state moves.

    In a step that is due the model's masker is replaced by one that calls it and remembers tokens and plan. Scalars
    (``mask_ratio``, ``mask_coverage_min``, ``salience_above``, ...: see
    :class:`~mim_mm.evaluation.pictures.mask_diagnostics.MaskDiagnostics`) go to the log and stand until the next look;
    the arrays behind them to ``<work_dir>/mask_diagnostics.jsonl``, one JSON object a look, with ``iter`` (finished
    iterations) and ``epoch``. A resumed run drops the lines after its checkpoint and goes on; a fresh run starts the
    file anew. Only the first process of several looks, at its own share of the batch. With torch.compile the
    replaced masker is compiled once more.

    Args:
        interval: iterations between looks; the first iteration is looked at too.
        measure: config of what is measured.

    Raises:
        ValueError: the model has no ``masker``, or did not call it in a step.
    """

    # Before LoggerHook (BELOW_NORMAL), so that the line of the same iteration has the new values.
    priority = 'NORMAL'
    changes_learning = False

    def __init__(self, interval: int = 100, measure: dict | None = None) -> None:
        if interval < 1:
            raise ValueError(f'interval is {interval}: at least 1 iteration, e.g. 100')
        self.interval = interval
        self.measure = METRICS.build(dict(dict(type='mim_mm.MaskDiagnostics'), **(measure or {})))
        self.recorder: Recorder | None = None

    def before_train(self, runner) -> None:
        model = bare_model(runner)
        if not callable(getattr(model, 'masker', None)):
            raise ValueError(
                f'MaskDiagnosticsHook: {type(model).__name__} has no masker; the hook is for pretraining, '
                'remove it from custom_hooks'
            )
        if is_main_process():
            files.drop_after(Path(runner.work_dir) / FILE_NAME, runner.iter)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if is_main_process() and (runner.iter == 0 or (runner.iter + 1) % self.interval == 0):
            model = bare_model(runner)
            self.recorder = Recorder(model.masker)
            model.masker = self.recorder

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self.recorder is None:
            return
        seen, self.recorder = self.recorder, None
        bare_model(runner).masker = seen.masker
        if seen.plan is None:
            raise ValueError(
                f'MaskDiagnosticsHook: {type(bare_model(runner)).__name__} did not call its masker in iteration '
                f'{runner.iter + 1}, so there is nothing to measure; remove the hook'
            )
        self._record(runner, seen)

    @harmless
    def _record(self, runner, seen: Recorder) -> None:
        with torch.autocast(seen.tokens.device.type, enabled=False):
            scalars, arrays = self.measure(seen.tokens, seen.plan, seen.masker)
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        line = dict(iter=runner.iter + 1, epoch=runner.epoch, **scalars, **arrays)
        files.append_row(Path(runner.work_dir) / FILE_NAME, line)

    def after_train(self, runner) -> None:
        """A loop that ended between the two moments of a step must not leave its masker wrapped."""
        if self.recorder is not None:
            bare_model(runner).masker, self.recorder = self.recorder.masker, None
