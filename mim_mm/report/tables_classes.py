"""The part of the page by class: accuracy and AP of each, which classes are taken for which, the majority baseline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mim_mm.report.class_results import KINDS, ClassAP, Confusion, class_aps, confusions
from mim_mm.report.collect import Chain
from mim_mm.report.document import Cell, Fold, Heading, Picture, Table, Text
from mim_mm.report.figures_classes import draw_class_aps, draw_confusion

__all__ = ['class_blocks']

DRAWN = 50  # classes up to which the matrix is drawn and all are listed
COUNTED = 20  # classes up to which its counts are a table
WORST = 20  # classes, and pairs of a run, that are listed
PAIRS = 5  # of a run with few classes
ONE_RUN = 'One run a stage, the first of its seeds.'


def class_blocks(chain: Chain, figures: Path) -> list:
    """Everything by class that the runs of a chain left; nothing without any."""
    made, wrong = confusions(chain)
    detected, others = class_aps(chain)
    blocks = [Text(line, 'bad') for line in wrong + others]
    for group in _grouped(made, lambda c: (c.classes, tuple(c.images.tolist()), c.training)):
        blocks += _classification(group, figures)
    for number, group in enumerate(_grouped(detected, lambda d: (d.classes, d.boxes, tuple(d.figures)))):
        path = draw_class_aps(group, figures / f'class_ap{number or ""}.png') if any(group[0].boxes) else None
        blocks.append(_ap_table(group))
        blocks += [] if path is None else [Picture(path, _ap_caption(group), _ap_alt(group))]
    return [Heading('By class'), *blocks] if blocks else []


def _grouped(items: list, key) -> Iterable[list]:
    """Results on the same classes and test images, which stand in one table."""
    groups: dict = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups.values()


def _value(value: float | None, state: str = '', note: str = '') -> Cell:
    return Cell('–' if value is None else f'{value:.1f}', state, note)


# ---- classification


def _classification(group: list[Confusion], figures: Path) -> list:
    few = len(group[0].classes) <= DRAWN
    blocks = [_accuracy_table(group, few), _pairs_table(group, PAIRS if few else WORST)]
    for item in group if few else ():
        path = draw_confusion(item, figures / f'confusion_{item.run.name}.png')
        caption = f'`{item.run.name}`: in a row, what the images of one class were taken for. Grey: no test image.'
        blocks.append(Picture(path, caption, _confusion_alt(item)))
    if len(group[0].classes) <= COUNTED:
        blocks.append(Fold('The matrices in images', tuple(_counts_table(item) for item in group)))
    return blocks


def _accuracy_table(group: list[Confusion], few: bool) -> Table:
    first = group[0]
    by_class = [item.by_class for item in group]
    measured = [i for i, n in enumerate(first.images) if n]
    order = range(len(first.classes))
    if not few:
        order = sorted(measured, key=lambda i: sum(values[i] for values in by_class))[:WORST]
    rows = []
    for i in order:
        cells = [Cell(first.classes[i], 'strong'), Cell('–' if first.training is None else str(first.training[i]))]
        notes = [f'{item.counts[i, i]} of {first.images[i]}' if first.images[i] else '' for item in group]
        values = [_value(values[i], note=note) for values, note in zip(by_class, notes)]
        rows.append([*cells, Cell(str(first.images[i])), *values])
    total = '–' if first.training is None else f'{sum(first.training)}'
    counts = [Cell(total), Cell(f'{first.images.sum()}')]
    rows.append([Cell('all images', 'strong'), *counts, *(_value(item.accuracy, 'strong') for item in group)])
    means = [sum(values[i] for i in measured) / len(measured) for values in by_class]
    rows.append([Cell('mean of the classes', 'quiet'), *counts, *(_value(mean, 'quiet') for mean in means)])
    if first.majority:
        name, value = first.majority
        text = f'baseline: always saying {name}, the most frequent class of the training images'
        rows.append([Cell(text, 'quiet'), *counts, *(_value(value, 'quiet') for _ in group)])
    what = '' if few else f'The {len(rows[: len(order)])} classes with the lowest accuracy, of {len(first.classes)}. '
    caption = f'{what}Per cent of the test images of a class. {ONE_RUN}'
    return Table(['class', 'training images', 'test images', *(item.run.name for item in group)], rows, caption)


def _pairs_table(group: list[Confusion], most: int) -> Table:
    rows = []
    for item in group:
        for true, said, images, share in item.pairs(most):
            cells = [Cell(item.run.name), Cell(true, 'strong'), Cell(said), Cell(str(images))]
            rows.append([*cells, _value(share)])
    rows = rows or [[Cell('no image was taken for another class', 'quiet'), *[Cell('–')] * 4]]
    head = ['run', 'true class', 'taken for', 'images', '% of the class']
    return Table(head, rows, f'The most frequent confusions, at most {most} a run.', numeric=False)


def _counts_table(item: Confusion) -> Table:
    rows = [
        [Cell(name, 'strong'), *(Cell(str(n), 'strong' if i == j else '') for j, n in enumerate(row))]
        for i, (name, row) in enumerate(zip(item.classes, item.counts.tolist()))
    ]
    return Table([f'{item.run.name}: true, said', *item.classes], rows, small=True)


def _confusion_alt(item: Confusion) -> str:
    said = '; '.join(f'{true} taken for {other} {n} times' for true, other, n, _ in item.pairs(3))
    return f'Confusion matrix of {item.run.name}, {item.accuracy:.1f} per cent right. {said or "No confusion"}.'


# ---- detection


def _ap_table(group: list[ClassAP]) -> Table:
    first, both = group[0], len(group) <= 2
    columns = [(item, kind, place) for item in group for kind in first.figures for place in ((0, 1) if both else (0,))]
    head = [f'{item.run.name}: {KINDS[kind]} {("AP", "AP50")[place]}' for item, kind, place in columns]
    rows = []
    for i, (name, boxes) in enumerate(zip(first.classes, first.boxes)):
        values = [_value(item.figures[kind][i][place]) for item, kind, place in columns]
        rows.append([Cell(name, 'strong'), Cell(str(boxes)), *values])
    means = [_value(item.mean(kind, place), 'strong') for item, kind, place in columns]
    rows.append([Cell('mean of the classes', 'strong'), Cell(str(sum(first.boxes))), *means])
    caption = f'Per cent; a dash: no box of the class in the test images. {ONE_RUN}'
    return Table(['class', 'boxes', *head], rows, caption)


def _ap_caption(group: list[ClassAP]) -> str:
    return (
        'AP of each class, in brackets its boxes in the test images: with few of them a figure says little. '
        f'Bars: {KINDS[next(iter(group[0].figures))]} AP{", ticks: mask AP" if len(group[0].figures) > 1 else ""}. '
        'Of more than 40 classes the 20 lowest and the 20 highest, with a dashed line between them.'
    )


def _ap_alt(group: list[ClassAP]) -> str:
    parts = []
    for item in group:
        kind = next(iter(item.figures))
        known = [(pair[0], name) for pair, name in zip(item.figures[kind], item.classes) if pair[0] is not None]
        low, high = min(known), max(known)
        parts.append(f'{item.run.name}: lowest {low[1]} {low[0]:.1f}, highest {high[1]} {high[0]:.1f}')
    return f'Bars of AP by class. {"; ".join(parts)}.'
