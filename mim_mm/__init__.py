"""mim_mm: masked-image-modelling pretraining and transfer evaluation on OpenMMLab.

Importing the package costs milliseconds: it imports neither torch nor mmpretrain / mmdet. It prepares two things (see
``mim_mm/compat``): ``mmcv._ext`` is importable where mmcv was installed without compiled ops, which must happen before
anything imports ``mmcv.ops``; and mmengine's truncated normal draws no outliers.
"""

from .compat import install as _install_compat
from .compat import install_trunc_normal as _install_trunc_normal
from .version import __version__

_install_compat()
_install_trunc_normal()

__all__ = ['__version__']
