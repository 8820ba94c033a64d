"""Says when features lose their variety, long before an evaluation would."""

from __future__ import annotations

import math

import torch
from mmengine.hooks import Hook

from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.hooks.clock_hook import epoch_length
from mim_mm.engine.hooks.harmless import harmless
from mim_mm.evaluation.quality.variety import collapse_signs, variety_numbers
from mim_mm.registry import HOOKS

OF_THE_TEACHER = ('teacher_entropy', 'teacher_spread')


@HOOKS.register_module()
class CollapseHook(Hook):
    """Log the variety of features and warn where training leaves what methods that work show.

    Looks at ``model.seen_features``, those of the last step (:class:`mim_mm.algorithms.base.Pretraining`), and at the
    metrics ``teacher_entropy`` and ``teacher_spread`` of methods that have ``num_prototypes``. Adds
    ``feature_std`` and ``feature_rank`` (:mod:`mim_mm.evaluation.quality.variety`) to the log, until the next look.
    A model without either is left alone. The first process alone looks, at its own share of the batch.

    Args:
        interval: iterations between looks; one costs a singular value decomposition of (B, D), which is waited for.
        patience: looks in a row with the same sign before the warning, which is given once for each sign.
        warm_up: epochs without warnings; random encoders show little variety.
    """

    # Before LoggerHook (BELOW_NORMAL), so that the line of the same iteration has the new values.
    priority = 'NORMAL'
    changes_learning = False

    def __init__(self, interval: int = 100, patience: int = 5, warm_up: float = 1.0) -> None:
        if interval < 1 or patience < 1:
            raise ValueError(f'interval={interval}, patience={patience}: both are at least 1')
        self.interval, self.patience, self.warm_up = interval, patience, warm_up
        self.looks: dict[str, int] = {}

    @harmless
    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        features = getattr(bare_model(runner), 'seen_features', None)
        if features is None or not self.every_n_train_iters(runner, self.interval):
            return
        prototypes = getattr(bare_model(runner), 'num_prototypes', None)
        watched = [name for name in OF_THE_TEACHER if prototypes and name in (outputs or {})]
        parts = [outputs[name].to(features.device).float().reshape(1) / math.log(prototypes) for name in watched]
        numbers = torch.cat([variety_numbers(features), *parts]).tolist()
        found = dict(zip(('feature_std', 'feature_rank', *watched), numbers))
        for name in ('feature_std', 'feature_rank'):
            runner.message_hub.update_scalar(f'train/{name}', found[name])
        signs = collapse_signs(found, len(features))
        self.looks = {sign: self.looks.get(sign, 0) + 1 for sign in signs}
        if runner.iter + 1 <= self.warm_up * (epoch_length(runner) or 0):
            self.looks = {}
        for sign, count in self.looks.items():
            if count == self.patience:
                runner.logger.warning(f'iteration {runner.iter + 1}: {signs[sign]}, {count} looks in a row')
