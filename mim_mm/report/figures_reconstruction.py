"""The reconstruction figure: original, what each part sees, what it predicts, and where the parts disagree."""

from __future__ import annotations

from pathlib import Path

from mim_mm.report.figures import plt, save_figure, style

__all__ = ['draw_reconstructions']

HIDDEN = '#dfe4ec'
QUIET = '#667085'
PART = dict(fontsize=7, loc='center', weight='normal', color=QUIET, pad=3)
NOTE = dict(ha='center', va='top', fontsize=7.5, color=QUIET, linespacing=1.5)


def _show(axis, picture, **options) -> None:
    axis.set_facecolor(HIDDEN)  # hidden patches are NaN: the ground shows through
    axis.imshow(picture, interpolation='nearest', **options)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _with_alpha(picture):
    """RGB with NaN at hidden pixels to RGBA that is clear there."""
    hidden = (picture != picture).any(axis=-1)
    clear = picture.copy()
    clear[hidden] = 0
    return _stack(clear, (~hidden).astype(picture.dtype))


def _stack(colour, alpha):
    out = colour.repeat(2, axis=-1)[..., :4]
    out[..., :3], out[..., 3] = colour, alpha
    return out


def draw_reconstructions(rows: list, path: str | Path) -> Path:
    """Write the figure as PNG.

    Args:
        rows: one dict an image, from ``mim_mm.evaluation.pictures.reconstruction.reconstruct_files``.
        path: file to write.
    """
    if not rows:
        raise ValueError('no image to draw: give at least one')
    parts = len(rows[0]['visible'])
    agree = parts > 1
    groups = [('original', 1), ('what each part sees', parts), ('what each part makes of it', parts)]
    groups += [('disagreement', 1)] if agree else []
    widths = [width for _, count in groups for width in [*[1] * count, 0.1]]
    widths = [*widths, 0.12] if agree else widths
    maps = [row['disagreement'] for row in rows]
    top = max((float(m[m == m].max()) for m in maps if (m == m).any()), default=1.0)
    with plt.rc_context({**style(), 'axes.grid': False}):
        figure = plt.figure(figsize=(0.92 * sum(widths) + 0.4, 0.95 * len(rows) + 0.7))
        cells = figure.add_gridspec(len(rows), len(widths), width_ratios=widths, wspace=0.06, hspace=0.06)
        for line, row in enumerate(rows):
            column = 0
            for pictures in ([row['original']], row['visible'], row['reconstructed']):
                for number, picture in enumerate(pictures):
                    axis = figure.add_subplot(cells[line, column + number])
                    _show(axis, _with_alpha(picture))
                    if line == 0 and len(pictures) > 1:
                        axis.set_title(f'part {number + 1}', **PART)
                column += len(pictures) + 1
            if agree:
                axis = figure.add_subplot(cells[line, column])
                _show(axis, row['disagreement'], cmap='magma', vmin=0, vmax=top)
        if agree:
            bar = figure.colorbar(axis.images[0], cax=figure.add_subplot(cells[:, -1]))
            bar.ax.tick_params(labelsize=7, length=2)
            bar.outline.set_visible(False)
        _name_groups(figure, cells, groups)
        figure.text(0.5, cells[-1, 0].get_position(figure).y0 - 0.02, _note(rows[0], agree), **NOTE)
        return save_figure(figure, Path(path))


def _name_groups(figure, cells, groups: list) -> None:
    """A title centred above each group of columns."""
    column = 0
    for name, count in groups:
        left = cells[0, column].get_position(figure)
        right = cells[0, column + count - 1].get_position(figure)
        height = left.y1 + 0.2 / figure.get_figheight()
        figure.text((left.x0 + right.x1) / 2, height, name, ha='center', va='bottom', fontsize=8.5, weight='bold')
        column += count + 1


def _note(row: dict, agree: bool) -> str:
    lines = []
    if row['borrowed']:
        lines.append('Hidden patches borrow their true mean and spread, because the model predicts normalised pixels.')
    if agree:
        lines.append('Disagreement: mean |difference| between the predictions of the parts that do not see the patch.')
    return '\n'.join(lines)
