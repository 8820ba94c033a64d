"""Files that would run code, leave their folder, or fill the memory: refused by whoever reads them, with no trace."""

import importlib.util
import json
import lzma
import os
import random
import tarfile
from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from small_training import Training
from torch import nn

from mim_mm.checkpoint.read import LoadError, read_content
from mim_mm.data.image_sources import SourceError, open_source
from mim_mm.report import packed as report_packed
from mim_mm.report.packed import unpack

NAME = 'malicious files'


def _helpers():
    """tests/helpers/malicious.py, which has the name of this file."""
    place = Path(__file__).resolve().parents[1] / 'helpers/malicious.py'
    spec = importlib.util.spec_from_file_location('malicious_files', place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trial(number, folder):
    """In turn: a checkpoint read, a checkpoint resumed from, packed results, a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    return (checkpoint, packed, shard, resumed)[number % 4](number, folder)


def checkpoint(number, folder):
    made = _helpers()
    kind, marker = made.KINDS[number // 4 % len(made.KINDS)], folder / 'ran'
    path = made.write(kind, folder, dict(state_dict={'weight': torch.ones(1, 1), 'bias': torch.ones(1)}), marker)
    for reader in (read_content, lambda p: load_checkpoint(nn.Linear(1, 1), str(p))):
        try:
            reader(path)
        except LoadError:
            pass
        except Exception as error:
            return False, f'{kind}: {type(error).__name__}: {error}'
    return not marker.exists(), f'{kind}: {"it ran" if marker.exists() else "nothing ran"}'


def resumed(number, folder):
    made = _helpers()
    kind, marker = made.KINDS[number // 4 % (len(made.KINDS) - 1)], folder / 'ran'
    training = Training(folder)
    if training.train(1).returncode:
        return False, 'the training itself fails'
    (folder / 'other').mkdir()
    content = torch.load(training.work / 'epoch_1.pth', weights_only=True)
    path = made.write(kind, folder / 'other', content, marker)
    done = training.train(2, '--resume', path)
    if marker.exists() or 'Traceback' in done.error or done.returncode not in (0, 2):
        return False, f'{kind}: exit {done.returncode}, ran: {marker.exists()}, {done.error}'
    return True, f'--resume of {kind}: exit {done.returncode}'


def packed(number, folder):
    """A bomb, and names that lead elsewhere; a link in the folder leads elsewhere as well."""
    (folder / 'w').mkdir()
    (folder / 'outside').mkdir()
    os.symlink(folder / 'outside', folder / 'w/link')
    names = ('../outside/a.json', '/tmp/mim_mm_outside.json', 'link/a.json', 'a/../../outside/a.json', 'stage/run.py')
    name = random.Random(number).choice(names)
    path = folder / 'a.json.xz'
    bomb = number // 4 % 2 == 0
    text = b'[' * (4 << 20) if bomb else json.dumps(dict(schema=1, files={name: {}})).encode()
    path.write_bytes(lzma.compress(text, preset=0))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report_packed, 'MOST', 1 << 20)
            unpack(path, folder / 'w')
    except ValueError as error:
        left = [*(folder / 'outside').iterdir(), *(folder / 'w').rglob('*.py')]
        return not left and str(path) in str(error), 'bomb refused' if bomb else f'{name} refused'
    return False, 'bomb unpacked' if bomb else f'{name} unpacked'


def shard(number, folder):
    """Members that are links, devices, or lie outside: a shard is read in place, so only files in it are images."""
    with tarfile.open(folder / 'a.tar', 'w', format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (('a.jpg', tarfile.SYMTYPE), ('b.jpg', tarfile.LNKTYPE), ('c.jpg', tarfile.CHRTYPE),
                           ('d.jpg', tarfile.FIFOTYPE), ('../../e.jpg', tarfile.DIRTYPE)):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, '/etc/passwd'
            tar.addfile(member)
    before = sorted(folder.rglob('*'))
    try:
        found = open_source(str(folder), shards='*.tar')
    except SourceError as error:
        return sorted(folder.rglob('*')) == before, f'refused: {error}'[:120]
    return False, f'images: {[place.name for place in found.places]}'
