"""The numbers of a chain as tables: both arms, the acceptance floors, published results beside them, provenance."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev

from mim_mm.recipe_facts import downstream, totals
from mim_mm.report.collect import Chain, Run
from mim_mm.report.document import Cell, Table
from mim_mm.report.published import (
    SOURCES,
    known_data,
    matching_rows,
    protocol_differences,
    segmentation_rows,
    wanted_data,
)
from mim_mm.report.recipe import pretrainings, resolved
from mim_mm.runs import superseded

__all__ = [
    'FLOORS',
    'METRICS',
    'Summary',
    'earlier_table',
    'floors_table',
    'metric_of',
    'runs_table',
    'published_entries',
    'summarise',
]


@dataclass(frozen=True)
class Metric:
    """One column: ``key`` is the name in run.json, ``factor`` takes it to per cent (mmdet's AP is 0..1)."""

    name: str
    title: str
    kind: str
    key: str
    factor: float


METRICS = (
    Metric('probe_top1', 'Quick probe top-1', 'probe', 'accuracy/top1', 1.0),
    Metric('linear_top1', 'Linear top-1', 'linear', 'accuracy/top1', 1.0),
    Metric('finetune_top1', 'Fine-tune top-1', 'finetune', 'accuracy/top1', 1.0),
    Metric('bbox_mAP', 'Box AP', 'coco', 'coco/bbox_mAP', 100.0),
    Metric('bbox_mAP_50', 'AP50', 'coco', 'coco/bbox_mAP_50', 100.0),
    Metric('bbox_mAP_75', 'AP75', 'coco', 'coco/bbox_mAP_75', 100.0),
    Metric('segm_mAP', 'Mask AP', 'coco', 'coco/segm_mAP', 100.0),
    Metric('segm_mAP_50', 'AP50', 'coco', 'coco/segm_mAP_50', 100.0),
    Metric('segm_mAP_75', 'AP75', 'coco', 'coco/segm_mAP_75', 100.0),
    Metric('mIoU', 'UperNet mIoU', 'seg', 'mIoU', 1.0),
    Metric('linear_mIoU', 'Linear mIoU', 'seg_linear', 'mIoU', 1.0),
)
PASS = 'pass'
HEADLINE = ('probe_top1', 'linear_top1', 'finetune_top1', 'bbox_mAP', 'segm_mAP', 'mIoU', 'linear_mIoU')
_BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Floor:
    """A value every listed arm must reach, or (``over`` given) by how many points ``arms[0]`` must exceed ``over``."""

    text: str
    metric: str
    minimum: float
    arms: tuple
    over: str | None = None
    seeds: int = 1


FLOORS = {
    'demo': (
        Floor('Box AP of both arms', 'bbox_mAP', 50.0, ('emae', 'scratch')),
        Floor('Mask AP of both arms', 'segm_mAP', 50.0, ('emae', 'scratch')),
        Floor('Linear top-1, EMAE over the random encoder', 'linear_top1', 5.0, ('emae',), over='scratch', seeds=3),
    ),
}


@dataclass(frozen=True)
class Summary:
    """Mean and sample deviation (n - 1; None for n < 2) of ``values`` in per cent, out of ``expected`` runs."""

    values: tuple
    expected: int
    states: tuple = ()

    @property
    def mean(self) -> float | None:
        return mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        return stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if not self.values:
            return ', '.join(dict.fromkeys(self.states)) or 'not run'
        text = f'{self.mean:.1f}' + (f' ± {self.std:.1f}' if self.std is not None else '')
        if len(self.values) < self.expected:
            text += f' ({len(self.values)} of {self.expected} runs)'
        return text


def metric_of(run: Run, metric: Metric) -> float | None:
    """The metric of one finished run in per cent; None when absent or -1 (COCO's mark for "nothing to measure")."""
    value = run.metrics.get(metric.key) if run.done else None
    return None if value is None or value < 0 or value != value else value * metric.factor


def summarise(chain: Chain, metric: Metric, arm: str) -> Summary:
    """All runs of the metric's kind in one arm, as one :class:`Summary`."""
    runs = chain.of(metric.kind, arm)
    values = tuple(v for v in (metric_of(run, metric) for run in runs) if v is not None)
    states = tuple('no such metric' if run.done else run.status for run in runs if metric_of(run, metric) is None)
    return Summary(values, len(runs), states)


def published_entries(chain: Chain) -> list[tuple[str | None, dict]]:
    """``(arm, entry)`` of what was published for the pretrainings of a chain, each once, theirs before the others'."""
    found: dict[tuple, tuple] = {}
    for arm, facts in pretrainings(chain):
        extra = segmentation_rows(facts) if chain.of('seg') or chain.of('seg_linear') else []
        for entry in matching_rows(facts) + extra:
            key = entry['label'], entry['source']
            if key not in found or (entry['own'] and not found[key][1]['own']):
                found[key] = arm, entry
    return sorted(found.values(), key=lambda item: not item[1]['own'])


def protocol_notes(chain: Chain) -> list[str]:
    """What stands between these numbers and the published ones; empty when none are shown."""
    entries = published_entries(chain)
    if not entries:
        return []
    names = dict.fromkeys(entry['source'] for _, entry in entries)
    sources = ', '.join(f'{name}: {SOURCES.get(name, name)}' for name in names)
    notes = [
        f'Published rows ({sources}) are for ImageNet-1k and COCO 2017, chosen by the facts of the pretraining (method,'
        ' mask, encoder, epochs, settings), whatever its file is called. The supervised row stands for the arm from '
        'scratch.',
    ]
    own = [(arm, entry) for arm, entry in entries if entry['own']]
    notes += dict.fromkeys(note for arm, entry in own for note in _other_protocols(chain, arm, entry))
    for run in chain.runs:
        options = (run.raw.get('config') or {}).get('options') or {}
        options = {k: v for k, v in options.items() if not _harmless(k)}
        if options and run.kind != 'report':
            changed = ', '.join(f'{k}={v}' for k, v in options.items())
            notes.append(f'`{run.name}` changed its recipe ({changed}): not comparable with the published row.')
        wanted = next((wanted_data(metric.name) for metric in METRICS if metric.kind == run.kind), None)
        if run.done and wanted and known_data(run.raw.get('data'))['test'] != wanted:
            notes.append(f'`{run.name}` was not tested on {wanted}: not comparable with the published row.')
        progress = run.raw.get('progress') or {}
        reached, planned = progress.get('iter'), progress.get('max_iters')
        if run.done and isinstance(reached, int) and isinstance(planned, int) and reached < planned:
            notes.append(f'`{run.name}` stopped at iteration {reached} of {planned}.')
    return notes


def _other_protocols(chain: Chain, arm: str | None, entry: dict) -> list[str]:
    """Where the downstream runs of an arm were not made as the published row says that its figures were."""
    notes = []
    for run in chain.runs:
        names = [metric.name for metric in METRICS if metric.kind == run.kind and metric.name in HEADLINE]
        row = next((entry['rows'][name] for name in names if name in entry['rows']), None)
        config = resolved(run) if row and run.arm == arm else None
        if not config:
            continue
        facts, gpus = downstream(config), run.raw.get('gpus')
        batch, epochs = totals(facts, gpus, known_data(run.raw.get('data'))['images'])
        ours = dict(epochs=epochs, batch=batch, resolution=facts['resolution'], head=facts['head'])
        differs, _ = protocol_differences({key: value for key, value in ours.items() if value is not None}, row)
        differs += [facts['tuned']] if facts['tuned'] else []  # every published figure is of all blocks
        if differs:
            name = run.stage.removesuffix(f'-s{run.seed}')
            notes.append(f'`{name}` is not the protocol of {entry["label"]}: {"; ".join(differs)}.')
    return notes


def _harmless(option: str) -> bool:
    """Options that say where things lie or how they are logged, not what is learned."""
    return option == 'init' or option.startswith(
        ('custom_hooks.0.checkpoint', 'work_dir', 'data_root', 'default_hooks.logger', 'log_')
    )


def floors_table(chain: Chain) -> Table | None:
    """Measured value, floor and verdict for chains that have floors; None for the others."""
    rows = []
    for floor in FLOORS.get(chain.name, ()):
        metric = _BY_NAME[floor.metric]
        found = {arm: summarise(chain, metric, arm) for arm in (*floor.arms, *filter(None, [floor.over]))}
        text = ', '.join(f'{arm} {summary}' for arm, summary in found.items())
        enough = all(len(s.values) >= max(floor.seeds, s.expected) for s in found.values())
        if not enough:
            verdict = Cell('not measured', 'bad')
            measured = None
        elif floor.over:
            measured = found[floor.arms[0]].mean - found[floor.over].mean
            text += f'; difference {measured:+.1f}'
        else:
            measured = min(s.mean for s in found.values())
        if measured is not None:
            passed = measured >= floor.minimum
            verdict = Cell(PASS if passed else 'FAIL', 'good' if passed else 'bad')
        wanted = f'{"+" if floor.over else ""}{floor.minimum:.1f}'
        rows.append([Cell(floor.text), Cell(f'at least {wanted}'), Cell(text), verdict])
    if not rows:
        return None
    return Table(['floor', 'wanted', 'measured', 'verdict'], rows, 'Computed from the runs below.', numeric=False)


def duration(seconds) -> str:
    """``75.2`` -> ``1 min 15 s``; a dash for what is not a number."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        return '–'
    seconds = int(round(seconds))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f'{hours} h {minutes:02d} min'
    return f'{minutes} min {seconds % 60:02d} s' if minutes else f'{seconds} s'


def from_configs(path) -> str:
    """A config's path without what lies above ``configs/`` (the place of the checkout tells nobody anything)."""
    return 'configs/' + str(path).rsplit('/configs/', 1)[1] if '/configs/' in str(path) else str(path or '–')


def _short(sha) -> str:
    return str(sha)[:8] if sha else '–'


def _result(run: Run) -> str:
    used = [m for m in METRICS if m.kind == run.kind and m.name in HEADLINE and metric_of(run, m) is not None]
    return ', '.join(f'{m.title} {metric_of(run, m):.1f}' for m in used) or '–'


def earlier_table(chain: Chain) -> Table | None:
    """Runs that lie in the work dir and are no longer current; None without any."""
    rows = []
    for run in chain.earlier:
        by = superseded(run.name)
        why = f'superseded by {by}' if by else 'not in the chain any more'
        cells = (run.name, why, run.status, str(run.raw.get('finished') or '–'), _result(run))
        rows.append([Cell(text, 'quiet') for text in cells])
    caption = 'They lie in the work dir and count nowhere above; tools/runs.py lists and deletes what was superseded.'
    head = ['run', 'why', 'status', 'finished', 'result then']
    return Table(head, rows, caption, numeric=False, small=True) if rows else None


def _time(run: Run) -> Cell:
    took = run.raw.get('wall_s')
    return Cell(duration(took), key=took if isinstance(took, (int, float)) else None)


def runs_table(chain: Chain) -> Table:
    """One row a run: state, time, result, and where it came from."""
    rows = []
    for run in chain.runs:
        config, parent, git = (run.raw.get(key) or {} for key in ('config', 'parent', 'git'))
        config_text = f'{from_configs(config.get("path"))} ({_short(config.get("sha256"))})' if config else '–'
        parent_text = f'{parent.get("stage")} ({_short(parent.get("sha256"))})' if parent else '–'
        commit = _short(git.get('commit')) + (' + changes' if git.get('dirty') else '')
        state = 'good' if run.done else 'quiet' if run.kind == 'report' else 'bad'
        status = 'this page' if run.kind == 'report' and run.status == 'running' else run.status
        cells = (run.name, run.kind, run.arm or '–', '–' if run.seed is None else str(run.seed))
        row = [*map(Cell, cells), Cell(status, state), _time(run), Cell(_result(run))]
        row += (Cell(text, 'quiet') for text in (config_text, parent_text, commit))
        rows.append([*row, Cell('', files=tuple(run.files(chain.folder)))])
    head = ['run', 'kind', 'arm', 'seed', 'status', 'time', 'result', 'config (sha256)', 'encoder (sha256)', 'commit']
    caption = (
        'Every run with its provenance, from the run.json files. The files open while the page lies in its work dir.'
    )
    return Table([*head, 'files'], rows, caption, numeric=False, small=True)
