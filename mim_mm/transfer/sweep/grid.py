"""A chain over a grid of settings: one work dir, and one chain config, a point.

A sweep config names a chain and a grid:

    chain = 'configs/chains/mae_vitb_800e.py'
    grid = {
        'ratio': [0.5, 0.6, 0.75],                      # no dot: a variable, filled in where '{ratio}' stands
        'pretrain.model.masker': {                      # STAGE.key of its config; a dict of label -> value, or a list
            'random': dict(type='RandomMasking', ratio='{ratio}'),
            'SBAM': dict(type='SalienceMasking', ratio='{ratio}'),
        },
    }

A value that is a dict takes the place of what the stage's config has there; other values are set as ``--cfg-options``
would. Every point is an ordinary chain, run by ``tools/transfer.py`` as a process of its own, so that it skips what is
done, goes on where it was cut off and can be looked at or run by hand.
"""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.files import read_json, write_text
from mim_mm.transfer.chain import ChainError, check_name, find_file, flatten, load_chain, unknown
from mim_mm.transfer.manifest import write_json

SWEEP_KEYS = ('name', 'work_dir', 'chain', 'grid', 'options', 'x')
SUMMARY = 'sweep.json'
_SAFE = re.compile(r'[^A-Za-z0-9.+]+')


@dataclass(frozen=True)
class Point:
    """One combination of the grid. ``values``: axis -> number or label; ``settings``: STAGE.key -> value."""

    name: str  # also its folder
    values: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    name: str
    work_dir: Path
    chain: Path
    axes: tuple[str, ...]
    x: str | None  # the axis along which results are drawn
    points: tuple[Point, ...]
    stages: dict[str, Any] = field(repr=False, default_factory=dict)  # of the chain, as its config has them

    def folder(self, point: Point) -> Path:
        return self.work_dir / point.name

    def chain_file(self, point: Point) -> Path:
        return self.work_dir / 'configs' / point.name / 'chain.py'

    def write_summary(self, statuses: dict[str, str]) -> None:
        """``sweep.json``: points, their values and how they stand; results lie in each point's run.json files.

        A point that this call does not touch stands as the last one left it.
        """
        statuses = {**self._earlier(), **statuses}
        points = [dict(name=p.name, values=p.values, status=statuses.get(p.name, 'not run')) for p in self.points]
        content = dict(schema=1, name=self.name, chain=str(self.chain), axes=list(self.axes), x=self.x, points=points)
        write_json(self.work_dir / SUMMARY, content)

    def _earlier(self) -> dict[str, str]:
        try:
            points = read_json(self.work_dir / SUMMARY)['points']
            found = {point['name']: point['status'] for point in points}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {name: 'interrupted' if status == 'running' else status for name, status in found.items()}


# ---- reading


def load_sweep(path: str | Path, work_dir: str | Path | None = None) -> Sweep:
    """Read a sweep config and expand its grid; nothing is written.

    Args:
        path: relative to the current folder, the repository or ``.mim``.
        work_dir: takes the place of the config's ``work_dir`` (default ``work_dirs/<name>``).

    Raises:
        ChainError: an unknown key, stage or variable, an empty axis, or two points of the same name.
    """
    path = Path(path).resolve() if Path(path).is_file() else find_file(path, 'sweep config')
    content = Config.fromfile(str(path)).to_dict()
    where = path.name
    for key in content:
        if key not in SWEEP_KEYS:
            raise unknown('key', key, SWEEP_KEYS, where)
    if not content.get('chain'):
        raise ChainError(f'{where}: chain={content.get("chain")!r} must be the path of a chain config')
    grid = content.get('grid')
    if not isinstance(grid, dict) or not grid:
        raise ChainError(f"{where}: grid={grid!r} must be a dict of STAGE.key -> values, e.g. "
                         "{'pretrain.model.masker.ratio': [0.5, 0.75]}")  # fmt: skip
    chain = find_file(content['chain'], where)
    stages = Config.fromfile(str(chain)).to_dict().get('stages') or {}
    fixed = content.get('options') or {}
    for key in [*fixed, *(key for key in grid if '.' in key)]:
        _check_stage(key, stages, where)
    axes = _axis_names(grid)
    points = _expand(grid, axes, fixed, where)
    x = content.get('x') or _natural_x(axes.values(), points)
    if x is not None and x not in axes.values():
        raise unknown('axis', x, axes.values(), f'{where}: x')
    name = check_name(content.get('name') or path.stem, where)
    folder = Path(work_dir or content.get('work_dir') or f'work_dirs/{name}')
    return Sweep(name, folder, chain, tuple(axes.values()), x, tuple(points), stages)


def _check_stage(key: str, stages: dict[str, Any], where: str) -> None:
    stage, _, rest = key.partition('.')
    if stage not in stages:
        raise unknown('stage', stage, stages, f'{where}, {key!r}')
    if not rest or stages[stage].get('kind') == 'report':
        raise ChainError(f'{where}: {key!r} must be STAGE.key of a stage that has a config')


def _axis_names(grid: dict[str, Any]) -> dict[str, str]:
    """Key -> the fewest of its last words that tell the axes apart."""
    names: dict[str, str] = {}
    for key in grid:
        words = key.split('.')
        for count in range(1, len(words) + 1):
            name = '.'.join(words[-count:])
            if all(other == key or not f'.{other}'.endswith(f'.{name}') for other in grid):
                break
        names[key] = name
    return names


def _labelled(key: str, values: Any, where: str) -> list[tuple[Any, Any]]:
    """``[(label, value), ...]`` of one axis; a number is its own label, a dict goes by its type."""
    if isinstance(values, dict):
        pairs = list(values.items())
    elif isinstance(values, (list, tuple)):
        pairs = [(v.get('type') if isinstance(v, dict) else v, v) for v in values]
        pairs = [(label if isinstance(label, (int, float, str)) else str(label), v) for label, v in pairs]
    else:
        raise ChainError(f'{where}: {key!r} has {values!r}; give a list of values, or a dict of label -> value')
    labels = [label for label, _ in pairs]
    if not labels or len(set(map(str, labels))) < len(labels):
        raise ChainError(
            f'{where}: the values of {key!r} are called {labels}: there must be at least one and no name twice; '
            'give a dict of label -> value'
        )
    return pairs


def _expand(grid: dict[str, Any], axes: dict[str, str], fixed: dict[str, Any], where: str) -> list[Point]:
    columns = [_labelled(key, values, where) for key, values in grid.items()]
    points, used = [], set()
    for combination in itertools.product(*columns):
        chosen = {axes[key]: value for key, (_, value) in zip(grid, combination)}
        settings = {key: value for key, (_, value) in zip(grid, combination) if '.' in key}
        settings = {key: _fill(value, chosen, used, where) for key, value in {**fixed, **settings}.items()}
        values = {axes[key]: label for key, (label, _) in zip(grid, combination)}
        name = '_'.join(f'{_SAFE.sub("-", axis)}-{_SAFE.sub("-", str(label))}' for axis, label in values.items())
        points.append(Point(name, values, settings))
    idle = [key for key in grid if '.' not in key and key not in used]
    if idle:
        raise ChainError(
            f"{where}: nothing reads {idle[0]!r}; write '{{{idle[0]}}}' where its value belongs, or give the axis as "
            f"STAGE.key, e.g. 'pretrain.model.masker.{idle[0]}'"
        )
    names = [point.name for point in points]
    for name in names:
        if names.count(name) > 1:
            raise ChainError(f'{where}: two points would be called {name!r}; give a dict of label -> value')
    return points


def _fill(value: Any, chosen: dict[str, Any], used: set, where: str) -> Any:
    """``'{axis}'`` replaced by the value of that axis, at any depth."""
    if isinstance(value, dict):
        return {key: _fill(item, chosen, used, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_fill(item, chosen, used, where) for item in value)
    found = re.fullmatch(r'\{([\w.]+)\}', value) if isinstance(value, str) else None
    if not found:
        return value
    if found[1] not in chosen:
        raise unknown('variable', found[1], chosen, where)
    used.add(found[1])
    return chosen[found[1]]


def _natural_x(axes, points: list[Point]) -> str | None:
    """The mask ratio if there is such an axis, else the first axis of numbers."""
    numeric = [a for a in axes if all(isinstance(p.values[a], (int, float)) for p in points)]
    ratios = [a for a in numeric if a.split('.')[-1].endswith('ratio')]
    return (ratios or numeric or [None])[0]


# ---- writing


def write_point(sweep: Sweep, point: Point) -> Path:
    """Write the chain config of a point, and a config for every stage in which it replaces a dict.

    Returns:
        The chain config, checked by reading it back.

    Raises:
        ChainError: a value cannot be written into a config, or the chain that results cannot run.
    """
    stages = {name: dict(settings) for name, settings in sweep.stages.items()}
    target = sweep.chain_file(point)
    for name, settings in stages.items():
        if not settings.get('config'):
            continue
        mine = {k.partition('.')[2]: v for k, v in point.settings.items() if k.partition('.')[0] == name}
        base = find_file(settings['config'], f'{sweep.chain.name}, stage {name!r}')
        whole = {key: value for key, value in mine.items() if isinstance(value, dict)}
        settings['config'] = str(_write_config(target.parent / f'{name}.py', base, whole, point) if whole else base)
        plain = {key: value for key, value in mine.items() if key not in whole}
        settings['options'] = {**flatten(settings.get('options') or {}, target.name), **plain}
    text = f'"""Point {point.name} of sweep {sweep.name}; tools/sweep.py writes this file anew at each call."""\n\n'
    write_text(target, f'{text}name = {f"{sweep.name}/{point.name}"!r}\nstages = {stages!r}\n', sync=False)
    load_chain(target, sweep.folder(point))
    return target


def _write_config(path: Path, base: Path, replaced: dict[str, Any], point: Point) -> Path:
    """A config that inherits from ``base`` and has other dicts at the dotted keys of ``replaced``."""
    before = Config.fromfile(str(base)).to_dict()
    top: dict[str, Any] = {}
    for key, value in replaced.items():
        try:
            literal = ast.literal_eval(repr(value)) == value
        except (ValueError, SyntaxError):
            literal = False
        words = key.split('.')
        if not literal or any(word.isdigit() for word in words):
            raise ChainError(
                f'point {point.name}: {key}={value!r} cannot be written into a config: use numbers, strings, lists and '
                'dicts, and no index of a list in the key'
            )
        node = top
        for word in words[:-1]:
            node = node.setdefault(word, {})
        # Without _delete_ keys of the dict that stood here would leak into the new one; where nothing stood, mmengine
        # would leave the mark in the config.
        there = isinstance(_look_up(before, words), dict)
        node[words[-1]] = {'_delete_': True, **value} if there else value
    lines = [f'{key} = {value!r}' for key, value in top.items()]
    write_text(path, '\n'.join([f'_base_ = [{str(base)!r}]', *lines, '']), sync=False)
    return path


def _look_up(config: Any, words: list[str]) -> Any:
    for word in words:
        config = config.get(word) if isinstance(config, dict) else None
    return config
