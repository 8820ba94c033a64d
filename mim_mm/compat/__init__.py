"""Everything that touches upstream internals; docs/openmmlab.md lists it, and a test finds what is not listed.

* ``finder``  makes ``mmcv._ext`` importable where mmcv has no compiled ops
* ``ops/``    the ops themselves, on torchvision and torch, with mmcv's calling conventions
* ``paths``   the checkout or the installed ``.mim`` folder: where ``configs/`` and ``tools/`` are
* ``recipes`` ``_base_ = 'mim_mm::...'``
* ``quiet``   upstream's messages that are false or of no use
* ``deit3``  mmpretrain's DeiT III with the second norm of each block
* ``initializers``  mmengine's truncated normal without its weights of exactly -2
* ``checkpoints``  our reader below everything that upstream loads
* ``pretrained_init`` ``init_cfg`` fills its module or stops
* ``multimodal``    keeps ``mmpretrain.models`` importable beside transformers 5
* ``on_import`` how these seven reach a module: right after somebody imports it
* ``schedulers`` a schedule that fits a shortened run, where a Runner is made without our tools
* ``internals``, ``sharding`` private names of mmengine that the package reads
* ``torchrun`` torchrun that passes signals on and ends with its ranks' exit code
* ``leave``   the end of a process of several, without gloo's abort
* ``doctor``  what ``tools/doctor.py`` prints

None of them imports torch or mmengine on its own account, so that ``import mim_mm`` stays cheap.
"""

from mim_mm.compat import checkpoints, deit3, finder, initializers, multimodal, pretrained_init, quiet, recipes
from mim_mm.compat.finder import MissingOpError, ops_source

__all__ = ['MissingOpError', 'install', 'ops_source']


def install():
    """Once, on ``import mim_mm``: mmcv's ops, our recipes' addresses, less noise, faults mended, no code from files."""
    for part in (finder, recipes, quiet, initializers, deit3, multimodal, checkpoints, pretrained_init):
        part.install()
