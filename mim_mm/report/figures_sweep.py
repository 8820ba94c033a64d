"""What a sweep found: accuracy against the mask ratio, its gains (PIMR, global PIMR), and accuracy against epochs.

The description of SBAM names "performance improvement with the mask ratio" (PIMR) and "global PIMR" without formulas.
**Our reading**, stated in every figure: PIMR is the gain over the previous, next lower ratio; global PIMR the gain over
the lowest ratio of the sweep.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

from mim_mm import files
from mim_mm.report.collect import collect, read_scalars
from mim_mm.report.figures import ARM_COLOURS, KIND_METRICS, KIND_TITLES, plt, save_figure, style
from mim_mm.report.figures_reconstruction import NOTE

__all__ = ['draw_sweep', 'gains', 'sweep_table']

READING = 'PIMR: gain over the next lower ratio; global PIMR: gain over the lowest (our reading of the SBAM slides).'


def gains(points: list) -> list:
    """``[(x, value, PIMR, global PIMR), ...]`` in ascending x; both gains are None at the lowest x.

    Args:
        points: ``(x, value)`` pairs of one line, in any order, each x once.
    """
    ordered = sorted(points)
    if len({x for x, _ in ordered}) < len(ordered):
        raise ValueError(f'{[x for x, _ in ordered]}: an x occurs twice in one line; average its values first')
    out = [(x, value, None, None) for x, value in ordered[:1]]
    for (_, before), (x, value) in zip(ordered, ordered[1:]):
        out.append((x, value, value - before, value - ordered[0][1]))
    return out


def read_sweep(work_dir: str | Path) -> dict:
    """``sweep.json`` with the finished runs of its points.

    Returns:
        The content of the file, and under ``results`` a list of dicts: ``values`` (axis -> label), ``stage``, ``kind``,
        ``metric``, ``label``, ``value`` and ``scatter`` (mean and standard deviation over seeds, None for one seed),
        ``curve`` (validation steps and means over seeds, empty when nothing was logged).
    """
    folder = Path(work_dir)
    path = folder / 'sweep.json'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not there: give the work dir of a sweep that tools/sweep.py has started')
    sweep = files.read_json(path, 'call tools/sweep.py again, which writes it anew')
    sweep['results'] = []
    for point in sweep['points']:
        try:
            chain = collect(folder / point['name'])
        except FileNotFoundError:  # not started
            continue
        for kind in KIND_METRICS:
            stages = dict.fromkeys(_base(run) for run in chain.of(kind, done=True))
            for stage in stages:
                runs = [run for run in chain.of(kind, done=True) if _base(run) == stage]
                sweep['results'] += _measured(point, stage, kind, runs)
    return sweep


def _base(run) -> str:
    """The stage as the chain config calls it: without the seed's suffix."""
    suffix = f'-s{run.seed}'
    return run.stage.removesuffix(suffix)


def _measured(point: dict, stage: str, kind: str, runs: list) -> list:
    out = []
    for metric, label, _, factor in KIND_METRICS[kind]:
        values = [factor * run.metrics[metric] for run in runs if metric in run.metrics]
        if not values:
            continue
        curves = [read_scalars(run.scalars).get(metric) for run in runs]
        curves = [curve for curve in curves if curve]
        steps = sorted(set.intersection(*(set(curve[0]) for curve in curves))) if curves else []
        means = [factor * mean(curve[1][curve[0].index(step)] for curve in curves) for step in steps]
        scatter = stdev(values) if len(values) > 1 else None
        row = dict(values=point['values'], stage=stage, kind=kind, metric=metric, label=label)
        out.append(dict(row, value=mean(values), scatter=scatter, seeds=len(values), curve=(steps, means)))
    return out


def _lines(results: list, x: str | None) -> dict:
    """Results grouped by all values but x: ``{'masker SBAM': [result, ...]}``."""
    lines: dict[str, list] = {}
    for result in results:
        name = ', '.join(str(v) if isinstance(v, str) else f'{k} {v}' for k, v in result['values'].items() if k != x)
        lines.setdefault(name or 'all', []).append(result)
    return lines


def _measures(sweep: dict) -> list:
    """``[(title, results), ...]``: one entry a stage and metric."""
    groups: dict[tuple, list] = {}
    for result in sweep['results']:
        groups.setdefault((result['stage'], result['metric']), []).append(result)
    return [
        (f'{KIND_TITLES[results[0]["kind"]]} ({stage}), {results[0]["label"]}', results)
        for (stage, _), results in groups.items()
    ]


def sweep_table(sweep: dict) -> str:
    """Markdown: one table a stage and metric, with PIMR and global PIMR where x is a mask ratio."""
    parts = [f'# Sweep {sweep["name"]}', '', f'Chain: `{Path(sweep["chain"]).name}`. {_states(sweep)}']
    ratio = _is_ratio(sweep['x'])
    for title, results in _measures(sweep):
        head = ['', sweep['x'] or 'point', 'value', 'seeds'] + (['PIMR', 'global PIMR'] if ratio else [])
        parts += ['', f'## {title}', '', f'| {" | ".join(head)} |', f'|{"---|" * len(head)}']
        for name, line in _lines(results, sweep['x']).items():
            found = {r['values'].get(sweep['x'], name): r for r in line}
            steps = gains([(x, r['value']) for x, r in found.items()]) if ratio else [(x, 0, 0, 0) for x in found]
            for x, _, step, whole in steps:
                scatter = found[x]['scatter']
                value = f'{found[x]["value"]:.2f}' + (f' ± {scatter:.2f}' if scatter is not None else '')
                cells = [name, str(x), value, str(found[x]['seeds'])]
                cells += ['' if gain is None else f'{gain:+.2f}' for gain in (step, whole)] if ratio else []
                parts.append(f'| {" | ".join(cells)} |')
    return '\n'.join(parts + (['', READING] if ratio else [])) + '\n'


def _states(sweep: dict) -> str:
    counts: dict[str, int] = {}
    for point in sweep['points']:
        counts[point['status']] = counts.get(point['status'], 0) + 1
    return 'Points: ' + ', '.join(f'{n} {status}' for status, n in counts.items()) + '.'


def _is_ratio(axis: str | None) -> bool:
    return bool(axis) and axis.split('.')[-1].endswith('ratio')


def draw_sweep(work_dir: str | Path) -> tuple[Path | None, Path]:
    """Write ``sweep.png`` and ``sweep.md`` into the sweep's work dir.

    Returns:
        Their paths; None for the figure while no stage with a metric is done.

    Raises:
        FileNotFoundError: there is no ``sweep.json``.
    """
    folder = Path(work_dir)
    sweep = read_sweep(folder)
    page = folder / 'sweep.md'
    files.write_text(page, sweep_table(sweep), sync=False)
    measures = _measures(sweep)
    if not measures:
        return None, page
    ratio = _is_ratio(sweep['x'])
    columns = 4 if ratio else 2
    with plt.rc_context(style()):
        size = (3.5 * columns, 2.9 * len(measures) + 0.4)
        figure, grid = plt.subplots(len(measures), columns, figsize=size, squeeze=False, layout='constrained')
        for axes, (title, results) in zip(grid, measures):
            _draw_measure(axes, title, results, sweep, ratio)
        figure.supxlabel(f'{_states(sweep)} {READING if ratio else ""}', fontsize=NOTE['fontsize'], color=NOTE['color'])
        return save_figure(figure, folder / 'sweep.png'), page


def _draw_measure(axes, title: str, results: list, sweep: dict, ratio: bool) -> None:
    x, unit = sweep['x'], results[0]['label']
    for number, (name, line) in enumerate(_lines(results, x).items()):
        colour = ARM_COLOURS[number % len(ARM_COLOURS)]
        look = dict(color=colour, marker='o', markersize=4, label=name)
        line = sorted(line, key=lambda r: r['values'][x]) if x else line
        places = [r['values'][x] if x else name for r in line]
        scatter = [r['scatter'] or 0.0 for r in line]
        axes[0].errorbar(places, [r['value'] for r in line], yerr=scatter if any(scatter) else None, capsize=2, **look)
        if ratio:
            rows = gains(list(zip(places, [r['value'] for r in line])))[1:]
            for axis, column in ((axes[1], 2), (axes[2], 3)):
                axis.plot([row[0] for row in rows], [row[column] for row in rows], **look)
    axes[0].set(title=title, xlabel=x or '', ylabel=unit)
    axes[0].legend(fontsize=7)
    if ratio:
        for axis, name in ((axes[1], 'PIMR'), (axes[2], 'Global PIMR')):
            axis.axhline(0, color='#98a2b3', linewidth=0.8)
            axis.set(title=name, xlabel=x, ylabel='gain (points)')
    _draw_epochs(axes[-1], results, sweep, unit)


def _draw_epochs(axis, results: list, sweep: dict, unit: str) -> None:
    """Against an axis of the sweep that counts epochs; else the validation curve of the stage, one line a point."""
    epochs = next((a for a in sweep['axes'] if a.split('.')[-1].endswith('epochs') and a != sweep['x']), None)
    if epochs:
        for number, (name, line) in enumerate(_lines(results, epochs).items()):
            line = sorted(line, key=lambda r: r['values'][epochs])
            points = [r['values'][epochs] for r in line], [r['value'] for r in line]
            axis.plot(*points, color=ARM_COLOURS[number % len(ARM_COLOURS)], marker='o', markersize=4, label=name)
        axis.set(title='Against epochs', xlabel=epochs, ylabel=unit)
        axis.legend(fontsize=6)
        return
    for number, line in enumerate(_lines(results, sweep['x']).values()):
        line = sorted(line, key=lambda r: r['values'][sweep['x']]) if sweep['x'] else line
        for place, result in enumerate(line):
            # One colour a line as in the first panel; the higher x, the darker.
            alpha = 0.35 + 0.65 * (place + 1) / len(line)
            text = f'{result["values"][sweep["x"]]}' if sweep['x'] and number == 0 else None
            look = dict(color=ARM_COLOURS[number % len(ARM_COLOURS)], alpha=alpha, marker='.')
            axis.plot(*result['curve'], label=text, **look)
    axis.set(title='During the evaluation', xlabel='epoch or iteration, as logged', ylabel=unit)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6, title=sweep['x'], title_fontsize=6)
