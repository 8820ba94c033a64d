"""mim_mm: masked-image-modelling pretraining and transfer evaluation on OpenMMLab.

Importing the package costs milliseconds: it imports neither torch nor mmpretrain / mmdet. It prepares what must be
there before they are imported, ``mmcv._ext`` above all where mmcv was installed without compiled ops; the list is in
``mim_mm/compat``.
"""

from mim_mm.compat import install as _install_compat
from mim_mm.version import __version__

_install_compat()

__all__ = ['__version__']
