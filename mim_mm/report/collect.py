"""Read what a chain left behind: ``chain.json``, one ``run.json`` a run, and the files these name. Nothing else.

Nothing here trusts a file: a damaged or missing ``run.json`` becomes a :class:`Run` whose ``status`` says so, because a
report that dies on the one stage that went wrong hides exactly what its reader came for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mim_mm import files
from mim_mm.report.damage import CHAIN, RUN, RUN_MORE, faults, finite, inside, is_series
from mim_mm.runs import split_current

__all__ = ['Chain', 'Run', 'collect', 'read_scalars']

UNREADABLE = 'unreadable'
MISSING = 'missing'
STATUSES = ('done', 'failed', 'running', 'interrupted', 'skipped', UNREADABLE, MISSING)


@dataclass
class Run:
    """One run of one stage. ``raw`` is what run.json holds; ``error`` says why there is no result, if there is none."""

    name: str
    folder: Path
    stage: str
    kind: str = 'unknown'
    arm: str | None = None
    seed: int | None = None
    status: str = MISSING
    error: str | None = None
    metrics: dict = field(default_factory=dict)
    raw: dict = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.status == 'done'

    def file(self, relative: str | None) -> Path | None:
        """A file named in run.json, looked for from the run's folder, then the chain's; None when it is not there, or
        lies outside of both: a page is passed on, and must not carry what a run.json has only named."""
        return next((path for path in self._named(relative) if inside(path, self.folder, self.folder.parent)), None)

    def _named(self, relative: str | None) -> list[Path]:
        if not isinstance(relative, str) or not relative or '\0' in relative:
            return []
        try:
            return [base / relative for base in (self.folder, self.folder.parent) if (base / relative).is_file()]
        except OSError:  # e.g. a name that is too long
            return []

    @property
    def outside(self) -> list[str]:
        """Names in run.json of files outside of the work dir, which are not read."""
        named = self.raw.get('artifacts')
        names = [self.raw.get('scalars'), *(named.values() if isinstance(named, dict) else ())]
        return [name for name in names if self._named(name) and self.file(name) is None]

    @property
    def scalars(self) -> list[Path]:
        """mmengine's scalar logs, oldest first: run.json names the newest, a resumed run has one for each attempt."""
        newest = self.file(self.raw.get('scalars'))
        if newest is None:
            return []
        attempts = sorted(self.folder.glob('*/vis_data/scalars.json'))
        return attempts if newest in attempts else [newest]

    @property
    def artifacts(self) -> dict:
        """Pictures made after the stage: ``{name: path}``, those that exist."""
        named = self.raw.get('artifacts')
        found = {name: self.file(path) for name, path in named.items()} if isinstance(named, dict) else {}
        return {name: path for name, path in found.items() if path is not None}

    def files(self, base: Path) -> list[tuple[str, str]]:
        """``(name, path relative to base)`` of what a reader may want to open: log, config, run.json, checkpoint."""
        logs = sorted(self.folder.glob('*/*.log')) or sorted(self.folder.glob('*.log'))
        configs = sorted(self.folder.glob('*.py'))
        wanted = [
            ('log', logs[-1] if logs else None),
            ('config', configs[0] if len(configs) == 1 else None),
            ('run.json', self.folder / 'run.json'),
            ('checkpoint', self.file(self.raw.get('checkpoint'))),
        ]
        sound = [(name, path) for name, path in wanted if path and path.is_file() and inside(path, base)]
        return [(name, path.relative_to(base).as_posix()) for name, path in sound if path.is_relative_to(base)]


@dataclass
class Chain:
    """A chain's current runs in the order in which the chain lists its stages, and those that are no longer current."""

    name: str
    folder: Path
    arms: list
    runs: list
    notes: list = field(default_factory=list)
    orderings: list = field(default_factory=list)  # what the chain is to show, as its config says
    controls: list = field(default_factory=list)  # arms that stand as lines in its pictures
    series: list = field(default_factory=list)  # its pictures of figures along a value
    earlier: list = field(default_factory=list)  # superseded or no longer in the chain: no result counts them

    def of(self, kind: str, arm: str | None = None, done: bool = False) -> list:
        """Runs of one kind, optionally of one arm and only finished ones."""
        return [r for r in self.runs if r.kind == kind and (arm is None or r.arm == arm) and (r.done or not done)]


def _load_object(path: Path) -> dict:
    """A JSON object; ValueError names the file and what is wrong with it."""
    content = files.read_json(path, 'a rerun writes it anew')
    if not isinstance(content, dict):
        raise ValueError(f'{path.name} must hold a JSON object, it holds a {type(content).__name__}')
    return content


def _text(value) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return '\n'.join(map(str, value)) if isinstance(value, list) else str(value)


def _numbers(metrics) -> dict:
    """The finite numbers of a metrics object (a bool is no number)."""
    if not isinstance(metrics, dict):
        return {}
    return {k: float(v) for k, v in metrics.items() if finite(v)}


def _wrong(raw: dict, key: str, wanted: dict) -> list[str]:
    return faults({key: raw[key]}, wanted)


def read_run(folder: Path, listed: dict | None = None) -> Run:
    """The run in ``folder``; ``listed`` is what chain.json says about it, used where run.json does not speak."""
    listed = listed or {}
    base = dict(name=folder.name, folder=folder, stage=listed.get('stage') or folder.name)
    base.update(kind=listed.get('kind') or 'unknown', arm=listed.get('arm'), seed=listed.get('seed'))
    path = folder / 'run.json'
    if not path.is_file():
        return Run(**base, status=MISSING, error='this stage has no run.json: it was never started')
    try:
        raw = _load_object(path)
    except ValueError as error:
        return Run(**base, status=UNREADABLE, error=str(error))
    wrong = faults(raw, RUN)
    if wrong:
        # Nothing of a damaged file is shown as if it were a result; the listing in chain.json says whose it was.
        named = {
            key: raw[key] for key in ('stage', 'kind', 'arm', 'seed') if raw.get(key) and not _wrong(raw, key, RUN)
        }
        error = f'run.json is damaged: {"; ".join(wrong)}. A rerun writes it anew'
        return Run(**{**base, **named}, status=UNREADABLE, error=error)
    spare = [key for key in raw if _wrong(raw, key, RUN_MORE)]
    for key in ('stage', 'kind', 'arm', 'seed'):
        value = raw.get(key, base[key])
        base[key] = base[key] if value is None and key in ('stage', 'kind') else value
    status = raw.get('status')
    error = _text(raw.get('error'))
    if spare:
        said = f'run.json is damaged, and what is wrong in it is passed over: {"; ".join(faults(raw, RUN_MORE))}'
        error = f'{error}\n{said}' if error else said
        raw = {key: value for key, value in raw.items() if key not in spare}
    if status not in STATUSES:
        status, error = UNREADABLE, f'run.json has status {status!r}; known are {", ".join(STATUSES[:5])}'
    return Run(**base, status=status, error=error, metrics=_numbers(raw.get('metrics')), raw=raw)


def _listed_runs(chain: dict) -> list[tuple[str, dict]]:
    """(folder name, facts) for every run chain.json promises; accepts stage names alone or objects."""
    listed = []
    for stage in _stages(chain)[0]:
        stage = dict(name=stage) if isinstance(stage, str) else dict(stage)
        name, seeds = stage.get('name'), stage.get('seeds') or []
        facts = dict(stage=stage.get('base') or name, **{key: stage.get(key) for key in ('kind', 'arm', 'seed')})
        if len(seeds) > 1:
            listed += [(f'{name}-s{seed}', dict(facts, seed=seed)) for seed in seeds]
        else:
            listed.append((name, facts))
    return [(name, facts) for name, facts in listed if name]


_STAGE = dict(RUN, name=RUN['stage'], base=RUN['stage'], seeds=CHAIN['arms'])


def _stages(chain: dict) -> tuple[list, list[str]]:
    """The stages of chain.json that are sound, and what is wrong with the others."""
    stages = chain.get('stages') or []
    if isinstance(stages, dict):
        stages = [dict(value, name=name) if isinstance(value, dict) else value for name, value in stages.items()]
    if not isinstance(stages, list):
        return [], ['stages must be a list']
    sound, wrong = [], []
    for place, stage in enumerate(stages, 1):
        found = faults(stage, _STAGE) if isinstance(stage, dict) else [] if isinstance(stage, str) else ['no object']
        name = stage.get('name') if isinstance(stage, dict) else stage
        if not found and isinstance(name, str) and ('/' in name or '\0' in name or name in ('.', '..')):
            found = [f'the name {name!r} is no name of a folder']
        wrong += [f'stage {place}: {text}' for text in found]
        if not found:
            sound.append(stage)
    return sound, wrong


def _list(value) -> list:
    return value if isinstance(value, list) else []


def collect(work_dir: str | Path) -> Chain:
    """Everything a report needs from ``work_dir``.

    Raises FileNotFoundError when there is neither a chain.json nor a run.json: an empty page would look like a result.
    """
    folder = Path(work_dir)
    found = sorted(p.parent.name for p in folder.glob('*/run.json')) if folder.is_dir() else []
    chain, notes = {}, []
    if (folder / 'chain.json').is_file():
        try:
            chain = _load_object(folder / 'chain.json')
        except ValueError as error:
            notes.append(f'{error}. The stages below are those that left a run.json, in alphabetical order.')
    elif found:
        notes.append('There is no chain.json: the stages below are those that left a run.json, in alphabetical order.')
    wrong = faults(chain, CHAIN) + _stages(chain)[1]
    if wrong:
        notes.append(f'chain.json is damaged, and what is wrong in it is passed over: {"; ".join(wrong)}.')
    listed = _listed_runs(chain)
    if not listed and not found:
        raise FileNotFoundError(
            f'{folder} holds no chain.json and no <stage>/run.json, so there is nothing to report; give the work_dir '
            'of a chain that was started with tools/transfer.py'
        )
    facts = dict(listed)
    current, others = split_current(found, facts)
    runs = [read_run(folder / name, facts.get(name)) for name in current]
    earlier = [read_run(folder / name) for name in others]
    seen = [run.arm for run in runs if run.arm]
    arms = [arm for arm in _list(chain.get('arms')) if isinstance(arm, str)]
    arms += [arm for arm in dict.fromkeys(seen) if arm not in arms]
    name = str(chain.get('name') or folder.name)
    orderings = [item for item in _list(chain.get('orderings')) if isinstance(item, dict)]
    controls = [arm for arm in _list(chain.get('controls')) if isinstance(arm, str)]
    series = [item for item in _list(chain.get('series')) if is_series(item)]
    shown = dict(orderings=orderings, controls=controls, series=series)
    return Chain(name=name, folder=folder, arms=arms, runs=runs, notes=notes, earlier=earlier, **shown)


def read_scalars(paths: list[Path]) -> dict:
    """mmengine's ``scalars.json`` files (one JSON object a line), oldest first: ``{key: ([step, ...], [value, ...])}``.

    ``step`` is the iteration in training lines. Validation lines carry mmengine's own step (epoch in epoch-based runs).
    A resumed run writes some steps twice: the later line wins, and what an attempt did beyond the step from which the
    next one went on (its line ``resumed_from``) was lost. Lines cut off by a kill are passed over.
    """
    series: dict[str, dict] = {}
    for row in (row for path in paths for row in files.read_rows(path)):
        step = row.pop('step', row.get('iter'))
        if not finite(step):
            continue
        if finite(row.get('resumed_from')):
            step = row.pop('resumed_from')
            series = {key: {s: v for s, v in points.items() if s <= step} for key, points in series.items()}
        for key, value in row.items():
            # A loss that is NaN is a gap of its curve.
            if key not in ('step', 'iter') and (finite(value) or isinstance(value, float)):
                series.setdefault(key, {})[step] = float(value)
    found = {key: points for key, points in series.items() if points}
    return {key: (sorted(points), [points[s] for s in sorted(points)]) for key, points in found.items()}
