"""Registries of scope ``mim_mm``, children of mmengine's root registries.

Any OpenMMLab config reaches our classes as ``type='mim_mm.EMAE'``: mmengine imports ``mim_mm.registry`` when it meets
the scope, and the ``locations`` import the rooms on the first look-up only, so ``import mim_mm`` stays cheap.
"""

import importlib
import pkgutil

from mmengine import registry as _root
from mmengine.registry import Registry


def _child(parent: Registry, *rooms: str) -> Registry:
    locations = [f'mim_mm.{room}' for room in rooms] or [__name__]
    return Registry(parent.name, parent=parent, scope='mim_mm', locations=locations)


MODELS = _child(_root.MODELS, 'masking', 'decoders', 'algorithms', 'detection', 'data', 'evaluation')
DATASETS = _child(_root.DATASETS, 'data', 'evaluation')
TRANSFORMS = _child(_root.TRANSFORMS, 'data')
FUNCTIONS = _child(_root.FUNCTIONS, 'data')
HOOKS = _child(_root.HOOKS, 'engine', 'evaluation')
OPTIMIZERS = _child(_root.OPTIMIZERS, 'engine')
OPTIM_WRAPPERS = _child(_root.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(_root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
METRICS = _child(_root.METRICS, 'evaluation', 'detection')
RUNNERS = _child(_root.RUNNERS, 'engine')
STRATEGIES = _child(_root.STRATEGIES, 'engine')
PARAM_SCHEDULERS = _child(_root.PARAM_SCHEDULERS, 'engine')

# Empty, but there: for each registry that a scope lacks, mmengine warns at every build under that default scope, and
# for one without a location it says that mim_mm is not installed; this module is a location that costs nothing.
for _name in (
    'DATA_SAMPLERS', 'EVALUATOR', 'INFERENCERS', 'LOG_PROCESSORS', 'LOOPS', 'MODEL_WRAPPERS',
    'RUNNER_CONSTRUCTORS', 'TASK_UTILS', 'VISBACKENDS', 'VISUALIZERS', 'WEIGHT_INITIALIZERS',
):  # fmt: skip
    globals()[_name] = _child(getattr(_root, _name))


def import_room(package: str) -> None:
    """Import every module of a package, so that a new file registers its classes without an edit elsewhere."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.name.startswith('_'):
            importlib.import_module(f'{package}.{module.name}')
