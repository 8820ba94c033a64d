#!/usr/bin/env python
"""Run a chain over a grid of settings and plot what comes out; calling it again goes on where it stopped.

tools/sweep.py SWEEP_CONFIG --jobs 4 --gpus 2
tools/sweep.py SWEEP_CONFIG --dry-run
"""

import argparse
import sys

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.files import NotWritten
from mim_mm.report.figures_sweep import draw_sweep
from mim_mm.transfer import ChainError
from mim_mm.transfer.sweep.grid import load_sweep
from mim_mm.transfer.sweep.sweep_run import SweepCall, run_sweep


def parse() -> tuple:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/masking.md'
    )
    add = parser.add_argument
    add('sweep', metavar='SWEEP_CONFIG', help='chain, grid and name: see docs/masking.md')
    add('--gpus', type=int, default=1, metavar='N', help='devices of each stage')
    add('--jobs', type=int, default=1, metavar='N', help='points that run side by side, each with its own devices')
    add('--work-dir', metavar='DIR', help="in place of the sweep's work_dir")
    add('--only', nargs='+', default=(), metavar='POINT', help='run these points only, named as --dry-run names them')
    add('--dry-run', action='store_true', help='list the points and their commands; do nothing, write nothing')
    add('--plot', action='store_true', help='run nothing, draw what is there')
    add('--data-root', nargs='+', default=(), metavar='NAME=DIR', help='as for tools/transfer.py')
    add('--launcher', help='as for tools/transfer.py; slurm outside an allocation: the points as one job array')
    add('--slurm', nargs='+', default=(), metavar='KEY=VALUE', help='as for tools/transfer.py')
    add('--auto-scale-lr', action='store_true', help='as for tools/transfer.py')
    options = vars(parser.parse_args())
    return options.pop('plot'), SweepCall(**options)


def main() -> int:
    plot, call = parse()
    code, sweep = (0, load_sweep(call.sweep, call.work_dir)) if plot else run_sweep(call)
    if not call.dry_run:
        for path in filter(None, draw_sweep(sweep.work_dir)):
            print(path)
    return code


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (ChainError, FileNotFoundError, NotWritten) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
