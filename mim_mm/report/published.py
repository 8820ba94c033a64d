"""Published results beside which a run may be put, and when that is fair.

``published_results.csv`` (package data) has one number a row: source, table, method, mask_variant, backbone,
pretrain_data, pretrain_epochs, metric, value, in per cent. Metrics are ``linear_top1``, ``finetune_top1``,
``bbox_mAP``, ``bbox_mAP_50`` and so on; ``mIoU`` is that of UperNet, ``linear_mIoU`` that of a linear layer.

How a number was measured stands in epochs, batch, resolution, head, protocol and test_data, with its source in
protocol_source. An empty field means that our sources do not state it for this very number (a protocol recalled from
memory, or one whose own result differs from the printed one, does not count as stated). A row whose protocol begins
with ``metric doubtful`` is kept as it was printed and never stands beside a figure.

Which row stands beside a run is decided by the facts of its recipe (:mod:`mim_mm.recipe_facts`), not by its name.
"""

from __future__ import annotations

import csv
from importlib import resources

__all__ = [
    'beside',
    'doubtful',
    'known_data',
    'load_published',
    'matching_rows',
    'protocol_differences',
    'segmentation_rows',
]

SOURCES = {
    'emae_tpami24': "EMAE (TPAMI 2024), figures as printed in the authors' slides",
    'sbam_eccv24': 'SBAM (ECCV 2024)',
    'mae_cvpr22': 'MAE (CVPR 2022)',
    'ibot_iclr22': 'iBOT (ICLR 2022)',
    'bootmae_eccv22': 'BootMAE (ECCV 2022), its release',
    'cae_ijcv23': 'CAE (IJCV 2023)',
}
_MAIN = ('imagenet', 'coco_maskrcnn_fpn')  # of all methods
_TABLES = (*_MAIN, 'mask_ratio_vs_k')
_OWN = (*_TABLES, 'sbam_on_baselines')  # in which a method is looked for; the others are ablations and costs
_SEGMENTATION = 'ade20k'
_DOUBTFUL = 'metric doubtful'


def load_published() -> list[dict]:
    """All rows of the table as text, one dict a row."""
    text = resources.files('mim_mm.report').joinpath('published_results.csv').read_text(encoding='utf-8')
    return list(csv.DictReader(text.splitlines()))


def doubtful(row: dict) -> bool:
    """Whether a number cannot be what its column says, so that it must not be compared with."""
    return row['protocol'].startswith(_DOUBTFUL)


def _usable() -> list[dict]:
    return [row for row in load_published() if not doubtful(row)]


def _method(row: dict) -> str:
    return 'Supervised' if row['method'].startswith('Supervised') else row['method']


def matching_rows(recipe: dict | None) -> list[dict]:
    """Published entries for a pretraining.

    Args:
        recipe: ``method``, ``mask_variant``, ``epochs`` and ``changes`` of :func:`mim_mm.recipe_facts.pretraining`,
            ``backbone`` (its published name) and ``pretrain_data`` (in the words of the table; None: not known).

    Returns:
        ``[{'label', 'source', 'method', 'own', 'differs', 'rows': {metric: row}, 'values': {metric: per cent}}, ...]``:
        the nearest of the same method first (``own``), with what differs from it in words (empty: the very recipe),
        then every other method published for the same backbone and epochs (the supervised row too: it is the reference
        for the arm trained from scratch). Nothing when nothing is published for the method on this backbone.
    """
    if not recipe or not recipe.get('method') or not recipe.get('backbone'):
        return []
    rows = [row for row in _usable() if row['backbone'] == recipe['backbone'] and row['table'] in _OWN]
    wanted = recipe['method']
    own = [row for row in rows if row['method'] == wanted]
    if not own and ' + ' in wanted:  # SBAM on a method for which nobody published it
        wanted = wanted.split(' + ')[0]
        own = [row for row in rows if row['method'] == wanted]
    if not own:
        return []
    nearest = min((_key(row) for row in own), key=lambda key: _distance(recipe, key))
    entries = _entries(row for row in own if _key(row) == nearest)
    entries[0].update(own=True, differs=_differences(recipe, entries[0]['rows']))
    epochs, tables = recipe.get('epochs'), {row['table'] for row in entries[0]['rows'].values()}
    base = recipe['method'].split(' + ')[0]
    others = [
        row
        for row in rows
        if _method(row) != wanted
        and (
            (row['table'] in _MAIN and (row['pretrain_epochs'] == str(epochs) or _method(row) == 'Supervised'))
            or ('sbam_on_baselines' in tables and row['table'] == 'sbam_on_baselines' and row['method'] == base)
        )
    ]
    return entries + sorted(_entries(others), key=lambda entry: entry['method'] != 'Supervised')


def segmentation_rows(recipe: dict | None) -> list[dict]:
    """As :func:`matching_rows`, of the segmentations of ADE20K: the nearest of the same method, then all others."""
    if not recipe or not recipe.get('method') or not recipe.get('backbone'):
        return []
    rows = [row for row in _usable() if row['backbone'] == recipe['backbone'] and row['table'] == _SEGMENTATION]
    own = [row for row in rows if row['method'] == recipe['method']]
    nearest = min((_key(row) for row in own), key=lambda key: _distance(recipe, key), default=None)
    entries = _entries(row for row in own if _key(row) == nearest)
    for entry in entries:
        entry.update(own=True, differs=_differences(recipe, entry['rows']))
    return entries + _entries(row for row in rows if row['method'] != recipe['method'])


def _key(row: dict) -> tuple:
    return row['source'], _method(row), row['mask_variant'], row['pretrain_epochs']


def _distance(recipe: dict, key: tuple) -> tuple:
    """Of the rows of a method, the one of the same mask goes before others, then the nearest in epochs."""
    _, _, variant, epochs = key
    ours = recipe.get('epochs')
    away = float('inf') if not epochs else -float(epochs) if ours is None else abs(float(epochs) - ours)
    return (variant not in ('', recipe.get('mask_variant')), away)


def _entries(rows) -> list[dict]:
    """Rows of the same source, method, mask and epochs as one entry; the first table that has a metric counts."""
    entries: dict[tuple, dict] = {}
    for row in rows:
        key = _key(row)[:2] + _key(row)[3:] if _method(row) == 'Supervised' else _key(row)
        epochs = f', {row["pretrain_epochs"]} epochs' if row['pretrain_epochs'] else ''
        mask = f', {row["mask_variant"]}' if row['mask_variant'] else ''
        label = f'{_method(row)}, {row["backbone"]}{epochs}{mask}'
        new = dict(label=label, method=_method(row), source=row['source'], own=False, differs=[], rows={}, values={})
        entry = entries.setdefault(key, new)
        entry['rows'].setdefault(row['metric'], row)
        entry['values'].setdefault(row['metric'], float(row['value']))
    return list(entries.values())


def _differences(recipe: dict, rows: dict) -> list[str]:
    """What keeps a pretraining from being that of these rows, in words; what a row does not state is no difference."""
    row = next(iter(rows.values()))
    differs = []
    if recipe['method'] != row['method']:
        differs.append(f'method: {recipe["method"]} here, {row["method"]} published')
    ours = dict(mask_variant=recipe.get('mask_variant'), pretrain_epochs=recipe.get('epochs'))
    if recipe.get('pretrain_data'):
        ours['pretrain_data'] = recipe['pretrain_data']
    return differs + protocol_differences(ours, row)[0] + list(recipe.get('changes') or ())


# ---- one row beside one figure of ours, with what differs

FIELDS = {  # column -> how a reader calls it
    'pretrain_data': 'pretraining data',
    'pretrain_epochs': 'pretraining epochs',
    'mask_variant': 'mask',
    'test_data': 'test data',
    'epochs': 'epochs',
    'batch': 'batch',
    'resolution': 'resolution',
    'head': 'head',
    'seeds': 'seeds',
}
IMAGENET, COCO, ADE20K = 'IN-1k val', 'COCO val2017', 'ADE20K val'
_COUNTS = {(1281167, 50000): IMAGENET, (118287, 5000): COCO, (20210, 2000): ADE20K}  # images for training, for the test
EPOCHS_TOLERANCE = 0.02  # iterations x batch / images: detectors pass over images without boxes


def known_data(data: dict | None) -> dict:
    """What the data identity of a run (``run.json``) is, judged by the number of its images.

    Returns:
        ``train`` (``IN-1k``, ``COCO train2017``, or files and hash in words), ``test`` (a test set by its name or in
        words) and ``images`` (files for training); None where nothing is recorded.
    """
    files, words = {}, {}
    for label, facts in (data or {}).items():
        loop = label.split('/')[0]
        if isinstance(facts, dict) and 'files' in facts:
            files[loop] = max(facts['files'], files.get(loop, 0))
            words[loop] = f'{facts["files"]} files (sha256 {str(facts.get("sha256"))[:8]})'
    counts = files.get('train'), files.get('val')
    test = _COUNTS.get(counts) or words.get('val')
    if counts[0] == 1281167:
        train = 'IN-1k'
    else:
        train = 'COCO train2017' if test == COCO else words.get('train')
    return dict(train=train, test=test, images=counts[0])


def wanted_data(metric: str) -> str:
    """The test set that every published number of a metric is for."""
    return ADE20K if 'mIoU' in metric else COCO if 'mAP' in metric else IMAGENET


def beside(metric: str, method: str | None, backbone: str | None, variant=None, epochs=None) -> dict | None:
    """The published row nearest to one of our figures: same metric, method and backbone.

    Of several, the one of the same mask goes before others, then the one nearest in pretraining epochs; where ours are
    not known, the longest. ``method`` is ``scratch`` for a figure without pretraining. None: nothing is published.
    """
    names = {'scratch': 'supervised (scratch)'}
    wanted = names.get((method or '').lower(), (method or '').lower())
    rows = [
        row
        for row in _usable()
        if row['metric'] == metric and row['backbone'] == backbone and row['method'].lower() == wanted
    ]

    def distance(row: dict) -> tuple:
        printed = float(row['pretrain_epochs']) if row['pretrain_epochs'] else None
        away = -(printed or 0.0) if epochs is None else abs(printed - epochs) if printed else float('inf')
        return (variant is not None and row['mask_variant'] != variant, away, row['table'] not in _TABLES)

    return min(rows, key=distance, default=None)


def protocol_differences(ours: dict, row: dict) -> tuple[list, list]:
    """Where the protocol of a published row is not ours, computed field by field.

    Args:
        ours: column -> our number or word; None where it is not known. A column that is left out is not compared.
        row: a row of the table.

    Returns:
        differences in words (``epochs: 25 here, 90 published``), and the names of fields that the sources leave out.
    """
    differs, unstated = [], []
    for field, name in FIELDS.items():
        if field not in ours:
            continue
        mine, theirs = ours[field], row.get(field) or ''
        if theirs == '':
            unstated.append(name)
        elif mine is None:
            differs.append(f'{name}: not known here, {theirs} published')
        elif not _same(mine, theirs, EPOCHS_TOLERANCE if 'epochs' in field else 0.0):
            differs.append(f'{name}: {_text(mine)} here, {theirs} published')
    return differs, unstated


def _same(mine, theirs: str, tolerance: float) -> bool:
    try:
        return abs(float(mine) - float(theirs)) <= tolerance * float(theirs)
    except (TypeError, ValueError):
        return str(mine) == theirs


def _text(value) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)
