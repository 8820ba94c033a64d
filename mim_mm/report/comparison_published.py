"""The encoders of a comparison, and each of its figures beside the published one with what differs."""

from __future__ import annotations

from pathlib import Path

from mim_mm.recipe_facts import totals
from mim_mm.report.collect import Chain
from mim_mm.report.comparison_data import SCRATCH, columns, runs_of
from mim_mm.report.document import Cell, Table, Text
from mim_mm.report.intervals import spread
from mim_mm.report.published import beside, known_data, protocol_differences, wanted_data
from mim_mm.report.tables import METRICS, Metric, from_configs

__all__ = ['encoder_blocks', 'encoder_facts', 'our_protocol', 'published_table']


def encoder_facts(chain: Chain, content: dict, arm: str) -> dict:
    """What is known of an arm's encoder and pretraining, by name; None where nothing is."""
    facts = content['arms'][arm]
    run = next((r for r in chain.runs if r.name == facts.get('stage') and r.done), None)
    data = (run.raw.get('data') if run else None) or facts.get('data')
    known = known_data(data)
    pretraining, encoder = facts.get('pretraining') or {}, facts.get('encoder') or {}
    gpus = run.raw.get('gpus') if run else facts.get('gpus')
    batch, epochs = totals(pretraining, gpus, known['images'])
    views = pretraining.get('views')
    labels = 'no' if facts.get('source') == 'config' else 'yes, by its name' if arm.startswith('supervised') else None
    return {
        'method': pretraining.get('method'),
        'labels': labels,
        'mask': pretraining.get('mask_variant'),
        'encoder': encoder.get('name'),
        'parameters': encoder.get('parameters'),
        'input (px)': encoder.get('img_size'),
        'epochs': epochs,
        'views an image (K)': views,
        'effective epochs': round(epochs * views, 1) if epochs is not None and views else None,
        'batch': batch,
        'pretraining data': known['train'],
    }


def encoder_blocks(chain: Chain, content: dict) -> list:
    arms = [arm for arm in content['arms'] if arm != SCRATCH]
    found = {arm: encoder_facts(chain, content, arm) for arm in arms}
    names = list(next(iter(found.values())))
    rows = []
    for arm, facts in found.items():
        where = content['arms'][arm]
        path = where['path']
        origin = f'{Path(path).name} (sha256 {str(where.get("sha256"))[:8]})'
        origin = from_configs(path) if where['source'] == 'config' else origin
        texts = [_shown(facts[name]) for name in names]
        rows.append([Cell(arm, 'strong'), Cell(origin, 'quiet'), *map(Cell, texts)])
    caption = 'Effective epochs: epochs × K, so often was an image encoded. A checkpoint alone does not tell all of it.'
    blocks = [Table(['arm', 'from', *names], rows, caption, numeric=False, small=True)]
    differ = [n for n in names if len({str(facts[n]) for facts in found.values()}) > 1]
    if differ:
        lines = [f'{name}: ' + ', '.join(f'{arm} {_shown(found[arm][name])}' for arm in arms) for name in differ]
        blocks.append(Text('The pretrained arms differ in ' + '; '.join(lines) + '.'))
    else:
        blocks.append(Text('The pretrained arms do not differ in any of these.'))
    return blocks


def _shown(value) -> str:
    if value is None:
        return 'not known'
    return f'{value:,}' if isinstance(value, int) and value >= 10**5 else str(value)


# ---- beside the published figures


def published_table(chain: Chain, content: dict) -> Table | Text | None:
    """One row an arm and figure; a published figure for other test data is named, never placed beside ours.

    A sentence when nothing is published for any of them, None when there is no figure that could be.
    """
    rows = []
    for name, metric, title, values in columns(chain, content):
        if metric not in METRICS:
            continue
        for arm in content['arms']:
            if values[arm]:
                ours = [Cell(arm, 'strong'), Cell(title), Cell(spread(values[arm].values()))]
                rows.append(ours + _published_cells(chain, content, name, arm, metric, len(values[arm])))
    if rows and all(row[3].text == '–' for row in rows):
        return Text('Our table has no published figure for these methods on encoders of these sizes.')
    head = ['arm', 'figure', 'here', 'published', 'what was published', 'differences', 'not stated by the sources']
    caption = 'Differences are computed from the resolved configs and run.json files against the fields of the table.'
    return Table(head, rows, caption, numeric=False, small=True) if rows else None


def our_protocol(chain: Chain, content: dict, name: str, arm: str, seeds: int) -> dict:
    """Our side of :func:`protocol_differences` for one arm and recipe."""
    recipe = content['recipes'][name]
    run = next((r for r in runs_of(chain, recipe['stages'][arm]) if r.done), None)
    data = known_data(run.raw.get('data') if run else None)
    facts = recipe['facts']
    batch, epochs = totals(facts, run.raw.get('gpus') if run else None, data['images'])
    ours = dict(test_data=data['test'], epochs=epochs, batch=batch, seeds=seeds)
    ours.update(resolution=facts.get('resolution'), head=facts.get('head'))
    if arm != SCRATCH:
        encoder = encoder_facts(chain, content, arm)
        ours.update(pretrain_data=encoder['pretraining data'], pretrain_epochs=encoder['epochs'])
        ours.update(mask_variant=encoder['mask'])
    return ours


def _published_cells(chain: Chain, content: dict, name: str, arm: str, metric: Metric, seeds: int) -> list[Cell]:
    facts, recipe = content['arms'][arm], content['recipes'][name]
    known = facts.get('pretraining') or {}
    method = SCRATCH if arm == SCRATCH else known.get('method') or arm  # a bare checkpoint goes by its arm's name
    backbone = (facts.get('encoder') or {}).get('name') or recipe['facts'].get('encoder')
    ours = our_protocol(chain, content, name, arm, seeds)
    row = beside(metric.name, method, backbone, ours.get('mask_variant'), ours.get('pretrain_epochs'))
    if row is None:
        return [Cell('–'), Cell(f'nothing for {method} on {backbone}', 'quiet'), Cell('–'), Cell('–')]
    if arm == SCRATCH:  # the table has the length of the supervised training in this column
        row = dict(row, epochs=row['pretrain_epochs'])
    differs, unstated = protocol_differences(ours, row)
    differs += known.get('changes') or []
    differs += [str(recipe['facts']['tuned'])] if recipe['facts'].get('tuned') else []
    label = f'{row["method"]}, {row["backbone"]}' + (f', {row["mask_variant"]}' if row['mask_variant'] else '')
    label += f', {row["pretrain_epochs"]} epochs' if row['pretrain_epochs'] else ''
    label += f' [{row["source"]}' + (f'; protocol: {row["protocol_source"]}]' if row['protocol_source'] else ']')
    wanted = wanted_data(metric.name)
    if ours['test_data'] == wanted:
        shown = Cell(row['value'])
    else:
        shown = Cell('not comparable', 'bad')
        differs.insert(0, f'their {row["value"]} is for {wanted}, ours for other data')
    found = Cell('', folded=tuple(differs)) if differs else Cell('none found')
    return [shown, Cell(label, 'quiet'), found, Cell(', '.join(unstated) or '–', 'quiet')]
