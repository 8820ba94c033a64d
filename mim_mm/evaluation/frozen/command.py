"""What the tools on frozen features share: arguments, the encoder and the features that these mean, results."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config

from mim_mm import files
from mim_mm.checkpoint.read import resolve_checkpoint
from mim_mm.checkpoint.report import LoadReport
from mim_mm.checkpoint.trust import add_trust_argument
from mim_mm.evaluation.frozen.config_images import labelled_images
from mim_mm.evaluation.frozen.features import Features, Source, load_or_extract
from mim_mm.evaluation.frozen.folder_images import Preprocess

__all__ = [
    'add_feature_arguments',
    'add_load_arguments',
    'announce',
    'extraction',
    'frozen_features',
    'source_of',
    'write_result',
]


def add_feature_arguments(parser: argparse.ArgumentParser, data_root: bool = True) -> None:
    """The arguments that every tool on frozen features has; without ``data_root`` where it names its images itself."""
    add = parser.add_argument
    add('config', help='a config with model.backbone: of a classifier or of the pretraining')
    add('checkpoint', help="file or work dir; 'random': an untrained encoder, the control")
    if data_root:
        add('--data-root', help='folder with train/<class>/* and val/<class>/* (default: the data of the config)')
    add('--work-dir', help='where results and features go (default: work_dirs/frozen/<config>/<run>_<checkpoint>)')
    add('--resize', type=int, help='short edge in pixels (default: crop * 256 / 224)')
    add('--crop', type=int, help="centre crop in pixels (default: the backbone's img_size)")
    add('--batch-size', type=int, default=128)
    add('--workers', type=int, default=4, help='loader processes (default: %(default)s)')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--amp', choices=['bf16', 'fp16'], help='autocast of the forward pass (default: float32)')
    add_load_arguments(parser)
    add('--seed', type=int, default=0, help="of the 'random' encoder (default: %(default)s)")
    add(
        '--value-range',
        type=float,
        nargs=2,
        metavar=('BLACK', 'WHITE'),
        help="of images of more than 8 bits (default: the config's value_range)",
    )


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """How an encoder is taken from a file: the arguments of :func:`mim_mm.checkpoint.load.load_encoder`."""
    add = parser.add_argument
    add('--prefix', default='backbone.', help='where the encoder lies in the checkpoint')
    add('--entry', help='which model of a file with several: model_ema, student, ... (default: see the load report)')
    add('--min-loaded', type=float, default=0.95, help='least part of the encoder that the checkpoint must fill')
    add('--skip', nargs='+', default=(), metavar='REGEX', help='names of model or file that are left out on purpose')
    add_trust_argument(parser)


def source_of(args: argparse.Namespace) -> tuple[Source, Path]:
    """The encoder and the work dir that the parsed :func:`add_feature_arguments` mean.

    Raises:
        LoadError: no such checkpoint. FileNotFoundError: no such config. ValueError: sizes that do not go together.
    """
    cfg = Config.fromfile(args.config)
    if args.value_range:
        cfg.value_range = tuple(args.value_range)
    preprocess = Preprocess.from_config(cfg, args.resize, args.crop)
    checkpoint = None if args.checkpoint == 'random' else resolve_checkpoint(args.checkpoint)
    run = f'{checkpoint.resolve().parent.name}_{checkpoint.stem}' if checkpoint else f'random_{args.seed}'
    work_dir = Path(args.work_dir or Path('work_dirs', 'frozen', Path(args.config).stem, run))
    how = dict(prefix=args.prefix, min_loaded=args.min_loaded, entry=args.entry, skip=tuple(args.skip))
    return Source(cfg, checkpoint, preprocess, amp=args.amp, seed=args.seed, **how), work_dir


def extraction(args: argparse.Namespace) -> dict:
    """The options of :func:`mim_mm.evaluation.frozen.features.load_or_extract`."""
    return dict(batch_size=args.batch_size, workers=args.workers, device=args.device)


def announce(features: Features, source: Source) -> None:
    """Print the load report of the encoder, also of stored features."""
    stored = features.provenance['load_report']
    print(LoadReport.from_dict(stored).table() if stored else f'Random encoder, seed {source.seed}', flush=True)


def frozen_features(args: argparse.Namespace, share: tuple[int, int] = (0, 1)) -> tuple[Features, Features, Path]:
    """Train and val features for the parsed :func:`add_feature_arguments`, and the work dir; prints the load report.

    Args:
        share: (i, n): only the i-th of n parts of either, for n processes.

    Raises:
        ValueError: neither ``--data-root`` nor the config names the data. Others: see ``features``.
    """
    source, work_dir = source_of(args)
    train, val = labelled_images(source.cfg, source.preprocess, args.data_root, share)
    found = load_or_extract(source, train, work_dir / 'features', **extraction(args))
    if share[0] == 0:
        announce(found, source)
    return found, load_or_extract(source, val, work_dir / 'features', **extraction(args)), work_dir


def write_result(path: Path, result: dict, provenance: Mapping[str, dict]) -> None:
    """``result`` with the ``provenance`` of each feature set as JSON; the file appears whole or not at all."""
    files.write_json(path, dict(schema=1, **result, features=dict(provenance)))
