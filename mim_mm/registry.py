"""Registries of scope ``mim_mm``, children of mmengine's root registries.

Any OpenMMLab config reaches our classes as ``type='mim_mm.EMAE'``: mmengine imports ``mim_mm.registry`` when it meets
the scope, and the ``locations`` below import the rooms on the first look-up only, so ``import mim_mm`` stays cheap.
"""

import importlib
import pkgutil

from mmengine import registry as _root

MODELS = _root.Registry(
    'model',
    parent=_root.MODELS,
    scope='mim_mm',
    locations=['mim_mm.masking', 'mim_mm.decoders', 'mim_mm.algorithms', 'mim_mm.detection'],
)
DATASETS = _root.Registry('dataset', parent=_root.DATASETS, scope='mim_mm', locations=['mim_mm.data'])
TRANSFORMS = _root.Registry('transform', parent=_root.TRANSFORMS, scope='mim_mm', locations=['mim_mm.data'])
FUNCTIONS = _root.Registry('function', parent=_root.FUNCTIONS, scope='mim_mm', locations=['mim_mm.data'])
HOOKS = _root.Registry('hook', parent=_root.HOOKS, scope='mim_mm', locations=['mim_mm.engine'])
OPTIM_WRAPPERS = _root.Registry(
    'optim_wrapper', parent=_root.OPTIM_WRAPPERS, scope='mim_mm', locations=['mim_mm.engine']
)
OPTIM_WRAPPER_CONSTRUCTORS = _root.Registry(
    'optimizer wrapper constructor',
    parent=_root.OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mim_mm',
    locations=['mim_mm.engine'],
)
METRICS = _root.Registry('metric', parent=_root.METRICS, scope='mim_mm', locations=['mim_mm.evaluation'])


def import_room(package: str) -> None:
    """Import every module of a package, so that a new file registers its classes without an edit elsewhere."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.name.startswith('_'):
            importlib.import_module(f'{package}.{module.name}')
