"""Scenes with boxes and masks: what the detector found above, the truth below."""

from __future__ import annotations

from pathlib import Path

from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from mim_mm.report.figures import plt, save_figure, style

__all__ = ['draw_detections']


# Ten hues that stay apart on grey pictures (matplotlib's own ten have a grey among them).
COLOURS = '#3b82f6 #f97316 #22c55e #ef4444 #a855f7 #eab308 #ec4899 #14b8a6 #84cc16 #38bdf8'.split()


def _colour(label: int) -> tuple:
    return to_rgb(COLOURS[label % len(COLOURS)])


def _draw_scene(axis, image, instances: list, classes: list) -> None:
    height, width = image.shape[:2]
    axis.imshow(image, interpolation='nearest')
    for instance in instances:
        colour = _colour(instance['label'])
        layer = instance['mask'][..., None] * [[(*colour, 0.45)]]
        axis.imshow(layer, interpolation='nearest')
        x1, y1, x2, y2 = (float(v) for v in instance['box'])
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.3))
        text = classes[instance['label']] + ('' if instance['score'] is None else f' {instance["score"]:.2f}')
        above = y1 > 0.09 * height
        axis.text(
            x1,
            y1 - 1 if above else y2 + 1,
            text,
            va='bottom' if above else 'top',
            fontsize=6,
            color='white',
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.8),
            clip_on=True,
        )
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def draw_detections(result: dict, path: str | Path) -> Path:
    """Write the figure as PNG; ``result`` comes from ``mim_mm.evaluation.pictures.detections.detect_scenes``."""
    scenes = result['scenes']
    if not scenes:
        raise ValueError('no scene to draw: the test set is empty or no image was named')
    with plt.rc_context({**style(), 'axes.grid': False}):
        figure, axes = plt.subplots(
            2, len(scenes), figsize=(1.75 * len(scenes) + 0.3, 3.8), squeeze=False, layout='constrained'
        )
        figure.get_layout_engine().set(wspace=0.02, hspace=0.02)
        for column, scene in enumerate(scenes):
            for row, key in enumerate(('found', 'truth')):
                _draw_scene(axes[row][column], scene['image'], scene[key], result['classes'])
        for row, name in enumerate(('found', 'truth')):
            axes[row][0].set_ylabel(name, fontsize=9)
        return save_figure(figure, Path(path))
