"""``init_cfg=dict(type='Pretrained', checkpoint=...)`` of mmengine fills the module, or stops.

mmengine loads what fits by name and shape and warns of the rest, also where that is everything: the module then trains
from random weights. Here the same floor holds as for ``load_from``, ``min_loaded`` of the config.
"""

import functools
from contextvars import ContextVar

from mim_mm.compat.on_import import after_import

FLOOR = 0.95
_INITIALISING = ContextVar('initialising', default=None)
_MINIMUM = ContextVar('min_loaded', default=FLOOR)


def _floor_of_runs(module):
    kind = getattr(module, {'mmengine.runner.runner': 'Runner'}.get(module.__name__, 'FlexibleRunner'))
    for name in ('__init__', 'train'):
        method = getattr(kind, name)
        if not hasattr(method, 'sets_the_floor'):
            setattr(kind, name, _with_floor(method))


def _with_floor(method):
    @functools.wraps(method)
    def within(self, *args, **kwargs):
        cfg = kwargs.get('cfg') or getattr(self, 'cfg', None) or {}
        token = _MINIMUM.set(cfg.get('min_loaded', FLOOR))
        try:
            return method(self, *args, **kwargs)
        finally:
            _MINIMUM.reset(token)

    within.sets_the_floor = True
    return within


def _named(module):
    theirs = module.PretrainedInit.__call__
    if hasattr(theirs, 'has_a_floor'):
        return

    @functools.wraps(theirs)
    def call(self, target):
        token = _INITIALISING.set(str(self.checkpoint))
        try:
            return theirs(self, target)
        finally:
            _INITIALISING.reset(token)

    call.has_a_floor = True
    module.PretrainedInit.__call__ = call


def _counted(module):
    theirs = module.load_state_dict
    if hasattr(theirs, 'has_a_floor'):
        return

    @functools.wraps(theirs)
    def load_state_dict(target, state_dict, *args, **kwargs):
        checkpoint = _INITIALISING.get()
        if checkpoint is not None:
            from mim_mm.checkpoint.whole import check_floor, report_of

            report = report_of(target.state_dict(), state_dict, checkpoint, _MINIMUM.get())
            check_floor(report, f'init_cfg of {type(target).__name__}')
        return theirs(target, state_dict, *args, **kwargs)

    load_state_dict.has_a_floor = True
    module.load_state_dict = load_state_dict


def install():
    """Nothing is imported for it."""
    after_import('mmengine.model.weight_init', _named)
    after_import('mmengine.runner.checkpoint', _counted)
    for name in ('mmengine.runner.runner', 'mmengine.runner._flexible_runner'):
        after_import(name, _floor_of_runs)
