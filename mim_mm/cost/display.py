"""The estimate as text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mim_mm.cost.estimate import IMAGES, MFU, Conditions, StageEstimate
from mim_mm.cost.published import PUBLISHED, Row
from mim_mm.cost.scaling import Assumptions, Step, efficiencies


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns side by side, the first flush left."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = []
    for line in lines:
        cells = [cell.ljust(n) if i == 0 else cell.rjust(n) for i, (cell, n) in enumerate(zip(line, widths))]
        text.append('  '.join(cells).rstrip())
    return '\n'.join([text[0], '-' * len(text[0]), *text[1:]])


def short(value: float) -> str:
    """Three figures."""
    return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'


def stages(estimates: Sequence[StageEstimate], conditions: Conditions) -> str:
    """Table of the stages with their sum, notes, assumptions."""
    head = 'stage|GPUs|GFLOP/image|EFLOP|iterations|images/s|MFU|hours|GPU-h|GB/GPU|disk GB|kWh|cores/GPU'.split('|')
    priced = conditions.price is not None
    rows = []
    for p in estimates:
        row = [p.name, p.gpus, short(p.work.train / 1e9), short(p.flops / 1e18), p.iterations, short(p.rate * p.gpus),
               f'{p.mfu:.0%}', short(p.hours), short(p.gpu_hours), short(p.memory['total'] / 1e9), short(p.disk / 1e9),
               short(p.energy), short(p.cores)]  # fmt: skip
        rows.append(row + ([short(p.cost)] if priced else []))
    if len(estimates) > 1:
        columns = [(p.hours, p.gpu_hours, p.disk / 1e9, p.energy) for p in estimates]
        totals = [short(sum(values)) for values in zip(*columns)]
        flops = short(sum(p.flops for p in estimates) / 1e18)
        row = ['together', '', '', flops, '', '', '', totals[0], totals[1], '', totals[2], totals[3], '']
        rows.append(row + ([short(sum(p.cost for p in estimates))] if priced else []))
    lines = [table(head + (['cost'] if priced else []), rows), '']
    for p in estimates:
        lines += [f'{p.name}: {p.work.model}; {p.basis}', *(f'  {note}' for note in p.notes)]
    return '\n'.join([*lines, '', *_assumptions(estimates, conditions)])


def _assumptions(estimates: Sequence[StageEstimate], conditions: Conditions) -> list[str]:
    spec, known = conditions.spec, {name: conditions.images.get(name, IMAGES[name][0]) for name in IMAGES}
    sizes = ', '.join(f'{name} {count}' for name, count in known.items())
    rates = ', '.join(f'{kind} {conditions.mfu.get(kind, MFU[kind]):.0%}' for kind in MFU)
    loaders = ', '.join(f'{kind} {rate:g}' for kind, rate in {p.kind: p.loader for p in estimates}.items())
    text = (
        f'{spec.name}: {spec.bf16 / 1e12:g} TFLOP/s bf16 dense, {spec.memory / 1e9:g} GB, {spec.power:g} W. '
        f'Assumed (options change it): MFU where nothing is measured {rates}; training images {sizes}; images/s a CPU '
        f'core {loaders}; power {conditions.utilisation:.0%} of the limit x PUE {conditions.pue:g}, GPUs '
        'only. Memory is an estimate: weights, gradients, optimizer, cast weights, activations, 1.5 GB of context. '
        'Hours include evaluations during training; no start-up, no checkpoint writing, no waiting for data unless '
        '--cores says how many cores a GPU has. Stages run one after the other. More GPUs than a node: efficiency by '
        'the scaling model (--scaling).'
    )
    return textwrap.wrap(text, 118)


def speedup(rows: Sequence[Row], conditions: Conditions) -> str:
    """The published speed-up table and ours."""
    head = '|iterations|FLOPs/iter|ours|encoder only|hours, 64 A100'.split('|')
    head += [f'ours, {conditions.gpus} {conditions.gpu}', 'speed-up', 'ours by FLOPs', 'ours if reading limits']
    body = []
    for published, ours in zip(PUBLISHED, rows):
        body.append([
            ours.method, f'{published.iterations:g}x', f'{"~" if published.flops > 1 else ""}{published.flops:g}x',
            f'{ours.flops:.2f}x', f'{ours.encoder:.2f}x', published.hours, short(ours.hours), f'{published.speedup:g}x',
            f'{ours.speedup:.2f}x', f'{ours.reading:.2f}x',
        ])  # fmt: skip
    last, first = PUBLISHED[-1], PUBLISHED[0]
    ratio = last.hours / (last.iterations * first.hours)
    text = (
        'Published (ViT-L): Li et al., TPAMI 2024, "Total speedup for different methods on 64 NVIDIA A100 GPUs". There '
        f'an EMAE iteration takes {ratio:.2f} times as long as an MAE iteration, for about 4 times the FLOPs; why, the '
        'table does not say. It is what one sees where reading images sets the pace: every method then needs the same '
        'time an image, and an eighth of the iterations is 8 times as fast. Where arithmetic sets the pace, the gain '
        f'from the same eighth is {rows[-1].speedup:.1f} times. "About 4 times" fits the encoder; with MAE\'s decoder '
        'counted, supervised training is cheaper than that.'
    )
    title = 'Speed-up of EMAE; "ours" is counted, at one MFU for all three, and no measurement.'
    return '\n'.join([title, table(head, body), *textwrap.wrap(text, 118)])


def scaling(steps: Sequence[Step], weak: bool, name: str, a: Assumptions, nic: float) -> str:
    """The efficiency curve as a table, with every assumption."""
    head = 'GPUs|batch/GPU|step ms|compute|stragglers|fixed|all-reduce|exposed|reading|images/s|efficiency'.split('|')
    rows = []
    for s, share in zip(steps, efficiencies(steps)):
        times = (s.seconds, s.compute, s.straggle, s.fixed, s.reduce, s.exposed, s.loader)
        row = [s.gpus, short(s.batch), *(short(1e3 * t) for t in times), short(s.images_per_second), f'{share:.0%}']
        rows.append(row)
    said = ', '.join(f'{item.name}={getattr(a, item.name):g}' for item in fields(a))
    kind = 'the batch of each GPU stays (weak)' if weak else 'the batch of all GPUs together stays (strong)'
    text = f'Assumed: {said}, network {nic * 8 / 1e9:g} Gbit/s a GPU; nothing of this was measured on several GPUs.'
    title = f'Scaling of {name}: {kind}; milliseconds a step.'
    return '\n'.join([title, table(head, rows), *textwrap.wrap(text, 118)])


def checks(found: Sequence[dict]) -> str:
    """Published trainings beside what the model would have said."""
    head = ['training', 'GPUs', 'published h', 'images/s/GPU', 'MFU these imply', 'predicted h', 'published/predicted']
    rows = [
        [f['name'], f'{f["gpus"]} {f["gpu"]}', f['hours'], short(f['rate']), f'{f["mfu"]:.0%}', short(f['predicted']),
         f'{f["hours"] / f["predicted"]:.2f}'] for f in found
    ]  # fmt: skip
    sources = [f'{f["name"]}: {f["source"]}' for f in found]
    return '\n'.join(
        [table(head, rows), f'Predicted from an assumed MFU of {found[0]["assumed"]:.0%} within a node.', *sources]
    )


def as_json(estimates: Sequence[StageEstimate], conditions: Conditions, more: dict[str, Any]) -> str:
    """Everything the text says and the parts of each model, in SI units (hours, kWh)."""
    content = dict(
        schema=1, gpu=vars(conditions.spec), assumptions=vars(conditions.assumptions),
        utilisation=conditions.utilisation, pue=conditions.pue, stages=[p.as_dict() for p in estimates], **more,
    )  # fmt: skip
    return json.dumps(content, indent=2)


def draw(steps: Sequence[Step], name: str, path: Path) -> Path:
    """The efficiency curve as a picture."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.5), layout='constrained')
    axis.semilogx([s.gpus for s in steps], [100 * e for e in efficiencies(steps)], 'o-', base=2)
    axis.set(xlabel='GPUs', ylabel='efficiency, %', ylim=(0, 105), title=f'{name} (model, not measured)')
    axis.set_xticks([s.gpus for s in steps], [str(s.gpus) for s in steps])
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
