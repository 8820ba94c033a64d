"""Classes by name as mmengine finds them, and the nearest name where it finds none."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine import registry as roots
from mmengine.registry import Registry

from mim_mm.engine.start.checks.signatures import arguments_of
from mim_mm.engine.start.checks.words import nearest

PACKAGES = ('mim_mm', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'torch')
# Where a part may be found that is not of the kind of what it stands in.
ANYWHERE = (
    'MODELS TASK_UTILS TRANSFORMS DATASETS DATA_SAMPLERS WEIGHT_INITIALIZERS METRICS HOOKS FUNCTIONS OPTIMIZERS '
    'VISBACKENDS EVALUATOR'
).split()
# Options of mmengine's constructor, which reads them by ``get``.
_PARAMWISE = set(
    'custom_keys bias_lr_mult bias_decay_mult norm_decay_mult dwconv_decay_mult flat_decay_mult bypass_duplicate '
    'dcn_offset_lr_mult'.split()
)
# Whose class is meant where several scopes have one of that name: the last, unless a scope is written.
PREFERRED = ('mmdet', 'mmpretrain', 'mim_mm', 'mmengine')


def classes(registry: str, name: Any, scope: str) -> list[tuple[str, Callable]]:
    """What a type may mean where it stands, with the registry of each; mmengine's new style names the class itself."""
    if not isinstance(name, str):
        return [(registry, name)] if callable(name) else []
    found: list[tuple[str, Callable]] = []
    for one in dict.fromkeys([registry, *ANYWHERE]):
        kind = _get(one, name, scope) if one else None
        if kind is not None:
            found.append((one, kind))
            if one == registry:
                break
    if not found:
        found = [('MODELS', kind) for kind in [_batch_augment(name)] if kind is not None]
    return found


def _get(registry: str, name: str, scope: str) -> Callable | None:
    """As a build under ``scope``; mmengine's own switch warns of each scope that lacks a registry."""
    root: Registry = getattr(roots, registry)
    with contextlib.suppress(ImportError):  # a scope without a registry: the root's
        importlib.import_module(f'{scope}.registry')
    with contextlib.suppress(ModuleNotFoundError):  # 'nowhere.Thing': no such scope and no such module
        return root.children.get(scope, root).get(name)
    return None


def _batch_augment(name: str) -> Callable | None:
    """mmpretrain's Mixup and CutMix are in a registry of their own, without a root."""
    from mmpretrain.registry import BATCH_AUGMENTS

    return BATCH_AUGMENTS.get(name.split('.')[-1])


def nearest_class(registry: str, name: str, others: bool = False) -> str | None:
    """The registered name that a misspelt one is nearest to, with its scope where it needs one.

    Args:
        registry: in which to look first.
        name: misspelt, or without the scope that it needs.
        others: whether other registries are looked at as well.
    """
    bare, written = name.split('.')[-1], name.split('.')[0] if '.' in name else None
    preferred = (*PREFERRED, written)
    for one in [registry, *(ANYWHERE if others else ())]:
        names = _names(getattr(roots, one)) if one else ()
        # of equal names the last one stays
        known = dict(sorted(names, key=lambda pair: preferred.index(pair[1]) if pair[1] in preferred else -1))
        near = nearest(bare, known, 0.75)
        if near:
            return f'{known[near]}.{near}' if known[near] != 'mmengine' or written else near
    return None


def _names(root: Registry) -> Iterator[tuple[str, str]]:
    """``(name, scope)`` of everything in a registry and those below it."""
    for child in root.children.values():
        with contextlib.suppress(Exception):  # a scope that cannot be imported has no names to offer
            child.import_from_location()
        yield from ((name, child.scope) for name in child.module_dict)
    yield from ((name, root.scope) for name in root.module_dict)


def is_known_package(kind: Callable) -> bool:
    return str(getattr(kind, '__module__', '')).split('.')[0] in PACKAGES


def handed_to(kind: Callable, part: Mapping, scope: str) -> set[str] | None:
    """What further arguments a class hands to something known; None: to something unknown, or it hands on nothing."""
    from mmengine.hooks import CheckpointHook, EMAHook

    if inspect.isclass(kind) and issubclass(kind, CheckpointHook):
        from mmengine.runner import Runner

        return set(inspect.signature(Runner.save_checkpoint).parameters) - {'self'}
    if inspect.isclass(kind) and issubclass(kind, EMAHook):
        averages = classes('MODELS', part.get('ema_type', 'ExponentialMovingAverage'), scope)
        return set(arguments_of(averages[0][1]).known) if averages else None
    if 'resize_kwargs' in _rest_of(kind):
        resize = classes('TRANSFORMS', part.get('resize_type', 'Resize'), scope)
        return set(arguments_of(resize[0][1]).known) if resize else None
    return None


def _rest_of(kind: Callable) -> set[str]:
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {p.name for p in parameters if p.kind is p.VAR_KEYWORD}


def paramwise_options(constructor: Callable) -> set[str] | None:
    """The names that ``paramwise_cfg`` may hold for a constructor; None: it is somebody else's."""
    from mmengine.optim import DefaultOptimWrapperConstructor

    if constructor is DefaultOptimWrapperConstructor:
        return _PARAMWISE
    module = inspect.getmodule(constructor)
    return getattr(module, 'OPTIONS', None) if is_known_package(constructor) else None  # as ours call them
