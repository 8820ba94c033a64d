"""Images packed into tar shards in the layout of WebDataset: a few large files instead of a million small ones."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mim_mm import files
from mim_mm.data.image_sources import Place, Source, SourceError

LIST = 'shards.json'


@dataclass(frozen=True)
class ShardPlan:
    """What goes where: for each shard its file name and ``(name inside, image)`` in order."""

    shards: tuple[tuple[str, tuple[tuple[str, Place], ...]], ...]
    summary: dict  # what LIST holds


def plan_shards(source: Source, images_per_shard: int = 2000, seed: int | None = 0, name: str = 'train') -> ShardPlan:
    """Decide on every shard before one is written; the same set and settings give the same bytes.

    Args:
        source: the images.
        images_per_shard: in each but the last.
        seed: of the order; None keeps the order of the source. Shards that are streamed need a random order, since a
            reader shuffles no further than its buffer.
        name: first part of the file names, ``<name>-000000.tar``.

    Raises:
        SourceError: a setting that cannot be, an image that is not there, or nothing but empty files.
    """
    if images_per_shard < 1:
        raise SourceError(f'{images_per_shard} images a shard must be at least 1')
    if not name or name != os.path.basename(name) or name.startswith('.'):
        raise SourceError(f"name '{name}' must be the beginning of a file name, without a folder or a dot in front")
    try:
        sizes = [place.size if place.size >= 0 else os.stat(place.path).st_size for place in source.places]
    except OSError as error:
        raise SourceError(f'an image of the set is not there: {error}; take it out of the list') from error
    kept = [index for index, size in enumerate(sizes) if size]
    if not kept:
        raise SourceError(f'all {len(sizes)} files are empty')
    if seed is not None:
        kept = [kept[i] for i in np.random.default_rng(seed).permutation(len(kept))]
    names = _member_names([source.places[index].name for index in kept])
    digest = hashlib.sha256()
    for index, member in zip(kept, names):
        digest.update(f'{member}\0{sizes[index]}\n'.encode('utf-8', 'surrogateescape'))
    shards = []
    for number, start in enumerate(range(0, len(kept), images_per_shard)):
        part = slice(start, start + images_per_shard)
        rows = tuple(
            (member, Place(place.name, place.path, place.offset, sizes[index]))
            for index, member in zip(kept[part], names[part])
            for place in (source.places[index],)
        )
        shards.append((f'{name}-{number:06d}.tar', rows))
    summary = dict(
        images=len(kept),
        images_per_shard=images_per_shard,
        seed=seed,
        empty_files_left_out=len(sizes) - len(kept),
        names_and_sizes_sha256=digest.hexdigest(),
        shards=[file for file, _ in shards],
    )
    return ShardPlan(tuple(shards), summary)


def _member_names(names: list[str]) -> list[str]:
    """Names inside of the tars. WebDataset takes what precedes the first dot for the sample's key, so there is only one
    dot, no key occurs twice, and the suffix is in small letters."""
    taken: set[str] = set()
    out = []
    for name in names:
        stem, suffix = os.path.splitext(name.replace(os.sep, '/').replace(':', '/'))
        folder, _, base = stem.lstrip('/').replace('..', '_').rpartition('/')
        key = f'{folder}/' * bool(folder) + (base.replace('.', '_') or '_')
        unique, count = key, 1
        while unique in taken:
            unique, count = f'{key}-{count}', count + 1
        taken.add(unique)
        out.append(unique + suffix.lower())
    return out


def write_shards(plan: ShardPlan, folder: str | Path, say: Callable[[str], None] = print) -> int:
    """Write the shards that are not there yet; each appears whole or not at all, so an interrupted run goes on.

    ``shards.json`` is written first and says what the folder is going to hold.

    Returns:
        Shards written now.

    Raises:
        SourceError: the folder holds something else, or an image has changed since the plan was made. Shards that
            are finished stay.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_folder(plan, folder)
    files.write_json(folder / LIST, plan.summary)
    written = 0
    for number, (name, rows) in enumerate(plan.shards, 1):
        if (folder / name).exists():
            continue
        with files.replacing(folder / name) as part:
            _write_tar(part, rows)
        written += 1
        say(f'{name} ({number} of {len(plan.shards)}): {len(rows)} images')
    return written


def _check_folder(plan: ShardPlan, folder: Path) -> None:
    try:
        there = files.read_json(folder / LIST, 'take another folder, or remove that one')
    except FileNotFoundError:
        there = None
    except files.DamagedFile as error:
        raise SourceError(str(error)) from error
    if there is not None and there != plan.summary:
        different = sorted(key for key in plan.summary if there.get(key) != plan.summary[key])
        raise SourceError(
            f"'{folder}' holds shards made from other images or settings ({', '.join(different)} differ); nothing was "
            'changed: take another folder, or remove that one'
        )
    strange = sorted(path.name for path in folder.glob('*.tar')) if there is None else []
    if strange:
        raise SourceError(f"'{folder}' holds {strange[0]} and no {LIST}: take an empty folder")


def _write_tar(path: Path, rows: tuple[tuple[str, Place], ...]) -> None:
    with tarfile.open(path, 'w', format=tarfile.GNU_FORMAT) as tar:
        for member, place in rows:
            try:
                data = place.read()
            except OSError as error:
                raise SourceError(f"'{place.name}' cannot be read ({error}); finished shards are kept") from error
            entry = tarfile.TarInfo(member)  # no owner, no time: the same images give the same bytes
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
