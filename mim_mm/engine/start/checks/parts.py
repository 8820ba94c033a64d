"""Every part that a config names, against its class: the name, the arguments, the range of each.

The classes are looked up, so that this imports what the config uses; nothing is built. Ranges are asked of classes of
this package, of OpenMMLab and of torch only: what an argument of somebody else's class may be is theirs to say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.config import Config

from mim_mm.engine.batch_statistics import AccumulationRefused, check_accumulation
from mim_mm.engine.start.checks import lookup
from mim_mm.engine.start.checks.argument_rules import rule_for
from mim_mm.engine.start.checks.rules import as_number, complaint
from mim_mm.engine.start.checks.signatures import Arguments, arguments_of
from mim_mm.engine.start.checks.walk import Part, parts_of
from mim_mm.engine.start.checks.words import ConfigError, nearest, shown, unknown

# What the builder of a registry takes out of the settings before the class gets them.
EXTRA = dict(
    HOOKS={'priority'},
    PARAM_SCHEDULERS={'convert_to_iter_based'},
    OPTIM_WRAPPERS={'optimizer', 'constructor', 'paramwise_cfg'},
    LOOPS={'by_epoch'},
    MODELS={'init_cfg'},
)
# Filled by builders that add or take arguments on their own: their names are checked, their arguments are not.
_BUILT_OTHERWISE = (
    'norm_cfg', 'conv_cfg', 'act_cfg', 'upsample_cfg', 'nms', 'collate_fn', 'worker_init_fn', 'augments',
)  # fmt: skip
# Classes to which nothing is added: one without a required argument would stop in its constructor.
_COMPLETE = ('TRANSFORMS', 'HOOKS')


def check_parts(cfg: Config) -> None:
    """Look up every class that a config names, and compare its arguments.

    Raises:
        ConfigError: with the place, the value, and the nearest class or argument.
    """
    for part in parts_of(cfg):
        _check_part(part)
    _check_optim_wrapper(cfg)
    _check_accumulation(cfg)


def _check_part(part: Part) -> None:
    if not part.name:
        raise ConfigError(f'{part.path}: it names no class: add type=..., or inherit from a config that has it')
    kinds = lookup.classes(part.registry, part.name, part.scope)
    if not kinds:
        near = lookup.nearest_class(part.registry, str(part.name), others=not part.surely_built)
        if near or part.surely_built:
            hint = f"did you mean '{near}'?" if near else 'is the module that registers it in custom_imports?'
            kind = part.registry.lower() or 'anywhere'
            raise ConfigError(f'{part.path}.type={shown(part.name)}: no such class is registered ({kind}): {hint}')
        return
    if part.key in _BUILT_OTHERWISE:
        return
    complaints = [_complaint(part, registry, kind) for registry, kind in kinds]
    if all(complaints):
        raise ConfigError(complaints[0])


def _complaint(part: Part, registry: str, kind: Callable) -> str | None:
    arguments = arguments_of(kind)
    known = (set(arguments.known) | EXTRA.get(registry, set())) - {'self'}
    further = lookup.handed_to(kind, part.settings, part.scope)
    ours = lookup.is_known_package(kind)
    for name, value in part.settings.items():
        if name in ('type', '_scope_'):
            continue
        if name not in known:
            said = _unknown(part, name, kind, known, arguments, further)
        else:
            said = _text(part.path, name, value, arguments)
            rule = rule_for(registry, kind, name) if ours and not said else None
            said = said or (complaint(f'{part.path}.{name}', value, rule) if rule else None)
        if said:
            return said
    lost = [name for name in arguments.required if name not in part.settings] if registry in _COMPLETE else []
    if lost:
        return f'{part.path}.{lost[0]} is missing: {kind.__name__} has no default for it'
    return _relations(part.path, part.settings, kind) if ours else None


def _unknown(
    part: Part,
    name: str,
    kind: Callable,
    known: set[str],
    arguments: Arguments,
    further: set[str] | None,
) -> str | None:
    if further is not None and name in further:
        return None
    if arguments.open and further is None and not (lookup.is_known_package(kind) and nearest(name, known, 0.85)):
        return None
    names = (known | (further or set())) - {'args', 'init_cfg'}
    place = f'{part.path}.{name}={shown(part.settings[name])}'
    return unknown(place, names, f'{kind.__name__} has no argument')


def _text(path: str, name: str, value: Any, arguments: Arguments) -> str | None:
    """Text where the class's own default says that it wants a number, or a yes or no."""
    if not isinstance(value, str) or name not in arguments.known:
        return None
    parameter = arguments.known[name]
    default, hint = parameter.default, parameter.annotation
    if isinstance(default, bool) and value.lower() in ('true', 'false', 'yes', 'no'):
        return f"{path}.{name}='{value}': it is text, and must be True or False, without quotes"
    wants = isinstance(default, (int, float)) or hint in (int, float, 'int', 'float')
    if wants and not isinstance(default, bool) and as_number(value) is not None:
        return f"{path}.{name}='{value}': it is text where a number is wanted: write {value} without quotes"
    return None


def _relations(path: str, settings: Mapping, kind: Callable) -> str | None:
    arch = settings.get('arch')
    for holder in (settings, arch if isinstance(arch, Mapping) else {}):
        width, heads = holder.get('embed_dims'), holder.get('num_heads')
        if isinstance(width, int) and isinstance(heads, int) and heads > 0 and width % heads:
            return f'{path}.num_heads={heads}: it must divide embed_dims={width}'
    zoo = getattr(kind, 'arch_zoo', None) or getattr(kind, 'arch_settings', None)
    if isinstance(arch, str) and isinstance(zoo, Mapping) and arch.lower() not in {str(name).lower() for name in zoo}:
        names = [str(name) for name in zoo]
        near = nearest(arch, names)
        hint = f"did you mean '{near}'?" if near else f'{kind.__name__} knows {", ".join(sorted(names))}'
        return f"{path}.arch='{arch}': no architecture of this name: {hint}"
    return None


def _check_optim_wrapper(cfg: Config) -> None:
    """What it holds beside its optimizer: arguments of a function, and of a constructor that reads them by ``get``."""
    wrapper = cfg.get('optim_wrapper')
    wrapper = wrapper if isinstance(wrapper, Mapping) else {}
    clip = wrapper.get('clip_grad')
    if isinstance(clip, Mapping):
        by_value = clip.get('type') == 'value'
        function = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
        known = (set(inspect.signature(function).parameters) | {'type'}) - {'parameters'}
        for name, value in clip.items():
            if name not in known:
                place = f'optim_wrapper.clip_grad.{name}={shown(value)}'
                raise ConfigError(unknown(place, known, f'{function.__name__} has no argument'))
    constructor = wrapper.get('constructor', 'DefaultOptimWrapperConstructor')
    found = lookup.classes('OPTIM_WRAPPER_CONSTRUCTORS', constructor, cfg.get('default_scope') or 'mmengine')
    if not found:
        near = lookup.nearest_class('OPTIM_WRAPPER_CONSTRUCTORS', constructor)
        hint = f": did you mean '{near}'?" if near else ': is the module that registers it in custom_imports?'
        raise ConfigError(f'optim_wrapper.constructor={shown(constructor)}: no such class is registered{hint}')
    known = lookup.paramwise_options(found[0][1])
    for name, value in (wrapper.get('paramwise_cfg') or {}).items():
        if known and name not in known:
            place = f'optim_wrapper.paramwise_cfg.{name}={shown(value)}'
            raise ConfigError(unknown(place, known, f'{constructor} has no option'))


def _check_accumulation(cfg: Config) -> None:
    """A method that takes something from the batch as a whole, with accumulated gradients."""
    model, wrapper = cfg.get('model') or {}, cfg.get('optim_wrapper')
    steps = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, Mapping) else 1
    kinds = lookup.classes('MODELS', model.get('type'), cfg.get('default_scope') or 'mmengine')
    for _, kind in kinds[:1]:
        try:
            check_accumulation(kind, steps, bool(cfg.get('allow_accumulation')))
        except AccumulationRefused as error:
            raise ConfigError(str(error)) from error
