#!/usr/bin/env python
"""Pretrain, probe, fine-tune, detect and report with one command; calling it again goes on where it stopped.

tools/transfer.py configs/chains/emae_vitb_800e.py --gpus 8
tools/transfer.py configs/chains/emae_vitb_800e.py --gpus 8 --skip-pretrain epoch_800.pth --dry-run
tools/transfer.py --compare configs/emae/emae_vitb_300e.py mae=mae.pth --gpus 8     (docs/compare.md)
tools/transfer.py --images DIR --classes DIR --boxes ANN.json --boxes-images DIR --work-dir work_dirs/mine
"""

import argparse
import sys

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.trust import add_trust_argument
from mim_mm.files import NotWritten
from mim_mm.transfer import Call, ChainError, run_chain
from mim_mm.transfer.call import GRACE_S
from mim_mm.transfer.own import own_options


def parse(argv: list[str] | None = None) -> Call:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/chain.md'
    )
    add = parser.add_argument
    add('chain', nargs='?', help='chain config, e.g. configs/chains/emae_vitb_800e.py')
    add(
        '--gpus', type=int, default=1, metavar='N', help='devices of each stage; more than one uses tools/dist_train.sh'
    )
    add('--jobs', type=int, default=1, metavar='N', help='stages that run side by side, each with its own devices')
    add('--work-dir', metavar='DIR', help="in place of the chain's work_dir")
    add('--only', nargs='+', default=(), metavar='STAGE', help='run these stages (and the report)')
    add('--from', dest='start_from', metavar='STAGE', help='run this stage and those after it')
    add('--rerun', nargs='+', default=(), metavar='STAGE', help='run these again even if done; the old run is moved')
    add(
        '--skip-pretrain', nargs='+', default=(), metavar='CKPT',
        help='start from this checkpoint instead of pretraining; STAGE=CKPT where there are several',
    )  # fmt: skip
    add('--dry-run', action='store_true', help='say what would be done and why; do nothing, write nothing')
    add('--cfg-options', nargs='+', default=(), metavar='STAGE.KEY=VALUE', help="change a stage's config")
    add('--data-root', nargs='+', default=(), metavar='NAME=DIR', help='e.g. imagenet=/data/imagenet coco=/data/coco')
    add('--launcher', help='none, pytorch, slurm (on a login node: submits jobs), mpi; default: torchrun if --gpus > 1')
    add(
        '--slurm', nargs='+', default=(), metavar='[STAGE.]KEY=VALUE',
        help='with --launcher slurm on a login node: options of sbatch, e.g. partition=gpu time=1-00:00:00 nodes=2',
    )  # fmt: skip
    add('--auto-scale-lr', action='store_true', help="scale learning rates to the batch, as tools/train.py's option")
    allow = 'KEY of tools/train.py that a resumed stage may have otherwise, e.g. devices (repeatable)'
    add('--allow-change', action='append', metavar='KEY', help=allow)
    add('--grace', dest='grace_s', type=float, default=GRACE_S, metavar='S', help='seconds a stage may take to stop')
    add('--log', nargs='+', default=(), choices=['tensorboard', 'wandb', 'mlflow'], help='trackers of every stage')
    add_trust_argument(parser)
    add('--compare', nargs='+', default=(), metavar='ARM', help='[NAME=]CONFIG.py or NAME=CHECKPOINT, no chain')
    add('--with', dest='recipes', metavar='CHAIN', help='chain whose downstream stages all arms of --compare run')
    add('--seeds', nargs='+', default=(), metavar='N', help='of --compare: N, and KIND=N for one kind (default 3)')
    own_options.add_options(parser)
    jobs = parser.add_argument_group('in the jobs that --launcher slurm submits')
    add = jobs.add_argument
    add('--as-job', action='store_true', help='other jobs of the chain may run at the same time')
    add('--requeues', type=int, metavar='N', help='how often the job may put itself back into the queue')
    options = vars(parser.parse_args(argv))
    options['allow_change'] = options['allow_change'] or ()
    if not (options['chain'] or options['compare'] or options['images']):
        parser.error('give a chain config, --images DIR, or --compare ARM ...')
    if not options['compare'] and (options['recipes'] or options['seeds']):
        parser.error('--with and --seeds belong to --compare; a chain config names its own recipes and seeds')
    if options['compare'] and options['images']:
        parser.error('--compare and --images cannot both be given; --compare takes the data of its recipes')
    own = own_options.take_options(options)
    return Call(**options, own=own)


def main() -> int:
    return run_chain(parse())


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (ChainError, NotWritten) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
