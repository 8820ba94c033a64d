"""A disk that takes no more, a quota, a read-only folder: one line, the older checkpoint, and --resume goes on."""

import errno
import os
import random
from pathlib import Path

import pytest
from processes import in_process
from small_training import Training

from mim_mm import files
from mim_mm.checkpoint.atomic import AtomicLocalBackend
from mim_mm.report.packed import pack

NAME = 'disk full'
REASONS = {
    errno.ENOSPC: 'the disk is full', errno.EDQUOT: 'quota', errno.EROFS: 'read-only', errno.EACCES: 'permission',
    errno.EFBIG: 'ulimit',
}  # fmt: skip


def full(folder, room, reason):
    """``Path.write_bytes`` that takes ``room`` bytes below ``folder``, then raises the error of ``reason``."""
    write = Path.write_bytes

    def write_bytes(path, data):
        if str(path).startswith(str(folder)) and len(data) > room:
            if reason not in (errno.EROFS, errno.EACCES):
                write(path, data[:room])
            raise OSError(reason, os.strerror(reason), str(path))
        return write(path, data)

    return write_bytes


def trial(number, folder):
    """Every third number trains; the others write each kind of file."""
    folder.mkdir(parents=True, exist_ok=True)
    reason = list(REASONS)[number % len(REASONS)]
    return trained(reason, number, folder) if number % 3 == 0 else written(reason, number, folder)


def trained(reason, number, folder):
    training = Training(folder)
    first = training.train(1)
    if first.returncode:
        return False, f'the training itself fails: {first.error}'
    before = (training.work / 'epoch_1.pth').read_bytes()
    room = random.Random(number).randrange(20_000, len(before) // 2)
    options = ['default_hooks.checkpoint.max_keep_ckpts=1'] if number % 2 else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, 'write_bytes', full(training.work, room, reason))
        words = training.words(2, '--resume') + options
        stopped = in_process(*words)
    if stopped.returncode != 2 or REASONS[reason] not in stopped.stderr or 'Traceback' in stopped.stderr:
        return False, f'{REASONS[reason]}: exit {stopped.returncode}, {stopped.stderr[-300:]}'
    if (
        training.saved() != ['epoch_1.pth']
        or training.rubbish()
        or ((training.work / 'epoch_1.pth').read_bytes() != before)
    ):
        return False, f'{REASONS[reason]}: {training.saved()} and {training.rubbish()} are left'
    again = training.train(2, '--resume')
    return again.returncode == 0 and 'epoch_2.pth' in training.saved(), f'{REASONS[reason]}: said so; --resume goes on'


def written(reason, number, folder):
    """JSON, text, packed results and checkpoints: the error is ours, the old file stays, nothing else is left."""
    (folder / 'chain/stage').mkdir(parents=True)
    run = dict(schema=1, chain='c', stage='stage', kind='pretrain', arm='a', seed=0, status='done', artifacts={})
    files.write_json(folder / 'chain/stage/run.json', run)
    (folder / 'out').mkdir()
    makers = {
        'a.json': lambda path: files.write_json(path, list(range(5000))),
        'a.txt': lambda path: files.write_text(path, 'words ' * 5000),
        'a.json.xz': lambda path: pack(folder / 'chain', path),
        'a.pth': lambda path: AtomicLocalBackend().put(bytes(5000), path),
    }
    for name, make in makers.items():
        path = folder / 'out' / name
        path.write_bytes(b'old')
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, 'write_bytes', full(path.parent, 10, reason))
            patch.setattr(os, 'fsync', _fails(reason))
            try:
                make(path)
            except files.NotWritten as error:
                told = REASONS[reason] in str(error) and str(path) in str(error)
            except Exception as error:
                return False, f'{name}: {type(error).__name__}: {error}'
            else:
                return False, f'{name}: it was written'
        if not told or path.read_bytes() != b'old' or os.listdir(path.parent) != [name]:
            return False, f'{name}: {os.listdir(path.parent)}'
        path.unlink()
    return True, f'{REASONS[reason]}: {len(makers)} kinds of file'


def _fails(reason):
    def fsync(handle):
        raise OSError(reason, os.strerror(reason))

    return fsync
