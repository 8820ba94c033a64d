"""The mask gallery: image, salience, and what each masker hides under several seeds."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import numpy as np

from mim_mm.report.figures import plt, save_figure, style
from mim_mm.report.figures_reconstruction import HIDDEN, NOTE, QUIET

__all__ = ['draw_gallery']

GROUND = tuple(int(HIDDEN[i : i + 2], 16) / 255 for i in (1, 3, 5))
THROWN = (0.24, 0.27, 0.33)
SMALL = dict(fontsize=6.5, color=QUIET, labelpad=2)


def draw_gallery(content: dict, path: str | Path) -> Path:
    """Write the gallery as PNG: a band an image, a column a masker, a line a seed.

    Hidden patches are light grey, those that AMT throws away dark. A masker with K parts shows them as a mosaic,
    part 1 at the top left. Below each mask stands the share of patches that it hides.

    Args:
        content: of :func:`mim_mm.evaluation.pictures.mask_gallery.gallery`.
        path: file to write.
    """
    rows, labels = content['rows'], content['labels']
    if not rows:
        raise ValueError('no image to draw: give at least one')
    seeds = len(rows[0]['masks'][0])
    # Image and heat map stand one above the other where there are lines for it, side by side otherwise.
    stacked = seeds > 1
    left = 1 if stacked else 2
    widths = [1] * left + [0.12] + [1] * len(labels)
    lines = [height for _ in rows for height in [*[1] * seeds, 0.02]][:-1]
    with plt.rc_context({**style(), 'axes.grid': False}):
        figure = plt.figure(figsize=(1.28 * sum(widths) + 0.2, 1.42 * sum(lines) + 0.9))
        cells = figure.add_gridspec(
            len(lines), len(widths), width_ratios=widths, height_ratios=lines, wspace=0.05, hspace=0.16
        )
        for band, row in enumerate(rows):
            top = band * (seeds + 1)
            _show(figure.add_subplot(cells[top, 0]), row['picture'], row['name'])
            heat = figure.add_subplot(cells[top + 1, 0] if stacked else cells[top, 1])
            _show(heat, row['salience'], _spread(row), cmap='magma', vmin=0, vmax=1)
            if seeds > 2:  # S is so skewed that its map is often one dot; ranks show what guides beside the noise
                _show(figure.add_subplot(cells[top + 2, 0]), _ranks(row['salience']), 'rank of S', cmap='magma')
            for column, (masks, ratios) in enumerate(zip(row['masks'], row['ratios'])):
                for seed in range(seeds):
                    axis = figure.add_subplot(cells[top + seed, left + 1 + column])
                    parts = masks[seed][~np.isnan(ratios[seed])]  # without those that this image does not have
                    _show(axis, _mosaic(row['picture'], parts), _share(ratios[seed], parts))
                    if band == 0 and seed == 0:
                        axis.set_title(_short(labels[column]), fontsize=6.5, loc='center', weight='bold', pad=4)
        first = figure.axes[0].get_position()
        figure.text(first.x0, first.y1 + 0.1 / figure.get_figheight(), 'image, salience S', fontsize=6.5, weight='bold')
        low = min(axis.get_position().y0 for axis in figure.axes) - 0.28 / figure.get_figheight()
        figure.text(0.5, low, _note(content, seeds), **NOTE)
        return save_figure(figure, Path(path))


def _show(axis, picture, below: str, **options) -> None:
    axis.imshow(picture, interpolation='nearest', **options)
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(below, **SMALL)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _ranks(scores: np.ndarray) -> np.ndarray:
    return scores.ravel().argsort().argsort().reshape(scores.shape)


def _spread(row: dict) -> str:
    return f'median {row["quantiles"]["0.5"]:.2g}; {100 * row["above"]:.1f} % > 0.5'


def _share(ratios: list, masks: np.ndarray) -> str:
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    low, high = min(known), max(known)
    text = f'{100 * low:.1f} %' if high - low < 5e-4 else f'{100 * low:.0f} to {100 * high:.0f} %'
    if (masks == 2).any():
        return f'hides {100 * low:.0f}, throws {100 * (masks == 2).mean():.0f} %'
    return f'{len(known)} parts, {text}' if len(ratios) > 1 else f'hides {text}'


def _note(content: dict, seeds: int) -> str:
    thrown = any((mask == 2).any() for row in content['rows'] for masks in row['masks'] for mask in masks)
    dark = ', thrown ones dark' if thrown else ''
    return f'{content["note"]}. Hidden patches are light grey{dark}; lines are seeds 0 to {seeds - 1}.'


def _mosaic(picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The picture behind each of K masks (K, rows, columns), as one picture of ceil(sqrt(K)) columns."""
    height, width = picture.shape[:2]
    tall, wide = parts.shape[1:]
    across = math.ceil(math.sqrt(len(parts)))
    gap = width // 28 if len(parts) > 1 else 0
    down = math.ceil(len(parts) / across)
    sheet = np.ones((down * (height + gap) - gap, across * (width + gap) - gap, 3))
    line = np.arange(height) * tall // height
    column = np.arange(width) * wide // width
    for number, mask in enumerate(parts):
        y, x = number // across * (height + gap), number % across * (width + gap)
        state = mask[line][:, column, None]
        sheet[y : y + height, x : x + width] = np.where(state == 1, GROUND, np.where(state == 2, THROWN, picture))
    return sheet


def _short(label: str) -> str:
    """A label over as many lines as it needs, without the word that all maskers share."""
    name, _, options = label.partition(':')
    lines = [line for option in options.split(',') for line in textwrap.wrap(option, 20)]
    return '\n'.join([name.removesuffix('Masking') or name, *lines])
