"""Whether a run that resumes is the run of its checkpoint: its config against the one that the checkpoint carries.

What changes learning is refused unless ``--allow-change`` names it; what does not is said. Which is which stands in
:mod:`mim_mm.engine.start.learning`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mim_mm.config_parts import type_name
from mim_mm.engine.hooks.watching import changes_learning
from mim_mm.engine.start.checks.words import ConfigError
from mim_mm.engine.start.learning import CONVERTED, TOOL_HOOKS, why_not_learned

MISSING = '(not stated)'
DEVICES = 'devices'  # the number of processes, which no config states
BATCH = ('train_dataloader.batch_size', 'optim_wrapper.accumulative_counts', DEVICES)
RATE = 'optim_wrapper.optimizer.lr'
# Of a scheduler, what follows from the duration of training.
EXTENT = ('begin', 'end', 'T_max', 'milestones', 'total_iters', 'max_iters')
SHOWN = 8


def plain(value: Any) -> Any:
    """Settings as data: tuples as lists, classes and functions by name, so that a text and a config are comparable."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value), key=repr)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value):
        return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", type(value).__name__)}'
    return str(value)


def differences(old: Any, new: Any, path: str = '') -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, old, new) of every setting that differs; lists of another length as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            inner = f'{path}.{key}' if path else key
            yield from differences(old.get(key, MISSING), new.get(key, MISSING), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f'{path}.{place}')
    elif repr(old) != repr(new) and not (_number(old) and _number(new) and old == new):
        yield path, old, new


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def roots(value: Any) -> list[str]:
    """Every ``data_root``, in order of appearance, once each."""
    found: list[str] = []
    if isinstance(value, dict):
        found += [value['data_root']] if isinstance(value.get('data_root'), str) and value['data_root'] else []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += roots(item)
    return list(dict.fromkeys(found))


def without_roots(content: dict) -> dict:
    """The same with the number of its data root in each path: the same images may lie elsewhere now."""
    places = {root.rstrip('/'): f'<data {place}>' for place, root in enumerate(roots(content))}

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(item) for key, item in value.items()}
        if isinstance(value, list):
            return [replaced(item) for item in value]
        if isinstance(value, str):
            for root in sorted(places, key=len, reverse=True):
                if value.rstrip('/') == root or value.startswith(root + '/'):
                    inside = value[len(root) :].strip('/')
                    return f'{places[root]}/{inside}' if inside else places[root]
        return value

    return replaced(content)


def _counts(hook: Any) -> bool:
    """Whether a hook of a config changes learning: it does not only look on, and is none that the tool adds."""
    name = type_name(hook)
    if not name or (name in TOOL_HOOKS and hook.get('seed') is None):
        return False
    return changes_learning(hook['type'])


def _sorted_hooks(content: dict) -> tuple[dict, dict]:
    """(content with the hooks that change learning alone, those that do not)."""
    listed, named = content.get('custom_hooks') or [], content.get('default_hooks') or {}
    watching = {
        'custom_hooks': [hook for hook in listed if not _counts(hook)],
        'default_hooks': {key: hook for key, hook in named.items() if not _counts(hook)},
    }
    learning = {
        'custom_hooks': [hook for hook in listed if _counts(hook)],
        'default_hooks': {key: hook for key, hook in named.items() if _counts(hook)},
    }
    return {**content, **learning}, watching


def batch(content: Mapping, devices: int) -> int | None:
    """Images an optimizer step."""
    size = (content.get('train_dataloader') or {}).get('batch_size')
    counts = (content.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    return size * counts * devices if isinstance(size, int) and isinstance(counts, int) else None


def allowed(path: str, allow: Sequence[str]) -> bool:
    """Whether ``--allow-change`` names a setting or one above it."""
    return any(path == key or path.startswith(f'{key}.') for key in allow)


def compare(
    old: Mapping, new: Mapping, devices: tuple[int | None, int], allow: Sequence[str], read: set[str]
) -> tuple[list[str], list[str]]:
    """What a resumed run has otherwise than the run of its checkpoint.

    Args:
        old: the config that the checkpoint carries.
        new: the config of this run, resolved.
        devices: processes then (None: not known) and now.
        allow: dotted keys that may change, with everything below them.
        read: top-level keys that anybody reads; others are variables of the config.

    Returns:
        (changes that are refused, changes that are accepted with the reason), a line each.
    """
    (old, looked), (new, looks) = _sorted_hooks(plain(old)), _sorted_hooks(plain(new))
    refused, notes = [], []
    for path, a, b in differences(looked, looks):
        if not path.endswith('.allow'):  # of this one start
            notes.append(f'{path}: {_short(a)} -> {_short(b)} (hooks that only look on)')
    if roots(old) != roots(new):
        notes.append(f'data: {_short(roots(old))} -> {_short(roots(new))} (the images are compared by their names)')
    found = list(differences(without_roots(old), without_roots(new)))
    if devices[0] not in (None, devices[1]):
        found.append((DEVICES, devices[0], devices[1]))
    changed = {path for path, _, _ in found}
    longer = bool(changed & {'train_cfg.max_epochs', 'train_cfg.max_iters'})
    factor = _batch_factor(old, new, devices)
    if longer:
        found = [item for item in found if not item[0].startswith('param_scheduler')]
        found += _other_courses(old.get('param_scheduler'), new.get('param_scheduler'))
    rate_follows = _follows(old, new, factor)
    for path, a, b in found:
        line = f'{path}: {_short(a)} -> {_short(b)}'
        if allowed(path, allow):
            reason = 'allowed by --allow-change'
        elif path in BATCH and factor not in (None, 1) and not rate_follows:
            refused.append(f'{line} ({_rate_words(new, factor)})')
            continue
        elif path in CONVERTED or path == DEVICES:
            reason = CONVERTED.get(path, CONVERTED['train_dataloader.batch_size'])
        elif path == RATE and factor not in (None, 1) and rate_follows:
            reason = f'follows the batch, {factor:g} x'
        else:
            top = path.split('.')[0]
            reason = why_not_learned(path) or (None if top in read else 'a variable that nothing reads')
        (notes if reason else refused).append(f'{line} ({reason})' if reason else line)
    return refused, notes


def _batch_factor(old: Mapping, new: Mapping, devices: tuple[int | None, int]) -> float | None:
    """How many times the images an optimizer step has now."""
    before, now = batch(old, devices[0] or devices[1]), batch(new, devices[1])
    return now / before if before and now else None


def _follows(old: Mapping, new: Mapping, factor: float | None) -> bool:
    rates = [((content.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr') for content in (old, new)]
    if factor is None or not all(_number(rate) and rate > 0 for rate in rates):
        return False
    return abs(rates[1] / rates[0] - factor) < 1e-6 * factor


def _rate_words(new: Mapping, factor: float) -> str:
    rate = ((new.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    fix = f': {RATE}={rate * factor:.9g} would' if _number(rate) else ''
    return f'a step has {factor:g} x the images and the learning rate does not follow{fix}'


def _other_courses(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Differences of schedulers that do not follow from another duration: kind by kind, without their extents."""
    sides = []
    for side in (old, new):
        listed = side if isinstance(side, list) else [side] if isinstance(side, dict) else []
        sides.append(
            {
                type_name(one): {k: v for k, v in one.items() if k not in EXTENT}
                for one in listed
                if isinstance(one, dict)
            }
        )
    for kind in sides[0].keys() & sides[1].keys():
        yield from differences(sides[0][kind], sides[1][kind], f'param_scheduler.{kind}')
    if sides[0] and sides[1] and not sides[0].keys() & sides[1].keys():
        yield 'param_scheduler', list(sides[0]), list(sides[1])


def check_same_run(
    stored: Mapping, cfg: Mapping, devices: tuple[int | None, int], allow: Sequence[str], read: set[str], name: str
) -> list[str]:
    """Refuse to resume into another run; see :func:`compare`.

    Args:
        name: of the checkpoint, for messages.

    Returns:
        What to tell, a line each.

    Raises:
        ConfigError: what changes learning, with the old and the new value and how to go on.
    """
    refused, notes = compare(stored, cfg, devices, allow, read)
    if refused:
        more = f'; and {len(refused) - SHOWN} more' if len(refused) > SHOWN else ''
        keys = ' '.join(f'--allow-change {key}' for key in dict.fromkeys(line.split(':')[0] for line in refused))
        raise ConfigError(
            f'--resume: {name} was trained with other settings: {"; ".join(refused[:SHOWN])}{more}. Resume without '
            f'them (the options of the run are taken by themselves), or with {keys} to change them from '
            'here on, or start a new run from its weights: --cfg-options load_from=CKPT, without --resume'
        )
    return [f'changed since the checkpoint: {note}' for note in notes]


def _short(value: Any, limit: int = 100) -> str:
    text = repr(value) if value != MISSING else MISSING
    return text if len(text) <= limit else text[: limit - 3] + '...'
