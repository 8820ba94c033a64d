"""The command line of ``tools/plan.py``: from arguments to text. Reading the chain is the caller's."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mim_mm.cost import display, published
from mim_mm.cost.estimate import IMAGES, MFU, Conditions, StageEstimate, estimate_stage
from mim_mm.cost.hardware import gpu
from mim_mm.cost.measured import known_measurements, read_measurements
from mim_mm.cost.memory import optimizer_states
from mim_mm.cost.scaling import Assumptions, Step, curve, kernel_rate, step

COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024)
# (name, resolved config, path of the config, GPUs of its own or None)
Entry = tuple[str, dict, str, 'int | None']


def arguments(text: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/plan.md'
    )
    add = parser.add_argument
    add('config', help='a recipe or a chain')
    add('--gpus', type=int, default=8, metavar='N', help='of each stage (default: %(default)s)')
    add('--gpu', default='h100', metavar='NAME', help='an unknown name lists those that are known')
    add('--only', nargs='+', default=(), metavar='STAGE')
    add(
        '--measured',
        nargs='+',
        type=Path,
        default=(),
        metavar='FILE',
        help='measured throughput (format: docs/plan.md)',
    )
    add('--results', type=Path, metavar='DIR', help='folder with such files (default: docs/results)')
    add(
        '--mfu', nargs='+', default=(), metavar='KIND=SHARE', help=f'where nothing is measured; kinds: {", ".join(MFU)}'
    )
    add('--loader', nargs='+', default=(), metavar='KIND=RATE', help='images/s that one CPU core reads')
    add('--images', nargs='+', default=(), metavar='NAME=N', help=f'training images; names: {", ".join(IMAGES)}')
    add('--size', type=int, metavar='PX', help='input side in place of the one in the configs')
    add('--price', type=float, metavar='P', help='of one GPU-hour, any currency')
    add('--utilisation', type=float, default=0.8, help="share of the GPU's power limit")
    add('--pue', type=float, default=1.2, help='power of the building over that of the machines')
    add('--nic', type=float, metavar='GBIT', help='network of each GPU, Gbit/s')
    add('--scaling', metavar='STAGE', nargs='?', const='', help='8 to 1024 GPUs for this stage (default: the first)')
    add('--weak', action='store_true', help='with --scaling: the batch of each GPU stays')
    add('--slides', action='store_true', help="EMAE's published speed-up table beside ours")
    add('--checks', action='store_true', help='published trainings beside what this model predicts')
    add('--json', action='store_true', help='JSON in place of tables')
    add('--png', type=Path, metavar='FILE', help='with --scaling: draw the curve')
    for item in fields(Assumptions):
        flag = '--' + item.name.replace('_', '-')
        add(flag, type=type(item.default), default=item.default, metavar='X', help='scaling model, see docs/plan.md')
    return parser


def _pairs(items: Sequence[str], what: str, number: Callable = float) -> dict[str, Any]:
    found = {}
    for item in items:
        name, _, value = item.partition('=')
        try:
            found[name] = number(value)
        except ValueError:
            raise ValueError(f'--{what} {item!r}: write NAME=NUMBER') from None
    return found


def conditions_of(args: argparse.Namespace, results: Path | None) -> Conditions:
    """What the arguments say.

    Raises:
        ValueError: a number out of range, an unknown GPU or kind, a file that is no measurement.
    """
    folder = args.results or results
    entries = known_measurements(folder) if folder and folder.is_dir() else []
    for path in args.measured:
        entries += read_measurements(path)
    conditions = Conditions(
        gpus=args.gpus, gpu=args.gpu, measurements=entries, mfu=_pairs(args.mfu, 'mfu'), price=args.price,
        loader=_pairs(args.loader, 'loader'), images=_pairs(args.images, 'images', int), utilisation=args.utilisation,
        pue=args.pue, nic_gbit=args.nic, size=args.size,
        assumptions=Assumptions(**{item.name: getattr(args, item.name) for item in fields(Assumptions)}),
    )  # fmt: skip
    gpu(args.gpu)  # an unknown one stops here and not stage by stage
    return conditions


def scaled(estimate: StageEstimate, cfg: dict, conditions: Conditions, weak: bool) -> list[Step]:
    """The scaling curve of a stage, from the rate its estimate takes for one GPU."""
    a, states, spec = conditions.assumptions, optimizer_states(cfg), conditions.spec
    loader = estimate.loader
    # Without the loss between nodes and the limit of the CPU cores, which the curve adds itself.
    alone = estimate.cores * loader / estimate.efficiency
    # The estimate's rate is that of GPUs side by side, which already wait for each other.
    free, seconds, together = replace(a, cores=0.0), estimate.batch / alone, min(estimate.gpus, a.node)
    kernels = kernel_rate(estimate.work, spec, seconds, estimate.batch, a, states)
    now = step(estimate.work, spec, together, estimate.batch, kernels, loader, conditions.nic, free, states).seconds
    kernels = kernel_rate(estimate.work, spec, seconds**2 / now, estimate.batch, a, states)
    total = (
        estimate.batch
        if weak
        else (cfg.get('auto_scale_lr') or {}).get('base_batch_size') or estimate.batch * estimate.gpus
    )
    return curve(estimate.work, spec, COUNTS, total, kernels, loader, conditions.nic, a, weak, states)


def _named(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    known = [entry[0] for entry in entries]
    for name in names:
        if name not in known:
            raise ValueError(f'no stage {name!r} here: there are {", ".join(known)}')
    return [entry for entry in entries if entry[0] in names]


def answer(entries: Sequence[Entry], args: argparse.Namespace, results: Path | None = None) -> str:
    """What ``tools/plan.py`` prints.

    Args:
        entries: the stages.
        args: of :func:`arguments`.
        results: folder with measurements.

    Raises:
        ValueError: something asked for that cannot be; the message says what could.
    """
    conditions = conditions_of(args, results)
    chosen = _named(entries, args.only) if args.only else list(entries)
    curved = _named(chosen, [args.scaling])[0][0] if args.scaling else chosen[0][0]
    estimates, left_out = {}, {}
    for name, cfg, path, gpus in chosen:
        try:
            estimates[name] = estimate_stage(name, cfg, conditions, path, gpus)
        except ValueError as error:
            left_out[name] = str(error)
        except KeyError as error:
            left_out[name] = f'its config has no {error}'
    if not estimates or (args.scaling is not None and curved in left_out):
        raise ValueError(left_out[curved if curved in left_out else chosen[0][0]])
    configs = {name: cfg for name, cfg, _, _ in chosen}
    texts, more = [display.stages(list(estimates.values()), conditions)], dict(left_out=left_out)
    texts += [f'Left out: {name}: {why}' for name, why in left_out.items()]
    if args.slides:
        emae = [cfg for _, cfg, _, _ in chosen if cfg['model']['type'].endswith('EMAE')]
        if not emae:
            raise ValueError('--slides compares EMAE with MAE and supervised training, and no stage is an EMAE')
        rows = published.speedup(emae[0], conditions)
        texts.append(display.speedup(rows, conditions))
        more['speedup'] = dict(published=[vars(r) for r in published.PUBLISHED], ours=[vars(r) for r in rows])
    if args.scaling is not None:
        steps = scaled(estimates[curved], configs[curved], conditions, args.weak)
        if not steps:
            raise ValueError(f'{curved}: the batch is smaller than {COUNTS[0]}; use --weak')
        texts.append(display.scaling(steps, args.weak, curved, conditions.assumptions, conditions.nic))
        more['scaling'] = [vars(s) | dict(images_per_second=s.images_per_second) for s in steps]
        if args.png:
            texts.append(str(display.draw(steps, curved, args.png)))
    if args.checks:
        found = [published.check(t, conditions.mfu.get('pretrain', MFU['pretrain']), conditions.assumptions)
                 for t in published.TRAININGS]  # fmt: skip
        texts.append(display.checks(found))
        more['checks'] = found
    return display.as_json(list(estimates.values()), conditions, more) if args.json else '\n\n'.join(texts)
