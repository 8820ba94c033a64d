"""Files that are torn, flipped, emptied, gone or others: named in our words, and a run goes on from a sound one."""

import random
import shutil

import torch
from small_training import Training

from mim_mm import files
from mim_mm.checkpoint.read import LoadError, read_content
from mim_mm.data.coco_file import read_coco
from mim_mm.data.image_sources import SourceError, open_source
from mim_mm.engine.start.guard import ConfigError
from mim_mm.engine.start.launch import read_config
from mim_mm.report.packed import unpack

NAME = 'damaged files'
READERS = {
    '.pth': read_content,
    '.safetensors': read_content,
    '.py': read_config,
    '.json': files.read_json,
    '.coco.json': lambda path: read_coco(str(path), str(path.parent)),
    '.txt': lambda path: open_source(str(path.parent), ann_file=path.name),
    '.tar': lambda path: open_source(str(path.parent), ann_file=path.name),
    '.json.xz': lambda path: unpack(path, path.parent / 'unpacked'),
}
OURS = (LoadError, ConfigError, SourceError, files.DamagedFile)


def torn(data, rng):
    return data[: rng.randrange(len(data))]


def flipped(data, rng):
    place, damaged = rng.randrange(8 * len(data)), bytearray(data)
    damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


def emptied(data, rng):
    return b''


def swapped(data, rng):
    others = [b'\xff\xd8\xff\xe0 a picture', b'{"a": 1}', b'\0' * len(data), b'import os\n', rng.randbytes(300)]
    return rng.choice(others)


HARMS = (torn, flipped, emptied, swapped)


def same(a, b):
    """Whether two contents of a checkpoint are equal."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return a == b


def trial(number, folder):
    """Every fourth number trains and resumes; the others read a damaged file of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    return resumed(number, folder) if number % 4 == 0 else read(number, folder)


def read(number, folder):
    """A checkpoint that can still be read has the same content; every error of a reader is ours."""
    rng = random.Random(number)
    content = dict(state_dict={'a': torch.randn(5, 5), 'b': torch.arange(3)}, meta=dict(iter=3))
    torch.save(content, folder / 'whole.pth')
    sources = {'.pth': (folder / 'whole.pth').read_bytes(), '.py': b'a = dict(b=[1, 2])\n', '.json': b'{"a": [1, 2]}',
               '.coco.json': b'{"images": [], "annotations": []}', '.txt': b'a.jpg\nb.jpg\n', '.tar': b'\0' * 10240,
               '.json.xz': b'\xfd7zXZ\0', '.safetensors': b'\x02\0\0\0\0\0\0\0{}'}  # fmt: skip
    harm = rng.choice(HARMS)
    for kind, data in sources.items():
        path = folder / f'file{kind}'
        path.write_bytes(harm(data, rng))
        try:
            found = READERS[kind](path)
        except OURS:
            continue
        except ValueError as error:  # the report's, of --unpack
            if kind == '.json.xz' and str(path) in str(error):
                continue
            return False, f'{harm.__name__} {kind}: {type(error).__name__}: {error}'
        except Exception as error:
            return False, f'{harm.__name__} {kind}: {type(error).__name__}: {error}'
        if kind == '.pth' and not same(found, content):
            return False, f'{harm.__name__} {kind}: loaded with another content'
    return True, f'{harm.__name__}: {len(sources)} kinds'


def resumed(number, folder):
    """The newest of two checkpoints is damaged, or what last_checkpoint says; the run goes on from the whole one."""
    rng = random.Random(number)
    training = Training(folder)
    first = training.train(2)
    if first.returncode:
        return False, f'the training itself fails: {first.error}'
    newest, note = training.work / 'epoch_2.pth', training.work / 'last_checkpoint'
    harm = HARMS[number // 4 % len(HARMS)]
    if number // 4 % 5 == 4:
        newest.unlink()
        what = 'gone'
    else:
        data = newest.read_bytes()
        # inside of the largest record, so that torch itself would load it
        place = data.index((read_content(newest)['state_dict']['backbone.pos_embed'].numpy()).tobytes()[:64])
        damaged = bytearray(data)
        damaged[place + rng.randrange(64)] ^= 1 << rng.randrange(8)
        newest.write_bytes(bytes(damaged) if harm is flipped else harm(data, rng))
        what = harm.__name__
    if number // 4 % 3 == 1:
        note.write_bytes(rng.choice([b'', b'\xff\xfe', b'../../etc/passwd', b'a' * 5000]))
    shutil.copy(newest, folder / 'damaged.pth') if newest.exists() else None
    again = training.train(2, '--resume')
    expected = str(training.work / 'epoch_1.pth')
    if again.returncode or f'resuming from {expected}' not in again.log:
        return False, f'{what}: exit {again.returncode}, {again.error or "it did not go on from epoch_1.pth"}'
    if what == 'flipped' and 'is damaged' not in again.log:
        return False, 'flipped: the log does not say so'
    if (folder / 'damaged.pth').exists():
        asked = training.train(3, '--resume', folder / 'damaged.pth')
        if asked.returncode != 2 or not asked.error.startswith('error: '):
            return False, f'{what}, asked for by name: exit {asked.returncode}, {asked.error}'
    return True, f'{what}: went on from epoch_1.pth'
