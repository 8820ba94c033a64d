"""Published results beside which a run may be put, and when that is fair.

``published_results.csv`` (package data) has one number a row: source, table, method, mask_variant, backbone,
pretrain_data, pretrain_epochs, metric, value, in per cent. Metrics are ``linear_top1``, ``finetune_top1``,
``bbox_mAP``, ``bbox_mAP_50`` and so on. A row is shown only for the same backbone and number of
pretraining epochs.
"""

from __future__ import annotations

import csv
import re
from importlib import resources

__all__ = ['load_published', 'matching_rows', 'recipe_of']

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
