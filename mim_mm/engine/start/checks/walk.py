"""Every part of a config that is built from a class: where it stands, and in which registry its name is looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mim_mm.config_parts import type_name

# Top-level key -> registry of what it names.
ROLES = dict(
    model='MODELS', data_preprocessor='MODELS', optim_wrapper='OPTIM_WRAPPERS', param_scheduler='PARAM_SCHEDULERS',
    train_dataloader='', val_dataloader='', test_dataloader='', val_evaluator='METRICS', test_evaluator='METRICS',
    train_cfg='LOOPS', val_cfg='LOOPS', test_cfg='LOOPS', default_hooks='HOOKS', custom_hooks='HOOKS',
    visualizer='VISUALIZERS', log_processor='LOG_PROCESSORS', strategy='STRATEGIES', model_wrapper_cfg='MODEL_WRAPPERS',
)  # fmt: skip
# Key below these -> registry, where it does not follow from what the key stands in.
INNER = dict(
    dataset='DATASETS', datasets='DATASETS', pipeline='TRANSFORMS', transforms='TRANSFORMS',
    batch_sampler='DATA_SAMPLERS', collate_fn='FUNCTIONS', worker_init_fn='FUNCTIONS', optimizer='OPTIMIZERS',
    vis_backends='VISBACKENDS', init_cfg='WEIGHT_INITIALIZERS', metrics='METRICS',
)  # fmt: skip
# What a part is without a type.
DEFAULTS = dict(optim_wrapper='OptimWrapper', log_processor='LogProcessor', val_cfg='ValLoop', test_cfg='TestLoop')
# Parts whose class their owner names: (owner, key) -> (registry, class).
IMPLIED = {
    ('CAE', 'neck'): ('MODELS', 'mmpretrain.CAENeck'),
    ('MultiProbe', 'head'): ('MODELS', 'mim_mm.evaluation.probes.multi_probe.ProbeGrid'),
    ('FSDPStrategy', 'model_wrapper'): ('MODEL_WRAPPERS', 'MMFullyShardedDataParallel'),
}
# What has a type and is made by its owner without a registry.
NO_PARTS = ('clip_grad', 'backend_args', 'file_client_args', 'custom_cfg', 'metainfo')
# A name that no registry has is refused in these places, and in the first two levels of a config. Elsewhere a dict with
# a type may be an option of its owner, and only a close neighbour of a registered name is refused.
BUILT = ('dataset', 'sampler', 'batch_sampler', 'backbone', 'masker', 'decoder', 'optimizer', 'pipeline')


@dataclasses.dataclass(frozen=True)
class Part:
    """``name``: of the class, as written, or the class itself; None where a class is missing."""

    path: str
    registry: str
    key: str
    scope: str
    settings: Mapping[str, Any]
    outer: bool = False
    implied: str | None = None

    @property
    def name(self) -> Any:
        if self.implied:
            return self.implied
        if self.settings.get('type'):
            return self.settings['type']
        if self.path == 'train_cfg':
            return 'EpochBasedTrainLoop' if self.settings.get('by_epoch') else 'IterBasedTrainLoop'
        return DEFAULTS.get(self.path)

    @property
    def surely_built(self) -> bool:
        return self.outer or self.path.count('.') < 2 or self.key in BUILT


def parts_of(cfg: Mapping) -> Iterator[Part]:
    """The parts of a resolved config, those of the model first."""
    scope = cfg.get('default_scope') or 'mmengine'
    for key, role in ROLES.items():
        value = cfg.get(key)
        several = key == 'default_hooks' or (key == 'param_scheduler' and 'type' not in (value or {}))
        if isinstance(value, Mapping) and several:
            for name, one in value.items():
                yield from _inside(f'{key}.{name}', role, name, one, scope, outer=True)
        else:
            yield from _inside(key, role, key, value, scope, outer=True)


def _inside(path: str, registry: str, key: str, value: Any, scope: str, outer: bool = False) -> Iterator[Part]:
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _inside(f'{path}.{index}', registry, key, item, scope, outer)
    if not isinstance(value, Mapping):
        return
    scope = value.get('_scope_') or scope
    part = Part(path, registry, key, scope, value, outer)
    needed = outer and (registry in ('HOOKS', 'PARAM_SCHEDULERS') or path in ('model', 'train_cfg', *DEFAULTS))
    if 'type' in value or (needed and not _is_several(part)):
        yield part
    for name, item in value.items():
        if name in NO_PARTS:
            continue
        role = INNER.get(name, registry)
        if name == 'sampler' and key.endswith('_dataloader'):
            role = 'DATA_SAMPLERS'
        registry_of, implied = IMPLIED.get((type_name(value), name), (role, None))
        if implied and isinstance(item, Mapping) and 'type' not in item:
            yield Part(f'{path}.{name}', registry_of, name, scope, item, implied=implied)
        yield from _inside(f'{path}.{name}', role, name, item, scope)


def _is_several(part: Part) -> bool:
    """Optimizer wrappers by the names of their optimizers, for a constructor of its own."""
    return part.path == 'optim_wrapper' and 'optimizer' not in part.settings
