"""Checkpoints that are whole or absent, and that load without unpickling code.

What this prevents: a job killed while it writes leaves half a file under the final name, and resuming dies on it;
mmengine's checkpoints hold ``HistoryBuffer`` objects, which torch >= 2.6 refuses to load by default. So files are
written beside the final name, synced and renamed, and hold tensors and plain types only.
"""

from __future__ import annotations

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


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a run, or None.

    mmengine's ``last_checkpoint`` file is believed when what it names is there and whole (also if the folder was
    moved); else the ``epoch_*.pth`` / ``iter_*.pth`` of highest number that is.
    """
    return next(checkpoints_of(work_dir), None)


def checkpoints_of(work_dir: str | Path) -> Iterator[Path]:
    """The whole checkpoints of a run, the one that ``last_checkpoint`` names first, then from the newest on."""
    work_dir = Path(work_dir)
    first = None
    named = Path(files.known_text(work_dir / 'last_checkpoint').strip() or '.')
    for path in (work_dir / named.name, named):
        if is_whole(path):
            first = path
            yield first
            break
    yield from (path for path in numbered(work_dir) if path != first)
