"""The command lines of ``tools/train.py`` and ``tools/test.py``; reading one imports no runner and no model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmengine.config import DictAction

from mim_mm.checkpoint.trust import add_trust_argument
from mim_mm.engine.start.run_record import TRACKERS


def train_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Of a training; ``argv`` None: those of this process."""
    parser = _parser(
        'Train a recipe. Example: '
        'tools/train.py configs/emae/emae_vitb_800e.py --data-root data/imagenet --work-dir work_dirs/emae',
        '?',
    )
    add = parser.add_argument
    resume = "go on from the newest checkpoint of the work dir ('auto': start afresh if there is none), or from CKPT; "
    resume += 'with the config and the options that the run was started with, where none are given'
    add('--resume', nargs='?', const='latest', metavar='CKPT', help=resume)
    allow = 'a setting that --resume may change although it changes what is learned, with all below it (repeatable)'
    add('--allow-change', action='append', default=[], metavar='KEY', help=allow)
    add('--amp', action='store_true', help='train under bf16 autocast')
    add('--compile', action='store_true', help='MAE and EMAE: compile the step (torch.compile)')
    add('--auto-scale-lr', action='store_true', help='scale lr by batch / auto_scale_lr.base_batch_size')
    add(
        '--log',
        nargs='+',
        default=[],
        choices=TRACKERS,
        help='trackers beside the log on disk',
    )
    args = parser.parse_args(argv)
    if args.config is None and args.resume is None:
        parser.error('the following arguments are required: config (only --resume knows the one of the run)')
    return args


def test_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Of an evaluation of one checkpoint; ``argv`` None: those of this process."""
    parser = _parser('Evaluate a checkpoint: tools/test.py CONFIG CHECKPOINT.')
    parser.add_argument('checkpoint', help='the file of the model, such as iter_280.pth')
    return parser.parse_args(argv)


def _parser(description: str, configs: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add('config', nargs=configs, help='e.g. configs/emae/emae_vitb_800e.py')
    add('--work-dir', help='where checkpoints and logs go (default: work_dirs/<config name>)')
    add('--cfg-options', nargs='+', action=DictAction, default={}, help='key=value in place of what the config says')
    add(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='set by tools/dist_train.sh and others',
    )
    add('--data-root', help='folder of the data set, instead of the one the config names')
    add('--seed', type=int, help='random seed (default: the config, else 0)')
    add_trust_argument(parser)
    add('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser
