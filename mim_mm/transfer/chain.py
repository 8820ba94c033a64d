"""Reading a chain config: which stages there are, what each starts from, and everything that can be wrong with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.compat.paths import repo_root
from mim_mm.transfer.words import Kind

CHAIN_KEYS = ('name', 'work_dir', 'stages', 'orderings', 'controls', 'series')
STAGE_KEYS = ('kind', 'config', 'checkpoint', 'init', 'arm', 'seeds', 'options', 'gpus', 'launcher', 'artifacts')
ARTIFACT_KEYS = ('name', 'command', 'path')
ORDERING_KEYS = ('part', 'claim', 'better', 'worse', 'figures', 'published')
SERIES_KEYS = ('title', 'x', 'lines')
LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


class ChainError(Exception):
    """A chain, or a call of it, that cannot run; the message names the value, the rule and the fix."""


@dataclass(frozen=True)
class Artifact:
    """A command run after a stage. ``path`` is what it must leave, relative to the stage's folder."""

    name: str
    command: str | tuple[str, ...]
    path: str


@dataclass(frozen=True)
class Stage:
    """One run: a stage of the config with one of its seeds."""

    name: str  # unique, also the folder: `linear`, or `linear-s1` when the stage has several seeds
    base: str  # as the config calls it
    kind: Kind
    config: Path | None
    init: str | None  # name of the Stage whose checkpoint this one starts from
    arm: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)  # dotted key -> value
    gpus: int | None = None
    launcher: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    checkpoint: Path | None = None  # weights made elsewhere: a pretraining stage that never runs


@dataclass(frozen=True)
class Chain:
    """What a chain config says, checked; a file named in it is there."""

    name: str
    work_dir: Path
    stages: tuple[Stage, ...]  # parents before children
    path: Path
    orderings: tuple[dict[str, Any], ...] = ()  # what the chain is to show: see _ordering
    controls: tuple[str, ...] = ()  # arms that stand as lines in its pictures
    series: tuple[dict[str, Any], ...] = ()  # pictures of figures along a value: see _series

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def folder(self, stage: str | Stage) -> Path:
        return self.work_dir / (stage if isinstance(stage, str) else stage.name)

    def select(self, names: Iterable[str]) -> list[Stage]:
        """The stages called so, by the config's name (all seeds of it) or by the name of one run.

        Raises:
            ChainError: no stage has that name.
        """
        chosen = []
        for name in names:
            found = [stage for stage in self.stages if name in (stage.base, stage.name)]
            if not found:
                raise unknown('stage', name, {s.base: 0 for s in self.stages}, f'chain {self.name}')
            chosen += [stage for stage in found if stage not in chosen]
        return chosen

    def summary(self) -> dict[str, Any]:
        """``chain.json``: the order and the arms, for the report."""
        stages = [dict(name=s.name, base=s.base, kind=s.kind, arm=s.arm, seed=s.seed, init=s.init) for s in self.stages]
        arms = list(dict.fromkeys(s.arm for s in self.stages if s.kind != Kind.REPORT))
        parts = dict(orderings=self.orderings, controls=self.controls, series=self.series)
        shown = {key: list(value) for key, value in parts.items() if value}
        return dict(schema=1, name=self.name, config=str(self.path), stages=stages, arms=arms, **shown)


def unknown(what: str, value: str, known: Iterable[str], where: str) -> ChainError:
    """The error for a name that does not exist, with the nearest that does."""
    known = list(known)
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    return ChainError(f'{where}: unknown {what} {value!r}; {hint}Known: {", ".join(known)}')


def find_file(path: str | Path, what: str) -> Path:
    """A file named in a chain: absolute, or relative to the repository (or ``.mim``), or to the current folder.

    Raises:
        ChainError: there is no such file; the message lists where it was looked for.
    """
    tried = [Path(path)] if Path(path).is_absolute() else [repo_root() / path, Path.cwd() / path]
    for candidate in tried:
        if candidate.is_file():
            return candidate.resolve()
    raise ChainError(f'{what}: {str(path)!r} is not a file; looked for {" and ".join(map(str, tried))}')


def load_chain(path: str | Path, work_dir: str | Path | None = None) -> Chain:
    """Read and check a chain config.

    Args:
        path: the chain config, relative to the current folder, the repository or ``.mim``.
        work_dir: takes the place of the config's ``work_dir``.

    Raises:
        ChainError: a key is unknown, a file is missing, or a stage starts from one that does not come before it.
    """
    path = Path(path).resolve() if Path(path).is_file() else find_file(path, 'chain config')
    content = Config.fromfile(str(path)).to_dict()
    where = path.name
    for key in content:
        # A variable of the config's own is fine, as in any mmengine config; one that is nearly a key is a misspelt key.
        if key not in CHAIN_KEYS and difflib.get_close_matches(key, CHAIN_KEYS, n=1, cutoff=0.75):
            raise unknown('key', key, CHAIN_KEYS, where)
    name = check_name(content.get('name') or path.stem, where)
    stages = content.get('stages')
    if not isinstance(stages, dict) or not stages:
        raise ChainError(f'{where}: stages={stages!r} must be a dict of stage name -> dict(kind=..., config=...)')
    expanded: dict[str, list[Stage]] = {}
    for base, settings in stages.items():
        expanded[base] = _expand(base, settings, expanded, where)
    kinds = [settings['kind'] for settings in stages.values()]
    if Kind.REPORT in kinds[:-1]:
        raise ChainError(f'{where}: the report reads all other stages, so there is one and it is the last; got {kinds}')
    work_dir = Path(work_dir or content.get('work_dir') or f'work_dirs/{name}')
    runs = tuple(stage for group in expanded.values() for stage in group)
    orderings = tuple(_ordering(item, runs, where) for item in content.get('orderings') or ())
    controls = tuple(_known_arm(arm, runs, f'{where}, controls') for arm in content.get('controls') or ())
    series = tuple(_series(item, runs, where) for item in content.get('series') or ())
    return Chain(name, work_dir, runs, path, orderings, controls, series)


def _expand(base: str, settings: Any, before: dict[str, list[Stage]], where: str) -> list[Stage]:
    """One Stage per seed. A child of a parent with several seeds starts from the parent's run of its own seed."""
    where = f'{where}, stage {base!r}'
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_-]*', str(base)):
        raise ChainError(f'{where}: the name becomes a folder; use letters, digits, "-" and "_" only')
    if not isinstance(settings, dict):
        raise ChainError(f'{where}: must be a dict(kind=..., config=...), got {settings!r}')
    for key in settings:
        if key not in STAGE_KEYS:
            raise unknown('key', key, STAGE_KEYS, where)
    kind = settings.get('kind')
    if kind not in list(Kind):
        raise unknown('kind', kind, Kind, where)
    kind = Kind(kind)
    checkpoint = settings.get('checkpoint')
    if checkpoint is not None and (kind != Kind.PRETRAIN or settings.get('config') is not None):
        raise ChainError(f'{where}: checkpoint= names the weights of a pretrain stage that takes no config')
    if checkpoint is None and (kind == Kind.REPORT) != (settings.get('config') is None):
        raise ChainError(f'{where}: kind {kind!r} {"takes no config" if kind == Kind.REPORT else "needs config=..."}')
    launcher = settings.get('launcher')
    if launcher is not None and launcher not in LAUNCHERS:
        raise unknown('launcher', launcher, LAUNCHERS, where)
    gpus = settings.get('gpus')
    if gpus is not None and (not isinstance(gpus, int) or gpus < 0):
        raise ChainError(f'{where}: gpus={gpus!r} must be a whole number, 0 or more')
    seeds = settings.get('seeds', [0])
    if not isinstance(seeds, (list, tuple)) or not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise ChainError(f'{where}: seeds={seeds!r} must be a list of whole numbers, e.g. [0, 1, 2]')
    if len(set(seeds)) < len(seeds):
        raise ChainError(f'{where}: seeds={list(seeds)} names one twice')
    options = flatten(settings.get('options') or {}, where)
    config = find_file(settings['config'], where) if settings.get('config') is not None else None
    checkpoint = find_file(checkpoint, where) if checkpoint is not None else None
    artifacts = tuple(_artifact(item, where) for item in settings.get('artifacts') or ())
    stages = []
    for seed in seeds:
        name = base if len(seeds) == 1 else f'{base}-s{seed}'
        taken = {stage.name for group in before.values() for stage in group}
        if name in taken:
            raise ChainError(f'{where}: two stages would be called {name!r}; rename one')
        parent = _parent(settings.get('init'), seed, before, where)
        alone = {Kind.PRETRAIN: base, Kind.REPORT: ''}.get(kind, 'scratch')
        arm = settings.get('arm') or (parent.arm if parent else alone)
        init = parent.name if parent else None
        stages.append(Stage(name, base, kind, config, init, arm, seed, options, gpus, launcher, artifacts))
        if checkpoint is not None:
            stages[-1] = replace(stages[-1], checkpoint=checkpoint)
    return stages


def _parent(init: str | None, seed: int, before: dict[str, list[Stage]], where: str) -> Stage | None:
    if init is None:
        return None
    if init not in before:
        raise unknown('init', init, before, f'{where}: init must name a stage written above it, or None')
    group = before[init]
    if group[0].kind == Kind.REPORT:
        raise ChainError(f'{where}: init={init!r} is a report, which leaves no weights')
    if len(group) == 1:
        return group[0]
    for stage in group:
        if stage.seed == seed:
            return stage
    have = [stage.seed for stage in group]
    raise ChainError(f'{where}: seed {seed} needs {init!r} of seed {seed}, which has seeds {have}; add it there')


def _ordering(item: Any, runs: tuple[Stage, ...], where: str) -> dict[str, Any]:
    """A claim that the report judges: that the figures of arm ``better`` lie above those of ``worse``.

    ``dict(claim=..., better=ARM, worse=ARM)``, with ``part`` (a heading), ``figures`` (default: all that both arms
    have) and ``published`` (what the paper found, as text).

    Raises:
        ChainError: a key is unknown, one is missing, or an arm is not in the chain.
    """
    if not isinstance(item, dict) or not all(item.get(key) for key in ('claim', 'better', 'worse')):
        raise ChainError(f'{where}: an ordering is dict(claim=..., better=ARM, worse=ARM), got {item!r}')
    for key in item:
        if key not in ORDERING_KEYS:
            raise unknown('ordering key', key, ORDERING_KEYS, where)
    for side in ('better', 'worse'):
        _known_arm(item[side], runs, f'{where}, ordering {item["claim"]!r}')
    return dict(item)


def _known_arm(arm: Any, runs: tuple[Stage, ...], where: str) -> str:
    arms = dict.fromkeys(stage.arm for stage in runs if stage.kind != Kind.REPORT)
    if arm not in arms:
        raise unknown('arm', arm, arms, where)
    return arm


def _series(item: Any, runs: tuple[Stage, ...], where: str) -> dict[str, Any]:
    """A picture of figures along a value that several arms vary.

    ``dict(title=..., x='mask ratio', lines={'random': {0.5: ARM, 0.75: ARM}, 'SBAM': {...}})``.

    Raises:
        ChainError: a key is unknown or missing, a value is no number, or an arm is not in the chain.
    """
    form = 'a series is dict(title=..., x=..., lines={name: {number: arm}})'
    if not isinstance(item, dict) or not all(item.get(key) for key in SERIES_KEYS):
        raise ChainError(f'{where}: {form}, got {item!r}')
    for key in item:
        if key not in SERIES_KEYS:
            raise unknown('series key', key, SERIES_KEYS, where)
    for line in item['lines'].values() if isinstance(item['lines'], dict) else [None]:
        if not isinstance(line, dict) or not all(isinstance(x, (int, float)) for x in line):
            raise ChainError(f'{where}, series {item["title"]!r}: {form}, got lines={item["lines"]!r}')
        for arm in line.values():
            _known_arm(arm, runs, f'{where}, series {item["title"]!r}')
    return dict(item)


def check_name(name: Any, where: str) -> str:
    """The name of a chain or sweep, which becomes a folder, a job of Slurm and a word in written configs.

    Raises:
        ChainError: it leads out of its folder, or holds what a shell, a pattern of Slurm or Python reads otherwise.
    """
    bad = not isinstance(name, str) or not name.isprintable() or any(c in name for c in '\'"\\%`$;{}')
    if bad or not name.strip() or name.startswith(('-', '/', '~')) or '..' in name.split('/'):
        raise ChainError(
            f'{where}: name={name!r} becomes a folder and the name of jobs: use letters, digits, "-", "_" and "." '
            "(the name of the file counts where there is no name='...')"
        )
    return name


def check_written_folder(folder: str | Path) -> None:
    """Refuse a folder whose name would end the text in which the configs that are written there name it.

    Raises:
        ChainError: with the path.
    """
    path = str(Path(folder).resolve())
    if "'''" in path or path.endswith("'") or '\\' in path or not path.isprintable():
        raise ChainError(
            f"--work-dir: {path!r} holds ''', a backslash, a line break or a quotation mark at its end, which the "
            'configs that are written there could not name: take a folder without'
        )


def _artifact(item: Any, where: str) -> Artifact:
    if not isinstance(item, dict) or not item.get('name') or not item.get('command'):
        raise ChainError(f'{where}: an artifact is dict(name=..., command=..., path=...), got {item!r}')
    for key in item:
        if key not in ARTIFACT_KEYS:
            raise unknown('artifact key', key, ARTIFACT_KEYS, where)
    command = item['command']
    path = item.get('path') or item['name']
    return Artifact(item['name'], command if isinstance(command, str) else tuple(map(str, command)), path)


def flatten(options: dict[str, Any], where: str, prefix: str = '') -> dict[str, Any]:
    """Nested options as dotted keys: ``dict(a=dict(b=1))`` -> ``{'a.b': 1}``."""
    if not isinstance(options, dict):
        raise ChainError(f'{where}: options={options!r} must be a dict of config keys')
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, where, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat
