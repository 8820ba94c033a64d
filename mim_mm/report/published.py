"""Published results beside which a run may be put, and when that is fair.

``published_results.csv`` (package data) has one number a row: source, table, method, mask_variant, backbone,
pretrain_data, pretrain_epochs, metric, value, in per cent. Metrics are ``linear_top1``, ``finetune_top1``,
``bbox_mAP``, ``bbox_mAP_50`` and so on. A row is shown only for the same backbone and number of
pretraining epochs.

How a number was measured stands in epochs, batch, resolution, head, protocol and test_data, with its source in
protocol_source. An empty field means that our sources do not state it for this very number (a protocol recalled from
memory, or one whose own result differs from the printed one, does not count as stated).
"""

from __future__ import annotations

import csv
import re
from importlib import resources

__all__ = ['beside', 'known_data', 'load_published', 'matching_rows', 'protocol_differences', 'recipe_of']

SOURCES = {
    'emae_tpami24': "EMAE (TPAMI 2024), figures as printed in the authors' slides",
    'sbam_eccv24': 'SBAM (ECCV 2024)',
}
_BACKBONES = {'vits': 'ViT-S/16', 'vitb': 'ViT-B/16', 'vitl': 'ViT-L/16', 'vith': 'ViT-H/14'}
_METHODS = {'emae': 'EMAE', 'mae': 'MAE'}
_TABLES = ('imagenet', 'coco_maskrcnn_fpn', 'mask_ratio_vs_k')
_PARTS = {'7': 'parallel K=7', '14': 'parallel K=14', None: 'parallel K=4'}


def load_published() -> list[dict]:
    """All rows of the table as text, one dict a row."""
    text = resources.files('mim_mm.report').joinpath('published_results.csv').read_text(encoding='utf-8')
    return list(csv.DictReader(text.splitlines()))


def recipe_of(config_path: str | None) -> dict | None:
    """What a pretraining recipe's file name says: ``configs/emae/emae_vitb_800e.py`` ->
    ``{'method': 'EMAE', 'backbone': 'ViT-B/16', 'epochs': '800', 'variant': 'parallel K=4'}``; None for other names.
    """
    stem = re.sub(r'\.py$', '', (config_path or '').replace('\\', '/').rsplit('/', 1)[-1])
    found = re.fullmatch(r'(e?mae)_(vit[sblh])(?:_k(\d+))?_(\d+)e(?:_k(\d+))?', stem)
    if not found:
        return None
    method, backbone, parts, epochs, parts_after = found.groups()
    variant = None
    if method == 'emae':
        variant = _PARTS.get(parts or parts_after)
        if variant is None and (parts or parts_after) == '4':
            variant = _PARTS[None]
    return dict(method=_METHODS[method], backbone=_BACKBONES[backbone], epochs=epochs, variant=variant)


def matching_rows(recipe: dict | None) -> list[dict]:
    """Published entries for a recipe: ``[{'label', 'source', 'values': {metric: per cent}}, ...]``.

    First the same method, then every other method published for the same backbone and epochs (the supervised row too:
    it is the reference for the arm trained from scratch).
    """
    if recipe is None:
        return []
    entries: dict[tuple, dict] = {}
    for row in load_published():
        if row['table'] not in _TABLES or row['backbone'] != recipe['backbone']:
            continue
        supervised = row['method'].startswith('Supervised')
        if row['pretrain_epochs'] != recipe['epochs'] and not supervised:
            continue
        variant = row['mask_variant']
        if row['method'] == 'EMAE' and recipe['method'] == 'EMAE' and variant != recipe['variant']:
            continue
        if row['table'] == 'mask_ratio_vs_k' and (row['method'] != 'EMAE' or recipe['variant'] == _PARTS[None]):
            continue  # the main table has K=4; MAE rows here repeat or use other ratios
        method = 'Supervised' if supervised else row['method']
        key = (row['source'], method, row['pretrain_epochs'])
        label = f'{method}, {row["backbone"]}, {row["pretrain_epochs"]} epochs' + (f', {variant}' if variant else '')
        entry = entries.setdefault(key, dict(label=label, method=method, source=row['source'], values={}))
        entry['values'].setdefault(row['metric'], float(row['value']))
    return sorted(entries.values(), key=lambda e: (e['method'] != recipe['method'], e['method'] != 'Supervised'))


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
IMAGENET, COCO = 'IN-1k val', 'COCO val2017'
_COUNTS = {(1281167, 50000): IMAGENET, (118287, 5000): COCO}  # images for training, for the test
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
    return COCO if 'mAP' in metric else IMAGENET


def beside(metric: str, method: str | None, backbone: str | None, variant=None, epochs=None) -> dict | None:
    """The published row nearest to one of our figures: same metric, method and backbone.

    Of several, the one of the same mask goes before others, then the one nearest in pretraining epochs; where ours are
    not known, the longest. ``method`` is ``scratch`` for a figure without pretraining. None: nothing is published.
    """
    names = {'scratch': 'supervised (scratch)'}
    wanted = names.get((method or '').lower(), (method or '').lower())
    rows = [
        row
        for row in load_published()
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
