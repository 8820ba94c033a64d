"""mim_mm: masked-image-modelling pretraining and transfer evaluation on OpenMMLab.

Importing the package costs milliseconds: it imports neither torch nor mmpretrain / mmdet. It prepares what must be
there before they are imported, ``mmcv._ext`` above all where mmcv was installed without compiled ops; the list is in
``mim_mm/compat``.
"""

from importlib import import_module as _import_module

from mim_mm.compat import install as _install_compat
from mim_mm.version import __version__

_install_compat()

__all__ = ['__version__']


def __getattr__(name: str):
    """``mim_mm.api`` without importing it by name; its torch and mmpretrain come with the first use."""
    if name == 'api':
        return _import_module('mim_mm.api')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
