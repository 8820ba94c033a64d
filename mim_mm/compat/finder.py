"""Makes ``mmcv._ext`` importable without compiling anything, and steps aside for a compiled one.

``mmcv.ops`` asks for all its compiled functions at import, so a plain ``pip install`` of mmcv (a pure Python wheel)
cannot even ``import mmdet.models``. The finder below is *appended* to ``sys.meta_path``: Python's own finders are asked
first, hence a compiled ``mmcv._ext`` wins wherever it exists, and ours answers only when theirs found nothing.
"""

import importlib
import importlib.abc
import importlib.util
import sys
import warnings

NAME = 'mmcv._ext'
ORIGIN = 'mim_mm.compat'


class MissingOpError(NotImplementedError):
    """An mmcv op was called that exists neither compiled nor as a stand-in."""

    def __init__(self, op, reason=''):
        super().__init__(
            f'mmcv op {op!r} is not available: mmcv is installed without compiled ops and mim_mm has no stand-in for it'
            f'{" (" + reason + ")" if reason else ""}. Fix: install an mmcv with compiled ops, e.g. `pip install -U '
            f'openmim && mim install "mmcv>=2.1,<2.3"` where a wheel exists for your torch and CUDA, or build it: '
            f'`MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary onedl-mmcv --force-reinstall --no-deps '
            f'onedl-mmcv` (needs a C++ compiler, and nvcc for GPU ops). See docs/install.md, "Compiled ops".'
        )


class _Missing:
    """Stands for one absent op: importing it is free, calling it says what to do."""

    def __init__(self, op, reason=''):
        self.op, self.reason = op, reason

    def __call__(self, *args, **kwargs):
        raise MissingOpError(self.op, self.reason)

    def __repr__(self):
        return f'<missing mmcv op {self.op}>'


class _Loader(importlib.abc.Loader):
    def create_module(self, spec):
        return None

    def exec_module(self, module):
        ops = importlib.import_module('mim_mm.compat.ops')  # imports torch and torchvision: not before it is needed
        module.__doc__ = 'Stand-in of mim_mm for the compiled ops of mmcv; see mim_mm/compat/ops.'
        module.is_stand_in = True
        module.sources = dict(ops.SOURCES)
        for name, function in ops.FUNCTIONS.items():
            setattr(module, name, function)

        def missing(name):
            # Every name that a version of mmcv asks for must exist; the list is thus the caller's, not ours.
            if name.startswith('_'):
                raise AttributeError(name)
            op = _Missing(name, ops.REASONS.get(name, ''))
            setattr(module, name, op)
            module.sources[name] = 'missing'
            return op

        module.__getattr__ = missing


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != NAME:
            return None
        return importlib.util.spec_from_loader(NAME, _Loader(), origin=ORIGIN)


def install():
    """Appends the finder to ``sys.meta_path`` (once).

    Warns when mmdet was imported before: its modules have by then replaced the ops they did not find by functions that
    raise, and nothing can repair that afterwards.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.append(_Finder())
    if any(name in sys.modules for name in ('mmdet.utils', 'mmdet.models')) and not _compiled_exists():
        warnings.warn(
            'mmdet was imported before mim_mm, when mmcv._ext did not exist; some of its ops stay unusable. '
            'Fix: `import mim_mm` first.',
            RuntimeWarning,
            stacklevel=4,
        )


def _compiled_exists():
    spec = importlib.util.find_spec(NAME)
    return spec is not None and spec.origin != ORIGIN


def ops_source():
    """Where each op of ``mmcv._ext`` comes from.

    Returns:
        op name -> ``'compiled'``, ``'torchvision'`` (its compiled kernels), ``'torch'`` (composed of torch
        operations) or ``'missing'``, for every name that the installed mmcv asks for.

    Raises:
        ImportError: a compiled ``mmcv._ext`` is there but does not load, usually because it was built for another
            torch; the message is the loader's.
    """
    ext = importlib.import_module(NAME)
    importlib.import_module('mmcv.ops')
    if getattr(ext, 'is_stand_in', False):
        return dict(sorted(ext.sources.items()))
    return {name: 'compiled' for name in sorted(dir(ext)) if not name.startswith('_')}
