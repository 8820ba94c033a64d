"""Runs that another run took the place of: what they take of the disk, and deleting those that nothing needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mim_mm import files
from mim_mm.locks import FolderLock
from mim_mm.report.collect import Chain, Run, read_run
from mim_mm.runs import superseded

__all__ = ['Candidate', 'candidates', 'delete', 'folder_size']

LOCK = 'transfer.lock'


@dataclass(frozen=True)
class Candidate:
    """A superseded run; ``kept`` says why it is not deleted, None where nothing needs it."""

    chain: Chain
    run: Run
    size: int
    kept: str | None


def folder_size(folder: Path) -> int:
    """Bytes of the files below a folder; links count as nothing and are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                try:
                    total += os.path.getsize(path)
                except OSError:  # gone in the meantime
                    continue
    return total


def _named_by_others(chains: Iterable[Chain]) -> list[tuple[Path, str]]:
    """Every run.json and chain.json with its text: a run that one of them names is needed."""
    found = []
    for chain in chains:
        for path in [*chain.folder.glob('*/run.json'), chain.folder / 'chain.json', chain.folder / 'compare.json']:
            found.append((path, files.known_text(path)))
    return found


def _kept(chain: Chain, run: Run, records: list[tuple[Path, str]]) -> str | None:
    """Why a superseded run stays: rather one too many than the only result of a stage."""
    by = superseded(run.name)
    successor = next((other for other in chain.runs if other.name == by), None)
    if successor is None:
        return f'{by}, which took its place, is no run of the chain'
    if not successor.done:
        return f'{by}, which took its place, is {successor.status}, not done'
    if run.folder.is_symlink():
        return 'it is a link'
    for path, text in records:
        if run.folder not in path.parents and (f'{run.name}/' in text or f'"{run.name}"' in text):
            return f'{path.relative_to(path.parents[1])} names it'
    return None


def candidates(chains: list[Chain]) -> list[Candidate]:
    """Every superseded run of these chains. What the chain no longer lists without a successor is none."""
    records = _named_by_others(chains)
    return [
        Candidate(chain, run, folder_size(run.folder), _kept(chain, run, records))
        for chain in chains
        for run in chain.earlier
        if superseded(run.name)
    ]


def delete(found: list[Candidate]) -> list[Path]:
    """Delete the folders of candidates that nothing keeps, while nothing else works in their chains.

    Returns:
        The folders that are gone.

    Raises:
        RuntimeError: a chain is running; nothing of it was deleted.
        OSError: a folder could not be deleted.
    """
    gone = []
    for folder in dict.fromkeys(item.chain.folder for item in found):
        with ExitStack() as locks:
            for name in dict.fromkeys([LOCK, *(path.name for path in folder.glob('*.lock'))]):
                locks.enter_context(FolderLock(folder, name))
            for item in found:
                if item.chain.folder != folder or item.kept:
                    continue
                by = superseded(item.run.name)
                if by and read_run(folder / by).done and item.run.folder.is_dir():  # as it is now, under the lock
                    shutil.rmtree(item.run.folder)
                    gone.append(item.run.folder)
    return gone
