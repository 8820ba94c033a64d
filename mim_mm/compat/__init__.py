"""Everything that touches upstream internals; nowhere else in the package does.

* ``finder``  makes ``mmcv._ext`` importable where mmcv has no compiled ops (installed by ``import mim_mm``)
* ``ops/``    the ops themselves, on torchvision and torch, with mmcv's calling conventions
* ``multimodal``  keeps ``mmpretrain.models`` importable beside transformers 5 (installed by ``import mim_mm``)
* ``paths``   the checkout or the installed ``.mim`` folder: where ``configs/`` and ``tools/`` are
* ``doctor``  what ``tools/doctor.py`` prints

Only the two that are installed are imported here, so that ``import mim_mm`` stays cheap.
"""

from .finder import MissingOpError, install, ops_source
from .multimodal import install as install_multimodal

__all__ = ['MissingOpError', 'install', 'install_multimodal', 'ops_source']
