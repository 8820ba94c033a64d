"""mim_mm: masked-image-modelling pretraining and transfer evaluation on OpenMMLab.

Importing the package costs milliseconds: it imports neither torch nor mmpretrain / mmdet. It does two things, which
must happen before anything imports ``mmcv.ops`` or ``mmpretrain.models``: it makes ``mmcv._ext`` importable where mmcv
was installed without compiled ops, and keeps mmpretrain importable beside transformers 5 (see ``mim_mm/compat``).
"""

from .compat import install as _install_compat
from .compat import install_multimodal as _install_multimodal
from .version import __version__

_install_compat()
_install_multimodal()

__all__ = ['__version__']
