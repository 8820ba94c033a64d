"""Measure the encoder every so often while it is pretrained, without a trace in what is trained."""

from __future__ import annotations

import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mim_mm.engine.bare_model import bare_model
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.evaluation.quality.measure import QualityData, QualitySettings, measure_quality
from mim_mm.evaluation.quality.quality_log import FILE_NAME, add_quality, drop_after
from mim_mm.evaluation.quality.random_state import preserved_random_state
from mim_mm.evaluation.quality.variety import collapse_signs
from mim_mm.registry import HOOKS

__all__ = ['QualityHook']


@HOOKS.register_module()
class QualityHook(Hook):
    """k-NN and quick-probe accuracy of ``model.backbone`` during a pretraining, in ``<work_dir>/quality.jsonl``.

    The encoder is read in eval mode without gradient, and modes and random states are put back, so weights and losses
    are those of a run without the hook. In distributed runs the images are shared by the processes and the heads are
    trained by the first. Scalars ``quality/knn_top1``,
    ``probe_top1``, ``feature_std`` and ``feature_rank`` (:func:`mim_mm.evaluation.quality.variety.variety`, of the mean
    patch on the test images; a warning where they say that features collapse) go to mmengine's visualizer, at the
    step of the iteration. A resumed run takes out what was measured after its checkpoint (the file as it was stays as
    ``quality.old-N.jsonl``) and measures it again. A measurement that fails is logged as a warning; training goes on.

    Args:
        data: folder with train/<class>/* and val/<class>/*; every other argument of
            :class:`mim_mm.evaluation.quality.measure.QualitySettings` too. By default 50 training and 20 test images a
            class.
        interval: epochs between measurements; iterations with ``by_epoch=False``.
        by_epoch: what ``interval`` counts; loops that count iterations only need False.
        at_start, at_end: measure before the first step (the random encoder, the control), and after the last.

    Raises:
        ValueError: an interval below 1, wrong settings, a model without backbone or one whose parameters are sharded.
        FileNotFoundError: no data. All of these before the first step.
    """

    # Before LoggerHook (BELOW_NORMAL) and CheckpointHook (VERY_LOW).
    priority = 'NORMAL'
    changes_learning = False

    def __init__(
        self,
        data: str,
        interval: int = 10,
        by_epoch: bool = True,
        at_start: bool = True,
        at_end: bool = True,
        **settings,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval}: at least 1 {"epoch" if by_epoch else "iteration"}, e.g. 10')
        self.interval, self.by_epoch = interval, by_epoch
        self.at_start, self.at_end = at_start, at_end
        self.settings = QualitySettings(data, **settings)
        self.data: QualityData | None = None
        self.last: int | None = None

    def before_train(self, runner) -> None:
        if self.by_epoch and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'QualityHook: interval={self.interval} counts epochs, this loop counts iterations: set by_epoch=False '
                'and interval in iterations'
            )
        wrapped = type(runner.model).__name__
        if 'FullySharded' in wrapped or not hasattr(bare_model(runner), 'backbone'):
            raise ValueError(
                f'QualityHook reads model.backbone on one device, which a {wrapped} does not offer: remove the hook '
                'and measure the checkpoints with tools/watch.py'
            )
        with preserved_random_state(bare_model(runner)):
            preprocess = Preprocess.from_config(runner.cfg, self.settings.resize, self.settings.crop)
            self.data = QualityData(self.settings, preprocess)
        if is_main_process():
            backup = drop_after(runner.work_dir, runner.iter)
            if backup:
                runner.logger.info(f'{FILE_NAME} had measurements after iteration {runner.iter}; as it was: {backup}')
        if self.at_start and runner.iter == 0:
            self._measure(runner, 0)

    def after_train_epoch(self, runner) -> None:
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._measure(runner, runner.iter)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._measure(runner, runner.iter + 1)

    def after_train(self, runner) -> None:
        if self.at_end and self.last != runner.iter:
            self._measure(runner, runner.iter)

    def _measure(self, runner, done: int) -> None:
        """Measure after ``done`` iterations; every process comes here together."""
        model = bare_model(runner)
        device = next(model.backbone.parameters()).device
        self.last, started = done, time.time()
        try:
            with preserved_random_state(model):
                found = measure_quality(model.backbone, self.data, device)
        except Exception as error:  # days of training outweigh a look at them, whatever went wrong
            runner.logger.warning(f'quality after iteration {done} could not be measured; training goes on: {error}')
            return
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        epoch = round(done / len(runner.train_dataloader), 4) if by_epoch else None
        if is_main_process():
            row = dict(iter=done, epoch=epoch, protocol=self.data.digest, source='hook', file=None, **found)
            try:
                add_quality(runner.work_dir, dict(row, device=str(device), time=time.time()))
            except OSError as error:
                runner.logger.warning(f'{FILE_NAME} could not be written; training goes on: {error}')
        scalars = {f'quality/{name}': found[name] for name in ('knn_top1', 'probe_top1', 'feature_std', 'feature_rank')}
        runner.visualizer.add_scalars(scalars, step=done)
        runner.logger.info(
            f'Quality after iteration {done}: k-NN {found["knn_top1"]:.2f}, probe {found["probe_top1"]:.2f} '
            f'({found["images"]["test"]} test images, {time.time() - started:.1f} s)'
        )
        if done:  # a random encoder shows little variety
            for sentence in collapse_signs(found, found['images']['test']).values():
                runner.logger.warning(f'Quality after iteration {done}: {sentence}')
