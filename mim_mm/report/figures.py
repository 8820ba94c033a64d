"""Curves from mmengine's scalars.json, drawn for screen and paper."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402  (the backend must be set first: reports run without a display)

from mim_mm.report.collect import Chain, Run, read_scalars  # noqa: E402

__all__ = ['draw_curves', 'save_figure', 'style']

ARM_COLOURS = ('#2457c5', '#d9730d', '#2f855a', '#8b3fb8', '#667085')
KIND_TITLES = {'probe': 'Quick probe', 'linear': 'Linear probe', 'finetune': 'Fine-tuning', 'coco': 'Mask R-CNN',
               'seg': 'UperNet', 'seg_linear': 'Linear segmentation'}  # fmt: skip
_TOP1 = (('accuracy/top1', 'top-1 (%)', '-', 1.0),)
_MIOU = (('mIoU', 'mIoU (%)', '-', 1.0),)
KIND_METRICS = {  # name in the logs, label, dash, factor to per cent (mmdet logs AP as 0..1)
    'probe': _TOP1,
    'linear': _TOP1,
    'finetune': _TOP1,
    'coco': (('coco/bbox_mAP', 'box AP (%)', '-', 100.0), ('coco/segm_mAP', 'mask AP (%)', '--', 100.0)),
    'seg': _MIOU,
    'seg_linear': _MIOU,
}


def style() -> dict:
    """Shared look: no frame at the top and right, light grid, sizes that stay readable in a column."""
    return {
        'font.size': 9,
        'axes.titlesize': 10,
        'axes.titleweight': 'bold',
        'axes.titlelocation': 'left',
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.grid': True,
        'grid.color': '#e8ebf1',
        'axes.edgecolor': '#98a2b3',
        'axes.axisbelow': True,
        'legend.frameon': False,
        'lines.linewidth': 1.6,
        'figure.dpi': 150,
    }


def save_figure(figure, path: Path) -> Path:
    """Write a PNG and close the figure (matplotlib keeps every open figure alive)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches='tight', facecolor='white', metadata={'Software': None})
    plt.close(figure)
    return path


def _colour(chain: Chain, arm: str | None) -> str:
    place = chain.arms.index(arm) if arm in chain.arms else len(ARM_COLOURS) - 1
    return ARM_COLOURS[place % len(ARM_COLOURS)]


def _smooth(values: list) -> list:
    """Exponential mean over about a twentieth of the points, without a pull towards the first (bias-corrected)."""
    weight = 1 - 1 / max(1.0, len(values) / 20)
    out, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        out.append(total / norm)
    return out


def _line(axis, points: tuple, label: str | None, **look) -> None:
    """A line; a single point is drawn as a dot, which a line of one point is not."""
    axis.plot(*points, marker='o' if len(points[0]) < 12 else None, markersize=4, label=label, **look)


def pretrain_curves(chain: Chain, run: Run, path: Path) -> Path | None:
    """The reconstruction beside the patch-mean baseline, and the self-consistency; None without training scalars."""
    scalars = read_scalars(run.scalars)
    main = 'mse' if 'mse' in scalars else 'loss_whole'  # mse: the same term before its weight
    bare = 'consistency' if 'consistency' in scalars else 'loss_consistency'
    baselines = [key for key in scalars if 'baseline' in key or 'patch_mean' in key]
    if main not in scalars:
        return None
    panels = 2 if bare in scalars else 1
    with plt.rc_context(style()):
        figure, axes = plt.subplots(1, panels, figsize=(4.2 * panels, 2.9), squeeze=False, layout='constrained')
        left = axes[0][0]
        _line(left, scalars[main], 'reconstruction (loss_whole)', color=ARM_COLOURS[0])
        for key in baselines:
            _line(left, scalars[key], 'guessing the mean of each patch', color='#667085', linestyle='--')
        left.set(title='Reconstruction', xlabel='iteration', ylabel='normalised-pixel MSE', ylim=(0, None))
        left.legend()
        if panels == 2:
            _line(axes[0][1], scalars[bare], None, color=ARM_COLOURS[1])
            axes[0][1].set(title='Self-consistency, before its weight', xlabel='iteration')
            axes[0][1].set(ylabel='mean |difference| (both ways)', ylim=(0, None))
        return save_figure(figure, path)


def downstream_curves(chain: Chain, kind: str, path: Path) -> Path | None:
    """Training loss and validation metric of every run of a kind, coloured by arm; None when nothing was logged.

    What was measured once is a dot.
    """
    runs = _logged(chain, kind)
    if not runs:
        return None
    measured = any(key in scalars for _, scalars in runs for key, *_ in KIND_METRICS[kind])
    panels = 2 if measured else 1
    with plt.rc_context(style()):
        figure, axes = plt.subplots(1, panels, figsize=(4.2 * panels, 2.9), squeeze=False, layout='constrained')
        left, right = axes[0][0], axes[0][1] if measured else None
        labelled = set()
        for run, scalars in runs:
            colour, name = _colour(chain, run.arm), run.arm or run.name
            first = name not in labelled
            labelled.add(name)
            if 'loss' in scalars:
                steps, values = scalars['loss']
                left.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
                _line(left, (steps, _smooth(values)), name if first else None, color=colour, linewidth=1.4)
            for key, label, dash, factor in KIND_METRICS[kind]:
                if key in scalars:
                    text = f'{name}, {label.removesuffix(" (%)")}' if len(KIND_METRICS[kind]) > 1 else name
                    steps, values = scalars[key]
                    points = steps, [factor * value for value in values]
                    look = dict(color=colour, linestyle=dash, fillstyle='full' if dash == '-' else 'none')
                    _line(right, points, text if first else None, **look)
        left.set(title=f'{KIND_TITLES[kind]}: training loss', xlabel='iteration', ylabel='loss (smoothed; raw behind)')
        if right:
            metric = 'AP (%)' if kind == 'coco' else KIND_METRICS[kind][0][1]
            right.set(title='Validation', xlabel='epoch or iteration, as logged', ylabel=metric)
            right.margins(y=0.15)
        for axis in axes[0]:
            if axis.get_legend_handles_labels()[0]:
                axis.legend()
        return save_figure(figure, path)


def _logged(chain: Chain, kind: str) -> list[tuple[Run, dict]]:
    runs = [(run, read_scalars(run.scalars)) for run in chain.of(kind)]
    return [(run, scalars) for run, scalars in runs if scalars]


def _said(series: tuple, factor: float = 1.0) -> str:
    """A curve in words: ``1.22 to 0.41 in 300 points``."""
    values = [factor * value for value in series[1]]
    if len(values) == 1:
        return f'{values[0]:.3g}, once'
    return f'{values[0]:.3g} to {values[-1]:.3g} in {len(values)} points'


def _alt(chain: Chain, kind: str, wanted: Iterable[tuple]) -> str:
    """Where each curve of a picture begins and ends, for a reader who does not see it."""
    parts = []
    for run, scalars in _logged(chain, kind):
        found = [f'{label} {_said(scalars[key], factor)}' for key, label, factor in wanted if key in scalars]
        parts += [f'{run.name}: {", ".join(found)}'] if found else []
    return f'Curves. {"; ".join(parts)}.'


def draw_curves(chain: Chain, folder: Path) -> list[tuple[Path, str, str]]:
    """All curves the chain's logs allow, as (PNG, caption, the same in words)."""
    drawn = []
    for run in chain.of('pretrain'):
        path = pretrain_curves(chain, run, folder / f'curves_{run.name}.png')
        caption = (
            f'Pretraining `{run.name}`. The dashed line is what guessing the mean of each hidden patch would give: '
            'parts that agree (right) while the left curve stays at that line have collapsed, not learned.'
        )
        alt = _alt(chain, 'pretrain', (('mse', 'reconstruction error', 1.0), ('consistency', 'self-consistency', 1.0)))
        drawn.append((path, caption, alt))
    for kind, title in KIND_TITLES.items():
        count = len(chain.of(kind))
        path = downstream_curves(chain, kind, folder / f'curves_{kind}.png')
        wanted = (
            ('loss', 'training loss', 1.0),
            *((key, label, factor) for key, label, _, factor in KIND_METRICS[kind]),
        )
        caption = f'{title}: {count} run{"s" if count != 1 else ""}, one colour an arm.'
        drawn.append((path, caption, _alt(chain, kind, wanted)))
    return [item for item in drawn if item[0] is not None]
