"""The part of the page that compares arms: figures with their spread, what may be concluded, what was the same and what
was not, and each figure beside the published one. Reads ``compare.json`` and the run.json files."""

from __future__ import annotations

import json
from pathlib import Path

from mim_mm.report.collect import Chain
from mim_mm.report.comparison_data import SCRATCH, columns, read_comparison, runs_of
from mim_mm.report.comparison_published import encoder_blocks, published_table
from mim_mm.report.document import Cell, Heading, Picture, Table, Text
from mim_mm.report.figures_compare import draw_comparison
from mim_mm.report.headline import interval_note
from mim_mm.report.intervals import CONFIDENCE, RULE, paired, spread, verdict
from mim_mm.report.published import SOURCES
from mim_mm.report.tables import from_configs

__all__ = ['comparison_blocks', 'evidence', 'read_comparison']

MINUS = '−'


def result_table(chain: Chain, content: dict) -> Table:
    """One row an arm: mean, spread and n of every figure."""
    used = columns(chain, content)
    rows = []
    for arm in content['arms']:
        cells = []
        for name, _, _, values in used:
            due = len(content['recipes'][name]['seeds'])
            text = spread(values[arm].values())
            short = len(values[arm]) < due
            text += f'; {len(values[arm])} of {due} runs' if short else ''
            cells.append(Cell(text, 'bad' if short else 'strong', interval_note(values[arm].values())))
        rows.append([Cell(arm, 'strong'), *cells])
    caption = 'Per cent. Mean ± sample standard deviation over seeds, below it the t interval of the mean. '
    caption += 'In the linear probe, scratch is a random encoder.'
    return Table(['arm', *(title for _, _, title, _ in used)], rows, caption)


def _seeds_note(content: dict) -> Text:
    few = [f'{n} ({len(r["seeds"])})' for n, r in content['recipes'].items() if len(r['seeds']) < 3]
    text = f'With fewer than 3 seeds, so never judged: {", ".join(few)}. ' if few else ''
    single = [arm for arm, facts in content['arms'].items() if arm != SCRATCH and len(facts.get('seeds') or []) < 2]
    if single:
        text += (
            f'Each of {", ".join(single)} is one pretraining run: the spread is that of the downstream seeds, and says '
            'nothing about pretraining again with another seed.'
        )
    return Text(text or 'Downstream run s starts from the pretraining run of the same seed.')


def differences_table(chain: Chain, content: dict) -> Table:
    """Every pair of arms: mean difference, paired interval, and what may be said."""
    arms = list(content['arms'])
    wrong = {
        name: [f for f, text in evidence(chain, content, name).items() if text not in FAIR and f in DECISIVE]
        for name in content['recipes']
    }
    rows = []
    for name, _, title, values in columns(chain, content):
        for i, a in enumerate(arms):
            for b in arms[i + 1 :]:
                pair = paired(values[a], values[b])
                said = verdict(pair, a, b)
                if wrong[name]:
                    said = f'not judged: the runs differ in {", ".join(wrong[name])}'
                interval = '–' if pair.low is None else f'{_signed(pair.low)} to {_signed(pair.high)}'
                state = 'strong' if said.endswith('better') else 'quiet'
                cells = [Cell(title), Cell(f'{a} {MINUS} {b}'), Cell('–' if pair.mean is None else _signed(pair.mean))]
                rows.append([*cells, Cell(interval), Cell(str(pair.n)), Cell(said, state)])
    head = ['figure', 'arms', 'difference', f'{CONFIDENCE:.0%} interval', 'seeds', 'what may be said']
    return Table(head, rows, 'Points, paired by seed.', numeric=False)


def _signed(value: float) -> str:
    return f'{value:+.1f}'.replace('-', MINUS)


# ---- what was the same

DECISIVE = ('recipe', 'training data', 'test data', 'number of devices')
FAIR = ('same', 'differs as allowed', '–')


def evidence(chain: Chain, content: dict, name: str) -> dict:
    """What the finished runs of a recipe recorded of themselves: ``{'recipe': 'same', 'test data': ...}``."""
    recipe = content['recipes'][name]
    runs = [run for base in recipe['stages'].values() for run in runs_of(chain, base) if run.done]
    allowed = any(item['recipe'] == name for item in content.get('allowed') or [])
    facts = {
        'recipe': {run.seed: set() for run in runs},
        'training data': set(),
        'test data': set(),
        'number of devices': {run.raw.get('gpus') for run in runs},
        'device': {run.raw.get('device') for run in runs},
        'code': {str(run.raw.get('git')) for run in runs},
        'versions': {json.dumps(run.raw.get('versions'), sort_keys=True) for run in runs},
    }
    for run in runs:
        facts['recipe'][run.seed].add((run.raw.get('config') or {}).get('sha256'))
        for loop, fact in (('train', 'training data'), ('val', 'test data')):
            data = run.raw.get('data')
            data = data if isinstance(data, dict) else {}
            mine = {label: part for label, part in data.items() if label.split('/')[0] == loop}
            facts[fact].add(json.dumps(mine, sort_keys=True))
    most = {
        fact: max(map(len, found.values()), default=0) if isinstance(found, dict) else len(found)
        for fact, found in facts.items()
    }
    words = {fact: 'same' if count == 1 else f'{count} different' if count else '–' for fact, count in most.items()}
    if words['recipe'] not in FAIR and allowed:
        words['recipe'] = 'differs as allowed'
    return words


def evidence_blocks(chain: Chain, content: dict) -> list:
    found = {name: evidence(chain, content, name) for name in content['recipes']}
    facts = list(next(iter(found.values())))
    rows = []
    for name, words in found.items():
        seeds = ', '.join(map(str, content['recipes'][name]['seeds']))
        cells = [Cell(words[f], 'bad' if words[f] not in FAIR else 'good' if words[f] == 'same' else '') for f in facts]
        rows.append([Cell(name, 'strong'), Cell(seeds), *cells])
    caption = (
        'From the run.json files of all arms: hash of the resolved recipe, seed by seed (it leaves out the encoder '
        'alone), files and hashes of the data.'
    )
    blocks = [Table(['recipe', 'seeds of every arm', *facts], rows, caption, numeric=False)]
    for name, recipe in content['recipes'].items():
        changed = ', '.join(f'{key}={value}' for key, value in recipe['options'].items())
        path = from_configs(recipe['config'])
        if changed:
            blocks.append(Text(f'`{name}` is `{path}` with {changed}, for every arm.'))
    for item in content.get('allowed') or []:
        text = f'`{item["recipe"]}`: {item["against"]} and {item["arm"]} were trained differently, as the chain allows'
        blocks.append(Text(f'{text}: {"; ".join(item["differences"])}', 'bad'))
    return blocks


# ---- all of it


def comparison_blocks(chain: Chain, content: dict, figures: Path) -> list:
    """The blocks of the page that stand where an ordinary chain has its result; draws one figure into ``figures``."""
    blocks = [Heading('Result'), result_table(chain, content), _seeds_note(content)]
    picture = draw_comparison(columns(chain, content), figures / 'comparison.png')
    if picture:
        caption = 'One point a run, a grey line through the runs of a seed; bar: mean, whiskers: ± s.'
        blocks.append(Picture(picture, caption))
    blocks += [Heading('Differences between the arms'), Text(RULE), differences_table(chain, content)]
    blocks += [Heading('What was the same'), *evidence_blocks(chain, content)]
    blocks += [Heading('The encoders'), *encoder_blocks(chain, content)]
    table = published_table(chain, content)
    if table:
        sources = '; '.join(f'{key}: {text}' for key, text in SOURCES.items())
        blocks += [Heading('Beside the published figures'), table, Text(f'Sources: {sources}.', 'quiet')]
    return blocks
