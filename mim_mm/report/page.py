"""Put the page together: ``report.html`` and ``report.md`` in the chain's work dir, pictures in ``report/``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from mim_mm import files
from mim_mm.report.collect import MISSING, Chain, Run, collect
from mim_mm.report.comparison import comparison_blocks, read_comparison
from mim_mm.report.document import Cell, Fold, Heading, Picture, Pre, Table, Text, to_markdown
from mim_mm.report.figures import draw_curves
from mim_mm.report.figures_orderings import ordering_pictures
from mim_mm.report.figures_quality import quality_curves
from mim_mm.report.headline import arms_table, from_scratch_blocks
from mim_mm.report.html_page import to_html
from mim_mm.report.orderings import ordering_blocks
from mim_mm.report.tables import (
    PASS,
    duration,
    earlier_table,
    floors_table,
    protocol_notes,
    runs_table,
)
from mim_mm.report.tables_classes import class_blocks
from mim_mm.report.tables_probe import probe_table

__all__ = ['build_blocks', 'write_report']

CAPTIONS = {
    'reconstruction': 'Original, what each part sees, what each part makes of the rest, and where the parts disagree.',
    'detections': 'Held-out scenes: what the detector finds, and the truth.',
    'segments': 'Held-out images: the image, the predicted classes, and the truth (black: not labelled).',
}


def _instant(text) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text).replace('Z', '+00:00'))
    except ValueError:
        return None


def _distinct(values) -> list[str]:
    """Different non-empty values as text, in order of appearance; dicts as ``name value, name value``."""
    texts = []
    for value in values:
        if isinstance(value, dict):
            value = ', '.join(f'{k} {v}' for k, v in value.items() if not isinstance(v, list))
        if value not in (None, '', [], {}) and str(value) not in texts:
            texts.append(str(value))
    return texts


def _data(run: Run) -> list[str]:
    """What a run read, a line an entry: ``train/train2017 (2400 files, sha256 e530b669)``."""
    lines = []
    data = run.raw.get('data')
    for name, facts in data.items() if isinstance(data, dict) else ():
        if not isinstance(facts, dict):
            lines.append(f'{name} {facts}')
            continue
        files = f'{facts["files"]} files, ' if 'files' in facts else ''
        lines.append(f'{name} ({files}sha256 {str(facts.get("sha256"))[:8]})')
    return lines


def _own_code(run: Run) -> list[str]:
    """Modules of the user's that a run's config brought in: ``my_masks.py (my_masks, sha256 e530b669)``."""
    code = run.raw.get('code')
    facts = {name: each for name, each in code.items() if isinstance(each, dict)} if isinstance(code, dict) else {}
    return [f'{Path(str(f.get("file"))).name} ({m}, sha256 {str(f.get("sha256"))[:8]})' for m, f in facts.items()]


def _elapsed(chain: Chain) -> str:
    """First start to last end of the runs that were not the report itself."""
    runs = [run for run in chain.runs if run.kind != 'report']
    starts = [t for t in (_instant(run.raw.get('started')) for run in runs) if t]
    ends = [t for t in (_instant(run.raw.get('finished')) for run in runs) if t]
    busy = sum(run.raw['wall_s'] for run in runs if isinstance(run.raw.get('wall_s'), (int, float)))
    text = f'{duration(busy)} of runs'
    try:
        return f'{text}; {duration((max(ends) - min(starts)).total_seconds())} from the first start to the last end'
    except (TypeError, ValueError):  # no times at all, or some with and some without a zone
        return text


def _trained(chain: Chain) -> list[Run]:
    """The runs of the chain's own: not the report, nor a stage whose place a given checkpoint takes."""
    given = [run for run in chain.runs if run.status == 'skipped' and run.raw.get('checkpoint')]
    return [run for run in chain.runs if run.kind != 'report' and run not in given]


def _what_ran(chain: Chain) -> list:
    runs = _trained(chain)
    done = sum(run.done for run in runs)
    others = {}
    for run in runs:
        if not run.done:
            others[run.status] = others.get(run.status, 0) + 1
    rest = ''.join(f', {count} {status}' for status, count in others.items())
    git = [run.raw.get('git') or {} for run in runs if run.raw.get('git')]
    states = [' with uncommitted changes' if g.get('dirty') else ', clean' for g in git]
    commits = [f'{str(g.get("commit"))[:12]}{state}' for g, state in zip(git, states)]
    own = _distinct(line for run in runs for line in _own_code(run))
    seeds = _distinct(run.raw.get('seeds') or ('' if run.seed is None else f'seed {run.seed}') for run in runs)
    facts = [
        ('Runs', [f'{done} of {len(runs)} done{rest}']),
        ('Hardware', _distinct(run.raw.get('device') for run in runs)),
        ('Time', [_elapsed(chain)]),
        ('Seeds', seeds),
        ('Code', _distinct(commits)),
        *([('Your own code', own)] if own else []),
        ('Data', _distinct(line for run in runs for line in _data(run))),
        ('Versions', _distinct(run.raw.get('versions') for run in runs)),
    ]
    rows = [[Cell(name, 'quiet'), Cell('; '.join(values) or 'not recorded')] for name, values in facts]
    blocks = [Table(['fact', 'value'], rows, numeric=False)]
    if len(set(commits)) > 1:
        blocks.append(Text('The runs of this chain were made with different states of the code.', 'bad'))
    return blocks


def _pictures(chain: Chain) -> list:
    blocks = []
    for run in chain.runs:
        for name, path in run.artifacts.items():
            if path.suffix.lower() in ('.png', '.jpg', '.jpeg'):
                caption = next((text for key, text in CAPTIONS.items() if key in name), name)
                blocks.append(Picture(path, f'{caption} (`{run.name}`)'))
    return [Heading('Pictures'), *blocks] if blocks else []


def _problems(chain: Chain) -> list:
    blocks = []
    never = [run.name for run in _trained(chain) if run.status == MISSING]
    if never:
        names = ', '.join(f'`{name}`' for name in never)
        blocks.append(Text(f'never started, so that there is no run.json: {names}', 'bad'))
    for run in chain.runs:
        if run.name in never:
            continue
        if not run.done and run in _trained(chain):
            blocks += [Text(f'`{run.name}`: {run.status}', 'bad'), Pre(run.error or 'no error was recorded')]
            continue
        for name in run.outside:
            blocks.append(Text(f'`{run.name}`: run.json names {name!r} outside of the work dir: not read', 'bad'))
        failed = run.raw.get('artifact_errors')
        for name, error in failed.items() if isinstance(failed, dict) else ():
            blocks += [Text(f'`{run.name}`: the result stands, but {name} could not be made', 'bad'), Pre(str(error))]
        if run.done and run.error:
            blocks += [Text(f'`{run.name}`: done, with a note'), Pre(run.error)]
    return [Heading('What went wrong'), *blocks] if blocks else []


def _headline(chain: Chain) -> Text:
    """The page in a line: how many runs are done, and how many floors hold."""
    runs = _trained(chain)
    done = sum(run.done for run in runs)
    text, bad = f'{done} of {len(runs)} runs done', done < len(runs)
    floors = floors_table(chain)
    if floors:
        passed = sum(row[-1].text == PASS for row in floors.rows)
        text, bad = f'{text}; {passed} of {len(floors.rows)} floors reached', bad or passed < len(floors.rows)
    return Text(f'{text}. Written {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC.', 'bad' if bad else 'quiet')


def _result(chain: Chain) -> list:
    blocks = [Heading('Result'), arms_table(chain), *from_scratch_blocks(chain)]
    floors = floors_table(chain)
    if floors:
        blocks += [Heading('Floors'), floors]
    notes = protocol_notes(chain)
    if notes:
        summary = f'What differs from the published protocol, in {len(notes)} points'
        blocks += [Heading('Beside the published numbers'), Fold(summary, tuple(map(Text, notes)))]
    return blocks


def _curves(chain: Chain, figures: Path) -> list:
    curves = [Picture(path, caption, alt) for path, caption, alt in draw_curves(chain, figures)]
    curves += [Picture(path, caption) for path, caption in quality_curves(chain, figures)]
    return [Heading('Curves'), *curves] if curves else []


def _arms(chain: Chain, figures: Path) -> list:
    return [Picture(path, caption) for path, caption in ordering_pictures(chain, figures)]


def _earlier(chain: Chain) -> list:
    earlier = earlier_table(chain)
    return [Heading('Earlier runs'), earlier] if earlier else []


def _part(what: str, reads: str, make: Callable[[], list]) -> list:
    """A part of the page, or why it is not there: one damaged file must not hide what the others say."""
    try:
        return make()
    except Exception as error:  # what a file of anything leads to cannot be listed; what is known is said before
        why = f'{type(error).__name__}: {str(error)[:200]}'
        return [Text(f'{what} could not be made, since one of its files ({reads}) is damaged: {why}', 'bad')]


def build_blocks(chain: Chain, figures: Path) -> list:
    """All blocks of the page; draws the curves into ``figures``. Never raises for what is in a file."""
    comparison = read_comparison(chain)
    parts = [_part('The headline', 'run.json', lambda: [_headline(chain)])]
    parts.append([Text(note, 'bad') for note in chain.notes])
    if comparison:
        made = _part('The comparison', 'compare.json', lambda: comparison_blocks(chain, comparison, figures))
        parts.append(made)
    else:
        parts.append(_part('The result', 'run.json, identity.json', lambda: _result(chain)))
    parts += [
        _part('Orderings', 'chain.json', lambda: [*ordering_blocks(chain), *_arms(chain, figures)]),
        _part('The quick probe', 'run.json, knn.json', lambda: [*filter(None, [probe_table(chain)])]),
        _part('What ran', 'run.json', lambda: [Heading('What ran'), *_what_ran(chain)]),
        _part('What went wrong', 'run.json', lambda: _problems(chain)),
        _part('Pictures', 'run.json', lambda: _pictures(chain)),
        _part('Curves', 'scalars.json, quality.jsonl', lambda: _curves(chain, figures)),
        _part('What there is by class', 'confusion.json, per_class.json', lambda: class_blocks(chain, figures)),
        _part('Runs', 'run.json', lambda: [Heading('Runs'), runs_table(chain)]),
        _part('Earlier runs', 'run.json', lambda: _earlier(chain)),
    ]
    return [block for part in parts for block in part]


def write_report(work_dir: str | Path) -> tuple[Path, Path]:
    """Write and return (report.html, report.md). FileNotFoundError when there is nothing to report (see collect)."""
    chain = collect(work_dir)
    blocks = build_blocks(chain, chain.folder / 'report')
    title = f'{chain.name}: pretraining and transfer'
    page, markdown = chain.folder / 'report.html', chain.folder / 'report.md'
    # Names may be any bytes, and JSON may hold halves of letters, which UTF-8 does not.
    plain = dict(sync=False, errors='backslashreplace')
    files.write_text(page, to_html(title, blocks), **plain)
    files.write_text(markdown, to_markdown(title, blocks, chain.folder), **plain)
    return page, markdown
