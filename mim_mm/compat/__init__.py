"""Everything that touches upstream internals; nowhere else in the package does.

* ``finder``  makes ``mmcv._ext`` importable where mmcv has no compiled ops (installed by ``import mim_mm``)
* ``ops/``    the ops themselves, on torchvision and torch, with mmcv's calling conventions
* ``paths``   the checkout or the installed ``.mim`` folder: where ``configs/`` and ``tools/`` are
* ``initializers``  mmengine's truncated normal without its weights of exactly -2 (installed by ``import mim_mm``)
* ``doctor``  what ``tools/doctor.py`` prints

Only the finder and the initializers are imported here, so that ``import mim_mm`` stays cheap.
"""

from .finder import MissingOpError, install, ops_source
from .initializers import install_trunc_normal

__all__ = ['MissingOpError', 'install', 'install_trunc_normal', 'ops_source']
