"""``tools/transfer.py --images``: from a user's own images to a chain, written out in full before it runs.

The set is surveyed, then ``WORK_DIR`` gets ``chain.py``, a config a stage in ``configs/`` and the lists these read.
They are ordinary files: to be read, changed, and run by ``tools/transfer.py WORK_DIR/chain.py``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.compat.internals import parse_option
from mim_mm.data import class_folders, coco_file, image_survey, mask_files
from mim_mm.data.decode import PLAIN
from mim_mm.data.image_sources import find_source, open_source
from mim_mm.files import write_text
from mim_mm.folders import DataError
from mim_mm.transfer.call import Call
from mim_mm.transfer.chain import ChainError, load_chain
from mim_mm.transfer.own import own_configs, own_detection, own_encoder, own_segmentation
from mim_mm.transfer.own.own_configs import HERE
from mim_mm.transfer.own.own_encoder import Encoder
from mim_mm.transfer.own.own_files import changed_by_user, holds, write_files
from mim_mm.transfer.own.own_options import OwnData
from mim_mm.transfer.own.own_stages import SCRATCH, duration_lines, stage_table

STATISTICS_SAMPLE = 256
Say = Callable[[str], None]
Stats = tuple[list[float], list[float]] | None  # mean and std of each channel


def write_own_chain(call: Call, say: Say, folder: Path | None) -> Call:
    """Survey a user's data and write the chain that pretrains on them and transfers to them.

    Args:
        call: ``own`` says which data and which method; ``cfg_options`` are written into the chain.
        folder: the files are written here instead of into the work dir, which is left alone.

    Returns:
        The call of that chain.

    Raises:
        ChainError: options lack or contradict each other, or the data cannot be used; nothing was written then.
    """
    if call.own.images is None:
        default = OwnData()
        extra = next(name for name, value in vars(call.own).items() if value != getattr(default, name))
        raise ChainError(f'--{extra.replace("_", "-")} needs --images')
    if call.chain:
        raise ChainError(f'give a chain config or --images, not both; {call.chain} is run without --images')
    if not call.work_dir:
        raise ChainError('--images needs --work-dir DIR: the configs, lists and results go there')
    work_dir = Path(call.work_dir)
    try:
        files = _files(call, say)
        chain = _written(work_dir, files, say) if folder is None else _shown(work_dir, files, say, folder)
    except DataError as error:
        raise ChainError(str(error)) from error
    for line in duration_lines(load_chain(chain), max(1, call.gpus)):
        say(line)
    return dataclasses.replace(call, chain=str(chain), cfg_options=(), own=OwnData())


def _files(call: Call, say: Say) -> dict[str, str]:
    """Name below the work dir -> text of everything that is written: configs, lists, chain.py."""
    own, gpus = call.own, max(1, call.gpus)
    if own.channels < 1:
        raise ChainError(f'--channels {own.channels} must be at least 1')
    if own.image_size and own.small:
        raise ChainError('--image-size and --small cannot both be given')
    base, method, encoder = own_encoder.read_method(own.method, own.image_size, own.small)
    wanted = _wanted(own, encoder)
    _check_tokenizer(own, method, call.cfg_options)
    files, stats, value_range = _pretraining(own, base, method, encoder, gpus, say)
    if own.classes:
        labelled = [stage for stage in wanted if stage not in own_encoder.DATA_OF]
        files.update(_classification(own, encoder, labelled, stats, gpus, say))
    if 'detect' in wanted:
        files.update(_with_range(_detection(own, encoder, stats, gpus, say), value_range, own.channels))
    if 'segment' in wanted:
        files.update(_with_range(_segmentation(own, encoder, stats, gpus, say), value_range, own.channels))
    for stage in own_encoder.STAGES:
        if stage not in wanted and _given(own, stage):
            say(f'left out   {stage}: there is no recipe of it for {encoder.kind}')
    stages = stage_table(wanted, files, not own.no_scratch)
    _add_options(stages, call.cfg_options)
    work_dir = Path(call.work_dir)
    again = f'tools/transfer.py {work_dir / "chain.py"} --gpus {gpus}'
    title = (
        f'# {own.images}: pretrain, transfer, report. Written by tools/transfer.py --images; run it by\n# {again}\n\n'
    )
    body = dict(name=work_dir.resolve().name, work_dir=f'{HERE}/', stages=stages)
    files['chain.py'] = title + ''.join(f'{key} = {own_configs.literal(value)}\n' for key, value in body.items())
    return files


def _wanted(own: OwnData, encoder: Encoder) -> list[str]:
    """The downstream stages, in the order in which they run: those that there are data and a recipe for."""
    recipes = encoder.recipes()
    if (own.classes or own.boxes or own.masks) and not recipes:
        raise ChainError(
            f'--classes, --boxes and --masks have no recipes for {encoder.kind}, which {own.method} trains: pretrain '
            'with --images alone, and write a chain for the rest (docs/chain.md)'
        )
    wanted = [stage for stage in own_encoder.STAGES if stage in recipes and _given(own, stage)]
    if (own.classes or own.boxes or own.masks) and not wanted:
        raise ChainError(
            f'there is no recipe for {encoder.kind}, which {own.method} trains, with what was given; it has some for '
            f'{", ".join(recipes)}'
        )
    return wanted


def _given(own: OwnData, stage: str) -> str | None:
    return getattr(own, own_encoder.DATA_OF.get(stage, 'classes'))


def _written(work_dir: Path, files: dict[str, str], say: Say) -> Path:
    """The chain config, after the files are written."""
    chain = work_dir / 'chain.py'
    write_files(work_dir, files)
    say(f'written    {chain} and {work_dir / "configs"}: change them as you like, then tools/transfer.py {chain}')
    return chain


def _shown(work_dir: Path, files: dict[str, str], say: Say, folder: Path) -> Path:
    """The chain config of a dry run: in the work dir if all is there as it would be written, else in ``folder``."""
    changed = changed_by_user(work_dir, files)
    if changed:
        say(f'changed    {", ".join(changed)} since it was written: a run will stop, rather than write it anew')
    new = [name for name, text in files.items() if not holds(work_dir / name, text)]
    if not new:
        return work_dir / 'chain.py'
    for name, text in files.items():
        write_text(folder / name, text, errors='surrogateescape')
    say(f'dry run    nothing is written; a run would write {", ".join(new)} in {work_dir}')
    return folder / 'chain.py'


def _pretraining(
    own: OwnData, base: str, method: Config, encoder: Encoder, gpus: int, say: Say
) -> tuple[dict[str, str], Stats, dict | None]:
    """The pretraining's files; mean and std of the images where these are not of 3 channels; their value range."""
    seen = _look(own.images, own, say, encoder.img_size)
    stats = None
    if own.channels != 3:
        mean, std, count = image_survey.channel_statistics(
            seen.places, own.channels, STATISTICS_SAMPLE, value_range=seen.value_range
        )
        say(f'mean       {mean}\nstd        {std} (of {count:,} images drawn by seed 0)')
        stats = mean, std
    batch = max(1, min(method.train_dataloader.batch_size, len(seen.places) // gpus))
    where = dict(seen.source.settings, skip_list=f'{HERE}/../unreadable.txt')
    text = own_configs.pretrain_text(base, method, encoder, own.channels, stats, where, batch, len(seen.places), gpus)
    say(f'batch      {batch} images a device on {gpus} device(s), learning rate scaled to it')
    files = {'unreadable.txt': seen.skip_list(), 'configs/pretrain.py': text}
    return _with_range(files, seen.value_range, own.channels), stats, seen.value_range


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


def _look(given: str, own: OwnData, say: Say, small: int, source=None) -> image_survey.Survey:
    seen = image_survey.survey(
        source or find_source(given), own.channels, own.decode, say=say, value_range=own.value_range
    )
    for line in seen.lines(given, small):
        say(line)
    seen.check(own.max_unreadable)
    return seen


def _classification(
    own: OwnData, encoder: Encoder, stages: list[str], stats: Stats, gpus: int, say: Say
) -> dict[str, str]:
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


def _detection(own: OwnData, encoder: Encoder, stats: Stats, gpus: int, say: Say) -> dict[str, str]:
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


def _segmentation(own: OwnData, encoder: Encoder, stats: Stats, gpus: int, say: Say) -> dict[str, str]:
    masks = mask_files.read_masks(os.path.abspath(os.path.expanduser(own.masks)), own.val_fraction)
    for note in masks.notes:
        say(f'masks      {note}')
    files = {f'configs/masks_{part}.txt': masks.text(part) for part in ('train', 'val')}
    files['configs/segment.py'] = own_segmentation.segmentation_text(encoder, masks, own.channels, stats, gpus)
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
