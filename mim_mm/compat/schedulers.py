"""Lets plain mmengine train a shortened recipe of ours: the schedule is fitted where the Runner builds it.

A recipe states its duration once, ``train_cfg``; its warm-up may then be longer than a shortened run, which mmengine
refuses ('end should be larger than begin'). ``tools/train.py`` fits the schedule before it makes a Runner.
"""

import copy
import functools
from collections.abc import Callable

from mim_mm.compat.on_import import after_import


def _is_ours(cfg):
    return 'mim_mm' in ((cfg.get('custom_imports') or {}).get('imports') or ())


def fit_in_runner(fit: Callable) -> None:
    """Fit the schedulers of every Runner whose config has ``custom_imports`` of ``mim_mm``.

    Args:
        fit: ``fit(cfg) -> notes``, changes ``cfg['param_scheduler']`` to suit ``cfg['train_cfg']``.
    """

    def extend(module):
        build = module.Runner.build_param_scheduler
        if hasattr(build, 'fits'):
            return

        @functools.wraps(build)
        def build_fitted(self, scheduler):
            settings = scheduler if isinstance(scheduler, list) else [scheduler]
            if _is_ours(self.cfg) and all(isinstance(s, dict) for s in settings):
                parts = dict(train_cfg=self.cfg.get('train_cfg'), param_scheduler=copy.deepcopy(scheduler))
                for note in fit(parts):
                    self.logger.info(f'schedule: {note}')
                scheduler = parts['param_scheduler']
            return build(self, scheduler)

        build_fitted.fits = True
        module.Runner.build_param_scheduler = build_fitted

    after_import('mmengine.runner.runner', extend)
