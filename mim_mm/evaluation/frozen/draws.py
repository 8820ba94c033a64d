"""Several draws of the same number of labels together: mean and spread for each pooling, as text and for a curve."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ['summarise', 'table']


def summarise(splits: Sequence[dict]) -> list[dict]:
    """What draws that differ in their seed only have in common, by rising number of labelled images.

    Lists have no seed: those of equally many images of equally many classes count as draws of one setting, as MSN's
    three lists for each number of images do.

    Args:
        splits: results of :func:`mim_mm.evaluation.frozen.lowshot.low_shot`.

    Returns:
        ``[dict(setting, per_class, images, draws, results={pooling: dict(top1, top1_std, top5, top5_std)})]``;
        ``per_class``: labelled images over classes; ``draws``: names of the splits; accuracies are means in per cent,
        the sample standard deviation (n - 1) is None of one draw.
    """
    groups: dict[tuple, list[dict]] = {}
    for split in splits:
        if 'shots' in split['draw']:
            key = 'shots', split['draw']['shots']
        elif 'fraction' in split['draw']:
            key = 'fraction', split['draw']['fraction']
        else:
            key = 'list', split['images'], split['classes_seen']
        groups.setdefault(key, []).append(split)
    found = [dict(setting=_words(key), **_together(group)) for key, group in groups.items()]
    return sorted(found, key=lambda row: row['images'])


def _words(key: tuple) -> str:
    kind, value = key[:2]
    if kind == 'shots':
        return f'{value} a class'
    return f'{100 * value:g} %' if kind == 'fraction' else f'lists of {value}'


def _together(group: list[dict]) -> dict:
    first = group[0]
    results = {}
    for pooling in first['results']:
        results[pooling] = {}
        for name in ('top1', 'top5'):
            values = [split['results'][pooling][name] for split in group]
            spread = statistics.stdev(values) if len(values) > 1 else None
            results[pooling].update({name: statistics.fmean(values), f'{name}_std': spread})
    draws = [split['split'] for split in group]
    return dict(per_class=first['images'] / first['classes_seen'], images=first['images'], draws=draws, results=results)


def table(summary: Sequence[dict]) -> str:
    """Mean and sample standard deviation over the draws, one line a setting and pooling."""
    lines = [f'{"labels":<14}{"draws":>6}  {"pooling":<10}{"top-1":>9}{"+-":>7}{"top-5":>9}{"+-":>7}']
    for row in summary:
        for pooling, v in row['results'].items():
            spread = [f'{v[key]:>7.2f}' if v[key] is not None else f'{"-":>7}' for key in ('top1_std', 'top5_std')]
            lines.append(
                f'{row["setting"]:<14}{len(row["draws"]):>6}  {pooling:<10}{v["top1"]:>9.2f}{spread[0]}'
                f'{v["top5"]:>9.2f}{spread[1]}'
            )
    return '\n'.join(lines)
