"""Images with their predicted classes and the truth, one colour a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.patches import Patch

from mim_mm.report.figures import plt, save_figure, style

__all__ = ['draw_segments', 'label_colours']

NAMED = 10  # classes in the legend: those with the most pixels
GOLDEN = 0.618034  # of the circle of hues: neighbours in number stay apart in colour


def label_colours(count: int) -> np.ndarray:
    """(256, 3) in 0..1: a colour for each label, black for what is not labelled."""
    places = np.arange(count)
    hues = np.stack([places * GOLDEN % 1, 0.55 + 0.4 * (places % 3) / 2, 0.95 - 0.3 * (places % 2)], axis=1)
    table = np.zeros((256, 3))
    table[:count] = hsv_to_rgb(hues)
    return table


def draw_segments(result: dict, path: str | Path) -> Path:
    """Write the figure as PNG; ``result`` comes from ``mim_mm.evaluation.pictures.segments.segment_scenes``.

    Raises:
        ValueError: there is nothing to draw.
    """
    scenes, classes = result['scenes'], result['classes']
    if not scenes:
        raise ValueError('no image to draw: the test set is empty or no image was named')
    colours = label_colours(len(classes))
    pixels = sum(np.bincount(s[k].ravel(), minlength=256)[: len(classes)] for s in scenes for k in ('found', 'truth'))
    shown = [label for label in np.argsort(-pixels, kind='stable')[:NAMED] if pixels[label]]
    with plt.rc_context({**style(), 'axes.grid': False}):
        figure, axes = plt.subplots(
            3, len(scenes), figsize=(1.75 * len(scenes) + 0.3, 5.0), squeeze=False, layout='constrained'
        )
        figure.get_layout_engine().set(wspace=0.02, hspace=0.02)
        for column, scene in enumerate(scenes):
            for row, key in enumerate(('image', 'found', 'truth')):
                axis = axes[row][column]
                axis.imshow(scene['image'] if key == 'image' else colours[scene[key]], interpolation='nearest')
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set_visible(False)
        for row, name in enumerate(('image', 'found', 'truth')):
            axes[row][0].set_ylabel(name, fontsize=9)
        patches = [Patch(color=colours[label], label=classes[label]) for label in shown]
        figure.legend(handles=patches, loc='outside lower center', ncols=min(5, len(patches)), fontsize=7)
        return save_figure(figure, Path(path))
