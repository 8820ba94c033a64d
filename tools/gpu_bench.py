#!/usr/bin/env python
"""Measures on one GPU what docs/speed.md has targets for, in two parts of under five minutes each.

tools/gpu_bench.py OUT                          # all of it
tools/gpu_bench.py OUT --part 1 --images DIR    # then --part 2; a call makes what has no figures in OUT yet
tools/gpu_bench.py OUT --only emae_vitb mae_vitb
tools/gpu_bench.py OUT --rehearse               # everything at small size on a CPU

OUT/rows.jsonl has a line a measurement as soon as it is made, OUT/summary.md the table.
"""

import argparse
import platform
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

import mim_mm  # noqa: E402, F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: E402, F401  (Ctrl-C ends in one line)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('out', type=Path, help='folder of the figures; those that are there are kept, and not made again')
    add('--part', type=int, choices=[1, 2], help='half of the rows')
    add('--only', nargs='+', default=[], metavar='ROW', help='these rows')
    add('--seconds', type=float, default=280, help='of a part; then the row at work is stopped (default %(default)s)')
    add('--images', help='folder of JPEGs of the size that will be trained on; default: synthetic ones')
    add('--coco', help='folder laid out as COCO: 20 steps of Mask R-CNN on it')
    add('--rehearse', action='store_true', help='small, on a CPU: does every row run?')
    args = parser.parse_args()
    for name in ('images', 'coco'):
        if getattr(args, name) and not Path(getattr(args, name)).is_dir():
            parser.error(f'--{name} {getattr(args, name)} is not a folder')
    return args


def commit() -> str:
    asked = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    return asked.stdout.strip() or 'unknown'


def main() -> int:
    args = arguments()
    import torch
    from mmengine.logging import MMLogger

    from mim_mm.benchmarks import session, session_rows
    from mim_mm.benchmarks.step import machine
    from mim_mm.files import write_text

    if not args.rehearse and not torch.cuda.is_available():
        print('error: torch sees no CUDA device; --rehearse tries every row on a CPU', file=sys.stderr)
        return 2
    try:
        rows = session.wanted(session_rows.ALL, args.part, args.only)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    sizes = replace(
        session_rows.SMALL if args.rehearse else session_rows.Sizes(),
        images=args.images and str(Path(args.images).resolve()),
        coco=args.coco and str(Path(args.coco).resolve()),
    )
    MMLogger.get_instance('mmengine', log_level='ERROR')
    m = machine(torch.device(sizes.device))
    place = f'{m["device"]}, torch {m["torch"]}, torchvision {m["torchvision"]}, Python {platform.python_version()}'
    about = dict(machine=place, commit=commit(), command=shlex.join(['tools/gpu_bench.py', *sys.argv[1:]]))
    parts = len({row.part for row in rows})
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    left = session.run(rows, sizes, args.out, args.seconds * parts, say, about)
    if args.rehearse:
        text = session.summary(session_rows.ALL, args.out, {}, 'A rehearsal at small size: no figure of it counts')
    else:
        text = session.summary(session_rows.ALL, args.out, session_rows.TARGETS)
    write_text(args.out / session.SUMMARY, text)
    print(text)
    if left:
        why = args.out / session.ROWS
        print(f'no figures of: {", ".join(left)} (why: {why}); the same call tries them', file=sys.stderr)
    return int(bool(left))


if __name__ == '__main__':
    sys.exit(main())
