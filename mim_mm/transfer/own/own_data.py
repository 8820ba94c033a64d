"""``tools/transfer.py --images``: from a user's own images to a chain, written out in full before it runs.

The set is surveyed, then ``WORK_DIR`` gets ``chain.py``, a config a stage in ``configs/`` and the lists these read.
They are ordinary files: to be read, changed, and run by ``tools/transfer.py WORK_DIR/chain.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim_mm.compat.internals import parse_option
from mim_mm.data import class_folders, coco_file, image_survey
from mim_mm.data.decode import PLAIN
from mim_mm.data.image_sources import find_source, open_source
from mim_mm.files import known_object, write_json, write_text
from mim_mm.folders import DataError
from mim_mm.transfer.chain import ChainError, load_chain
from mim_mm.transfer.display import Display
from mim_mm.transfer.own import own_configs, own_detection, own_encoder
from mim_mm.transfer.own.own_configs import HERE
from mim_mm.transfer.own.own_encoder import Encoder
from mim_mm.transfer.own.own_plan import SCRATCH, plan_lines, stage_table

DEFAULT_METHOD = 'configs/emae/emae_vitb_300e.py'
RECORD = 'own_data.json'
STATISTICS_SAMPLE = 256


@dataclass
class OwnData:
    """The options of ``tools/transfer.py`` that say which data and which method."""

    images: str | None = None
    classes: str | None = None
    boxes: str | None = None
    boxes_images: str | None = None
    boxes_val: str | None = None
    boxes_val_images: str | None = None
    method: str = DEFAULT_METHOD
    channels: int = 3
    val_fraction: float = 0.2
    decode: bool = False
    max_unreadable: float = 0.1
    value_range: list[float] | None = None
    image_size: int | None = None
    small: bool = False
    no_scratch: bool = False


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
    add(
        '--value-range', type=float, nargs=2, metavar=('BLACK', 'WHITE'),
        help='of files of more than 8 bits (default: found by the survey, e.g. 0 4095, or 0 1 for floats)',
    )  # fmt: skip
    add('--image-size', type=int, metavar='PX', help="side of the images in every stage (default: the method's)")
    add('--small', action='store_true', help="every stage, detection too, on images of half the method's side")
    add(
        '--no-scratch',
        action='store_true',
        help='leave out the runs from a random encoder, which say what pretraining adds',
    )


def take_options(args: dict[str, Any]) -> OwnData:
    """Take these options out of the parsed ones, so that the others are those of a call of the chain."""
    return OwnData(**{name: args.pop(name) for name in OwnData.__dataclass_fields__})


def chain_of(own: OwnData, args: dict[str, Any], say: Callable[[str], None] = print, folder: Path | None = None) -> str:
    """The chain config to run: the one given, or the one written from the user's data.

    Args:
        args: the other options; ``cfg_options`` are written into the chain and taken out.
        folder: with ``dry_run`` the files are written here, and the work dir is left alone.

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
    if args.get('dry_run') and folder is None:
        raise ValueError('a dry run needs a folder for its files')
    try:
        return str(_prepare(own, args, say, folder))
    except DataError as error:
        raise ChainError(str(error)) from error


def run(own: OwnData, args: dict[str, Any], start: Callable[[dict[str, Any], Display | None], int]) -> int:
    """What ``tools/transfer.py`` does: write the chain if need be, and ``start`` it.

    A dry run writes the same files into a temporary folder, so that the plan is made from what would be run.

    Args:
        start: called with the options of the chain, and a display that calls the temporary folder by the name of the
            work dir, or None.
    """
    if own.images is None or not args.get('dry_run'):
        args['chain'] = chain_of(own, args)
        return start(args, None)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        args['chain'] = chain_of(own, args, folder=here)
        return start(args, _Renaming(str(here), str(Path(args['work_dir']))))


class _Renaming(Display):
    """Says ``name`` wherever the text has ``folder``."""

    def __init__(self, folder: str, name: str):
        super().__init__()
        self._names = folder, name

    def _write(self, text: str) -> None:
        super()._write(text.replace(*self._names))


def _prepare(own: OwnData, args: dict[str, Any], say: Callable[[str], None], folder: Path | None) -> Path:
    work_dir, gpus = Path(args['work_dir']), max(1, args['gpus'])
    if own.channels < 1:
        raise ChainError(f'--channels {own.channels} must be at least 1')
    if own.image_size and own.small:
        raise ChainError('--image-size and --small cannot both be given')
    base, method, encoder = own_encoder.read_method(own.method, own.image_size, own.small)
    recipes = encoder.recipes()
    labelled = [stage for stage in own_encoder.STAGES[:3] if own.classes and stage in recipes]
    if (own.classes or own.boxes) and not recipes:
        raise ChainError(
            f'--classes and --boxes have no recipes for {encoder.kind}, which {own.method} trains: pretrain with '
            '--images alone, and write a chain for the rest (docs/chain.md)'
        )
    wanted = [*labelled, *['detect'] * bool(own.boxes and 'detect' in recipes)]
    if (own.classes or own.boxes) and not wanted:
        raise ChainError(
            f'there is no recipe for {encoder.kind}, which {own.method} trains, with what was given; it has some for '
            f'{", ".join(recipes)}'
        )
    _check_tokenizer(own, method, args['cfg_options'])
    seen = _look(own.images, own, say, encoder.img_size)
    stats = None
    if own.channels != 3:
        mean, std, count = image_survey.channel_statistics(
            seen.places, own.channels, STATISTICS_SAMPLE, value_range=seen.value_range
        )
        say(f'mean       {mean}\nstd        {std} (of {count:,} images drawn by seed 0)')
        stats = mean, std
    batch = max(1, min(method.train_dataloader.batch_size, len(seen.places) // gpus))
    files = {'unreadable.txt': seen.skip_list()}
    where = dict(seen.source.settings, skip_list=f'{HERE}/../unreadable.txt')
    files['configs/pretrain.py'] = own_configs.pretrain_text(
        base, method, encoder, own.channels, stats, where, batch, len(seen.places), gpus
    )
    files = _with_range(files, seen.value_range, own.channels)
    say(f'batch      {batch} images a device on {gpus} device(s), learning rate scaled to it')
    if own.classes:
        files.update(_classification(own, encoder, labelled, stats, gpus, say))
    if 'detect' in wanted:
        files.update(_with_range(_detection(own, encoder, stats, gpus, say), seen.value_range, own.channels))
    for stage in own_encoder.STAGES:
        if stage not in wanted and (own.boxes if stage == 'detect' else own.classes):
            say(f'left out   {stage}: there is no recipe of it for {encoder.kind}')
    stages = stage_table(wanted, files, not own.no_scratch)
    _add_options(stages, args['cfg_options'])
    call = f'tools/transfer.py {work_dir / "chain.py"} --gpus {gpus}'
    title = (
        f'# {own.images}: pretrain, transfer, report. Written by tools/transfer.py --images; run it by\n# {call}\n\n'
    )
    body = dict(name=work_dir.resolve().name, work_dir=f'{HERE}/', stages=stages)
    files['chain.py'] = title + ''.join(f'{key} = {own_configs.literal(value)}\n' for key, value in body.items())
    chain = _written(work_dir, files, args, say, folder)
    for line in plan_lines(load_chain(chain), gpus):
        say(line)
    args['cfg_options'] = ()
    return chain


def _written(work_dir: Path, files: dict[str, str], args: dict[str, Any], say, folder: Path | None) -> Path:
    """The chain config, after the files are written, or in a dry run said to be."""
    chain = work_dir / 'chain.py'
    if not args.get('dry_run'):
        write_files(work_dir, files)
        say(f'written    {chain} and {work_dir / "configs"}: change them as you like, then tools/transfer.py {chain}')
        return chain
    changed = _changed_by_user(work_dir, files)
    if changed:
        say(f'changed    {", ".join(changed)} since it was written: a run will stop, rather than write it anew')
    there = {
        name: (work_dir / name).is_file() and _file_digest(work_dir / name) == _digest(files[name]) for name in files
    }
    if all(there.values()):
        return chain
    for name, text in files.items():
        write_text(folder / name, text, errors='surrogateescape')
    new = [name for name in files if not there[name]]
    say(f'dry run    nothing is written; a run would write {", ".join(new)} in {work_dir}')
    return folder / 'chain.py'


def _check_tokenizer(own: OwnData, method: Any, options: Sequence[str]) -> None:
    """BEiT and CAE learn the tokens of a trained network, which is not part of this package."""
    if 'tokenizer' not in method.model or method.model.get('tokenizer_checkpoint'):
        return
    given = [item.partition('=')[2] for item in options if item.startswith('pretrain.model.tokenizer_checkpoint=')]
    if not given:
        raise ChainError(
            f'--method {own.method} learns the tokens of a trained {method.model.tokenizer.type}, whose weights it '
            'does not bring: download them (for DALL-E dalle_encoder.pth, see the run sheet of the recipe), and add '
            '--cfg-options pretrain.model.tokenizer_checkpoint=FILE'
        )
    if not os.path.isfile(given[-1]):
        raise ChainError(f'pretrain.model.tokenizer_checkpoint: there is no file {given[-1]!r}')


def _look(given: str, own: OwnData, say: Callable[[str], None], small: int, source=None) -> image_survey.Survey:
    seen = image_survey.survey(
        source or find_source(given), own.channels, own.decode, say=say, value_range=own.value_range
    )
    for line in seen.lines(given, small):
        say(line)
    seen.check(own.max_unreadable)
    return seen


def _classification(own: OwnData, encoder: Encoder, stages: list[str], stats, gpus: int, say) -> dict[str, str]:
    root = os.path.abspath(os.path.expanduser(own.classes))
    train, val = class_folders.tree_parts(root)
    names, looked = {}, []
    for part in dict.fromkeys([train, val] if val else [train]):
        source = open_source(os.path.join(root, part))
        seen = _look(os.path.join(own.classes, part), own, say, encoder.img_size, source)
        names[part] = [place.name for place in seen.places]
        looked.append(seen)
    lists = class_folders.class_lists(root, train, val, names, own.val_fraction)
    say(
        f'classes    {len(lists.classes)}, {len(lists.train):,} training and {len(lists.val):,} validation images '
        f'({lists.how})'
    )
    data = own_configs.Labelled(root, lists.classes, len(lists.train))
    files = {f'configs/{part}.txt': lists.text(part) for part in ('train', 'val')}
    for stage in stages:
        files[f'configs/{stage}.py'] = own_configs.classification_text(stage, encoder, data, own.channels, stats, gpus)
    return _with_range(files, image_survey.common_range(looked), own.channels)


def _with_range(files: dict[str, str], value_range: dict | None, channels: int) -> dict[str, str]:
    """The configs among the files with the value range of their images, where these are mapped to 8 bits."""
    if not value_range or channels not in PLAIN:
        return files
    line = f'value_range = {own_configs.literal(value_range)}\n'
    return {name: text + line * name.endswith('.py') for name, text in files.items()}


def _detection(own: OwnData, encoder: Encoder, stats, gpus: int, say) -> dict[str, str]:
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
    notes = [
        (path, note) for path, part in zip((own.boxes, own.boxes_val), wholes) for note in (*part.notes, part.checked)
    ]
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
    data = own_detection.Boxes(*paths, *folders, whole.classes, masks, counts[0])
    files['configs/detect.py'] = own_detection.detection_text(encoder, data, own.channels, stats, gpus)
    return files


def _add_options(stages: dict[str, Any], items: Sequence[str]) -> None:
    """``STAGE.key=value`` of the command line into the stages, so that the written chain has them too."""
    # A run from scratch is compared with its twin, so it gets the twin's options, and its own after them.
    twins = [i.replace('.', f'{SCRATCH}.', 1) for i in items if f'{i.partition(".")[0]}{SCRATCH}' in stages]
    for item in [*twins, *items]:
        path, equals, value = item.partition('=')
        name, dot, key = path.partition('.')
        if not equals or not dot or not key or name not in stages or name == 'report':
            have = ', '.join(n for n in stages if n != 'report')
            raise ChainError(f'--cfg-options {item!r} must be STAGE.key=value, with a stage of {have}')
        stages[name].setdefault('options', {})[key] = parse_option(value)


def write_files(work_dir: Path, files: dict[str, str]) -> None:
    """Write the files, but none over one that the user has changed since.

    Raises:
        ChainError: a file differs from what was written here, and from what would be written now.
    """
    changed = _changed_by_user(work_dir, files)
    if changed:
        raise ChainError(
            f'{", ".join(changed)} was changed since it was written, so it is not written anew. To run what is there: '
            f'tools/transfer.py {work_dir / "chain.py"}; to start afresh remove the file or give another --work-dir'
        )
    for name, text in files.items():
        write_text(work_dir / name, text, errors='surrogateescape')
    digests = {name: _digest(text) for name, text in files.items()}
    write_json(work_dir / RECORD, {**known_object(work_dir / RECORD), **digests})


def _changed_by_user(work_dir: Path, files: dict[str, str]) -> list[str]:
    """Files that are neither what was written here nor what would be written now."""
    known, changed = known_object(work_dir / RECORD), []
    for name, text in files.items():
        path = work_dir / name
        if path.is_file() and _file_digest(path) not in (known.get(name), _digest(text)):
            changed.append(str(path))
    return changed


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()
