"""``tools/transfer.py --images``: from a user's own images to a chain, written out in full before it runs.

The set is surveyed, then ``WORK_DIR`` gets ``chain.py``, a config a stage in ``configs/`` and the lists these read.
They are ordinary files: to be read, changed, and run by ``tools/transfer.py WORK_DIR/chain.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from mmengine.config import DictAction

from mim_mm.checkpoint.atomic import write_atomically
from mim_mm.data import class_folders, coco_file, image_survey, own_images
from mim_mm.data.decode import UnreadableImage
from mim_mm.data.image_sources import SourceError, find_source, open_source

from . import own_configs
from .chain import ChainError, load_chain
from .own_configs import HERE, Encoder

DEFAULT_METHOD = 'configs/emae/emae_vitb_300e.py'
RECORD = 'own_data.json'
STATISTICS_SAMPLE = 256


@dataclass
class OwnData:
    """The options of ``tools/transfer.py`` that say which data and which method."""

    images: Optional[str] = None
    classes: Optional[str] = None
    boxes: Optional[str] = None
    boxes_images: Optional[str] = None
    boxes_val: Optional[str] = None
    boxes_val_images: Optional[str] = None
    method: str = DEFAULT_METHOD
    channels: int = 3
    val_fraction: float = 0.2
    decode: bool = False
    max_unreadable: float = 0.1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`OwnData` to a parser."""
    group = parser.add_argument_group('own data, in place of a chain config', 'More: docs/own_data.md')
    add = group.add_argument
    add('--images', metavar='DIR|LIST|TAR', help='unlabelled images: a folder, a list file, tar shards (quote a glob)')
    add('--classes', metavar='DIR', help='DIR/train/<class>/*, DIR/val/<class>/*, or DIR/<class>/*')
    add('--boxes', metavar='JSON', help='annotations in COCO format; divided by a seed without --boxes-val')
    add('--boxes-images', metavar='DIR', help="where the annotations' images lie")
    add('--boxes-val', metavar='JSON', help='annotations to evaluate on')
    add('--boxes-val-images', metavar='DIR', help='where their images lie, if elsewhere')
    add('--method', default=DEFAULT_METHOD, metavar='CONFIG', help='pretraining recipe (default: %(default)s)')
    add('--channels', type=int, default=3, metavar='N', help='channels of the model; to 1 and 3 all is converted')
    add('--val-fraction', type=float, default=0.2, metavar='F', help='held out where no validation set is given')
    add('--decode', action='store_true', help='survey by decoding every image, not by its header')
    add('--max-unreadable', type=float, default=0.1, metavar='F', help='stop if more of the images cannot be read')


def take_options(args: Dict[str, Any]) -> OwnData:
    """Take these options out of the parsed ones, so that the others are those of a call of the chain."""
    return OwnData(**{name: args.pop(name) for name in OwnData.__dataclass_fields__})


def chain_of(own: OwnData, args: Dict[str, Any], say: Callable[[str], None] = print) -> str:
    """The chain config to run: the one given, or the one written from the user's data.

    Args:
        args: the other options; ``cfg_options`` are written into the chain and taken out.

    Raises:
        ChainError: neither or both are given, or the data cannot be used; nothing was written then.
    """
    if own.images is None:
        extra = [n for n, v in vars(own).items() if v != OwnData.__dataclass_fields__[n].default]
        if extra or not args['chain']:
            raise ChainError(
                f'--{extra[0].replace("_", "-")} needs --images' if extra else 'give a chain config, or --images'
            )
        return args['chain']
    if args['chain']:
        raise ChainError(f'give a chain config or --images, not both; {args["chain"]} is run without --images')
    if not args['work_dir']:
        raise ChainError('--images needs --work-dir DIR: the configs, lists and results go there')
    try:
        return str(_prepare(own, args, say))
    except (SourceError, UnreadableImage) as error:
        raise ChainError(str(error)) from error


def _prepare(own: OwnData, args: Dict[str, Any], say: Callable[[str], None]) -> Path:
    work_dir, gpus = Path(args['work_dir']), max(1, args['gpus'])
    if own.channels < 1:
        raise ChainError(f'--channels {own.channels} must be at least 1')
    base, method, encoder = own_configs.read_method(own.method)
    if (own.classes or own.boxes) and not encoder.is_vit:
        raise ChainError(
            f'--classes and --boxes have recipes for VisionTransformer, {own.method} trains {encoder.kind}: pretrain '
            'with --images alone, and write a chain for the rest (docs/chain.md)'
        )
    seen = _look(own.images, own, say, encoder.img_size)
    stats = None
    if own.channels != 3:
        mean, std, count = own_images.channel_statistics(seen.places, own.channels, STATISTICS_SAMPLE)
        say(f'mean       {mean}\nstd        {std} (of {count:,} images drawn by seed 0)')
        stats = mean, std
    batch = max(1, min(method.train_dataloader.batch_size, len(seen.places) // gpus))
    files = {'unreadable.txt': seen.skip_list()}
    where = dict(seen.source.settings, skip_list=f'{HERE}/../unreadable.txt')
    files['configs/pretrain.py'] = own_configs.pretrain_text(
        base, method, own.channels, stats, where, batch, len(seen.places)
    )
    say(f'batch      {batch} images a device on {gpus} device(s), learning rate scaled to it')
    stages: Dict[str, Any] = {'pretrain': dict(kind='pretrain', config=f'{HERE}/configs/pretrain.py', arm='pretrained')}
    if own.classes:
        files.update(_classification(own, encoder, stats, gpus, say))
        for name, kind in (('quick_probe', 'probe'), ('linear', 'linear'), ('finetune', 'finetune')):
            stages[name] = dict(kind=kind, config=f'{HERE}/configs/{name}.py', init='pretrain')
    if own.boxes:
        files.update(_detection(own, encoder, stats, gpus, say))
        stages['detect'] = dict(kind='coco', config=f'{HERE}/configs/detect.py', init='pretrain')
    stages['report'] = dict(kind='report')
    _add_options(stages, args['cfg_options'])
    call = f'tools/transfer.py {work_dir / "chain.py"} --gpus {gpus}'
    title = (
        f'# {own.images}: pretrain, transfer, report. Written by tools/transfer.py --images; run it by\n# {call}\n\n'
    )
    body = dict(name=work_dir.resolve().name, work_dir=HERE, stages=stages)
    files['chain.py'] = title + ''.join(f'{key} = {own_configs.literal(value)}\n' for key, value in body.items())
    chain = work_dir / 'chain.py'
    if not args.get('dry_run'):
        write_files(work_dir, files)
        say(f'written    {chain} and {work_dir / "configs"}: change them as you like, then tools/transfer.py {chain}')
    elif not chain.is_file():
        raise ChainError(f'--dry-run: {chain} would be written, and is needed for a plan; nothing was written')
    load_chain(chain)
    args['cfg_options'] = ()
    return chain


def _look(given: str, own: OwnData, say: Callable[[str], None], small: int, source=None) -> image_survey.Survey:
    seen = image_survey.survey(source or find_source(given), own.channels, own.decode, say=say)
    for line in seen.lines(given, small):
        say(line)
    seen.check(own.max_unreadable)
    return seen


def _classification(own: OwnData, encoder: Encoder, stats, gpus: int, say) -> Dict[str, str]:
    root = os.path.abspath(os.path.expanduser(own.classes))
    train, val = class_folders.tree_parts(root)
    names = {}
    for part in dict.fromkeys([train, val] if val else [train]):
        source = open_source(os.path.join(root, part))
        seen = _look(os.path.join(own.classes, part), own, say, encoder.img_size, source)
        names[part] = [place.name for place in seen.places]
    lists = class_folders.class_lists(root, train, val, names, own.val_fraction)
    say(
        f'classes    {len(lists.classes)}, {len(lists.train):,} training and {len(lists.val):,} validation images '
        f'({lists.how})'
    )
    data = own_configs.Labelled(root, lists.classes, len(lists.train))
    files = {f'configs/{part}.txt': lists.text(part) for part in ('train', 'val')}
    for stage in ('quick_probe', 'linear', 'finetune'):
        files[f'configs/{stage}.py'] = own_configs.classification_text(stage, encoder, data, own.channels, stats, gpus)
    return files


def _detection(own: OwnData, encoder: Encoder, stats, gpus: int, say) -> Dict[str, str]:
    if not own.boxes_images:
        raise ChainError(
            '--boxes needs --boxes-images DIR, the folder that file_name in the annotations is relative to'
        )
    folders = [os.path.abspath(os.path.expanduser(own.boxes_images))]
    folders.append(os.path.abspath(os.path.expanduser(own.boxes_val_images)) if own.boxes_val_images else folders[0])
    given = [os.path.abspath(os.path.expanduser(own.boxes))]
    if own.boxes_val:
        given.append(os.path.abspath(os.path.expanduser(own.boxes_val)))
    wholes = [coco_file.read_coco(path, folder) for path, folder in zip(given, folders)]
    if len({part.masks for part in wholes}) > 1:  # a box detector: no box is lost for want of a mask
        wholes = [coco_file.read_coco(path, folder, masks=False) for path, folder in zip(given, folders)]
    parts, how, whole = wholes, f'given by {own.boxes_val}', wholes[0]
    notes = [(path, note) for path, part in zip((own.boxes, own.boxes_val), wholes) for note in (*part.notes, part.checked)]
    if own.boxes_val:
        coco_file.same_classes(*parts)
    else:
        parts = list(coco_file.divide(whole, own.val_fraction))
        folders[1], how = folders[0], f'{own.val_fraction:g} of the images, divided by seed 0'
    files, paths = {}, []
    for name, path, part in zip(('boxes_train', 'boxes_val'), [*given, given[0]], parts):
        paths.append(f'{HERE}/{name}.json' if part.changed else path)
        if part.changed:
            files[f'configs/{name}.json'] = json.dumps(part.content)
    masks = all(part.masks for part in parts)
    for path, note in notes:
        say(f'boxes      {path}: {note}')
    counts = [len(part.content['images']) for part in parts]
    say(f'boxes      {len(whole.classes)} classes, {counts[0]:,} training and {counts[1]:,} validation images ({how})')
    data = own_configs.Boxes(*paths, *folders, whole.classes, masks, counts[0])
    files['configs/detect.py'] = own_configs.detection_text(encoder, data, own.channels, stats, gpus)
    return files


def _add_options(stages: Dict[str, Any], items: Sequence[str]) -> None:
    """``STAGE.key=value`` of the command line into the stages, so that the written chain has them too."""
    for item in items:
        path, equals, value = item.partition('=')
        name, dot, key = path.partition('.')
        if not equals or not dot or not key or name not in stages or name == 'report':
            have = ', '.join(n for n in stages if n != 'report')
            raise ChainError(f'--cfg-options {item!r} must be STAGE.key=value, with a stage of {have}')
        stages[name].setdefault('options', {})[key] = DictAction._parse_iterable(value)


def write_files(work_dir: Path, files: Dict[str, str]) -> None:
    """Write the files, but none over one that the user has changed since.

    Raises:
        ChainError: a file differs from what was written here, and from what would be written now.
    """
    record = work_dir / RECORD
    try:
        known = json.loads(record.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        known = {}
    changed: List[str] = []
    for name, text in files.items():
        path = work_dir / name
        if path.is_file():
            now = hashlib.sha256(path.read_bytes()).hexdigest()
            if now not in (known.get(name), _digest(text)):
                changed.append(str(path))
    if changed:
        raise ChainError(
            f'{", ".join(changed)} was changed since it was written, so it is not written anew. To run what is there: '
            f'tools/transfer.py {work_dir / "chain.py"}; to start afresh remove the file or give another --work-dir'
        )
    for name, text in files.items():
        write_atomically(work_dir / name, text.encode('utf-8', 'surrogateescape'))
    digests = {name: _digest(text) for name, text in files.items()}
    write_atomically(record, json.dumps({**known, **digests}, indent=1).encode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()
