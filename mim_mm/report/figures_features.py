"""Images with what an encoder makes of them: colours of their patches, and where its class token looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mim_mm.report.figures import plt, save_figure, style

__all__ = ['draw_feature_maps']


def draw_feature_maps(images: list, colours: list, attention: list | None, shares: list, path: str | Path) -> Path:
    """Write the figure as PNG: one column an image.

    Args:
        images: uint8 (H, W, 3) in R, G, B. colours: float (h, w, 3) in 0..1. attention: float (h, w), or None where the
            encoder has none. shares: of the variance, of the three components.
    """
    rows = [('image', images), ('features (PCA)', colours), *([('attention', attention)] if attention else [])]
    columns = len(images)
    with plt.rc_context({**style(), 'axes.grid': False}):
        size = (1.5 * columns + 0.4, 1.5 * len(rows) + 0.4)
        figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, layout='constrained')
        for line, (name, pictures) in zip(axes, rows):
            for axis, picture in zip(line, pictures):
                axis.imshow(np.asarray(picture), interpolation='nearest', cmap='magma')
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set_visible(False)
            line[0].set_ylabel(name, fontsize=8)
        text = ', '.join(f'{100 * share:.0f} %' for share in shares)
        figure.supxlabel(f'R, G, B: three components of all patches together, {text} of the variance', fontsize=7)
        return save_figure(figure, Path(path))
