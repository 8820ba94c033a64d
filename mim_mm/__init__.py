"""mim_mm: masked-image-modelling pretraining and transfer evaluation on OpenMMLab.

Importing the package costs milliseconds: it imports neither torch nor mmpretrain / mmdet. It does one thing, which must
happen before anything imports ``mmcv.ops``: it makes ``mmcv._ext`` importable where mmcv was installed without
compiled ops (see ``mim_mm/compat``).
"""

from .compat import install as _install_compat
from .version import __version__

_install_compat()

__all__ = ['__version__']
