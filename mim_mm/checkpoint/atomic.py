"""Checkpoints that are whole or absent, and that load without unpickling code.

What this prevents: a job killed while it writes leaves half a file under the final name, and resuming dies on it;
mmengine's checkpoints hold ``HistoryBuffer`` objects, which torch >= 2.6 refuses to load by default. So files are
written beside the final name, synced and renamed, and hold tensors and plain types only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer

from mim_mm import files
from mim_mm.checkpoint.checksum import is_whole, numbered

_HISTORY = 'history_buffer'


class AtomicLocalBackend(LocalBackend):
    """mmengine's local file backend with atomic writes; choose it by ``backend_args=dict(backend='atomic_local')``."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        files.write_bytes(filepath, bytes(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        files.write_bytes(filepath, obj.encode(encoding))


register_backend('atomic_local', AtomicLocalBackend, force=True)


def to_plain(value):
    """A copy that holds only tensors, dicts, lists, tuples, strings, numbers, booleans and None.

    Raises:
        TypeError: for an object of any other kind, naming where it is.
    """
    return _to_plain(value, 'checkpoint')


def _to_plain(value, where: str):
    if value is None or type(value) in (bool, int, float, str) or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {
            _HISTORY: True,
            'log': torch.tensor(np.asarray(log, dtype=np.float64)),
            'count': torch.tensor(np.asarray(count, dtype=np.int64)),
        }
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biuf' else value.tolist()
    if isinstance(value, np.generic):  # np.float64 is a float, but pickles as numpy
        return value.item()
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {_to_plain(k, where): _to_plain(v, f'{where}.{k}') for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        items = [_to_plain(v, f'{where}[{i}]') for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f'{where} is a {type(value).__module__}.{type(value).__name__}: checkpoints hold tensors and plain types only; '
        'store its state as a dict instead'
    )


def restore_history(message_hub: dict) -> None:
    """Turn the plain form of ``checkpoint['message_hub']`` back into what mmengine expects, in place."""
    for key, value in message_hub.get('log_scalars', {}).items():
        if isinstance(value, Mapping) and value.get(_HISTORY):
            message_hub['log_scalars'][key] = HistoryBuffer(value['log'].tolist(), value['count'].tolist())


def latest_checkpoint(work_dir: str | Path, out_dir: str | Path | None = None) -> Path | None:
    """The newest whole checkpoint of a run, or None; see :func:`find_checkpoint`."""
    return find_checkpoint(work_dir, out_dir)[0]


def find_checkpoint(work_dir: str | Path, out_dir: str | Path | None = None) -> tuple[Path | None, str]:
    """The newest whole checkpoint of a run, and what to tell where it is not the one that ``last_checkpoint`` names.

    Args:
        work_dir, out_dir: see :func:`checkpoints_of`.
    """
    found, named = next(checkpoints_of(work_dir, out_dir), None), _named(Path(work_dir))
    if found is None or named is None or found.name == named.name:
        return found, ''
    state = 'is cut off or damaged' if (Path(work_dir) / named.name).exists() else 'is not in this work dir'
    return found, f'last_checkpoint names {named}, which {state}: the newest whole checkpoint here is {found.name}'


def checkpoints_of(work_dir: str | Path, out_dir: str | Path | None = None) -> Iterator[Path]:
    """The whole checkpoints of a run, the one that ``last_checkpoint`` names first, then from the newest on.

    mmengine writes an absolute path into ``last_checkpoint``. In a work dir that was copied it leads back to the run
    that it was copied from, so the file of that name in this work dir is taken; if that is missing or cut off, the
    newest whole one that lies here. A file elsewhere is believed below ``out_dir`` only.

    Args:
        work_dir: of the run.
        out_dir: of the checkpoint hook, if it keeps them elsewhere.
    """
    work_dir = Path(work_dir)
    folders = [work_dir, *([Path(out_dir) / work_dir.resolve().name] if out_dir else [])]
    named, first = _named(work_dir), None
    if named is not None:
        first = next((folder / named.name for folder in reversed(folders) if is_whole(folder / named.name)), None)
        if first is not None:
            yield first
    rest = [(_saved(path), number, path) for folder in folders for number, path in numbered(folder) if path != first]
    yield from (path for *_, path in sorted(rest, reverse=True))


def _named(work_dir: Path) -> Path | None:
    """What ``last_checkpoint`` says; a path that cannot be where it says nothing, None where there is no such file."""
    if not (work_dir / 'last_checkpoint').is_file():
        return None
    return Path(files.known_text(work_dir / 'last_checkpoint').replace('\0', '').strip() or 'nothing')


def _saved(path: Path) -> str:
    """When a checkpoint was written, in mmengine's form; copying a file may change its own time."""
    from mim_mm.checkpoint.read import read_content

    try:
        said = (read_content(path, mmap=True, verify=False).get('meta') or {}).get('time')
    except Exception:  # whatever is wrong with the file is said when it is loaded
        said = None
    if isinstance(said, str) and re.fullmatch(r'\d{8}_\d{6}', said):
        return said
    return time.strftime('%Y%m%d_%H%M%S', time.localtime(path.stat().st_mtime))


def epoch_advice(work_dir: str | Path, epoch: int | None = None) -> str:
    """What to resume with instead, in words that name files that are there.

    Args:
        work_dir: where checkpoints lie.
        epoch: the last one that may be taken; None: any.
    """
    found = []
    for path in Path(work_dir).glob('epoch_*.pth'):
        match = re.fullmatch(r'epoch_(\d+)\.pth', path.name)
        if match and (epoch is None or int(match[1]) <= epoch) and is_whole(path):
            found.append((int(match[1]), path))
    if found:
        return f'from the end of an epoch: --resume {max(found)[1]}'
    return f'nothing else here: {work_dir} holds no checkpoint from the end of an epoch'
