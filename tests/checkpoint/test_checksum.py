"""No flipped bit of a checkpoint loads as other weights: every bit of the directory, some of the tensors."""

import io
import random
import zipfile

import pytest
import torch

from mim_mm.checkpoint.atomic import checkpoints_of
from mim_mm.checkpoint.checksum import damage, is_sound, older_sound
from mim_mm.checkpoint.read import LoadError, read_content
from mim_mm.engine.start.checks.words import ConfigError
from mim_mm.engine.start.guard import resolve_resume

CONTENT = dict(state_dict={'a': torch.arange(25.0).view(5, 5), 'b': torch.ones(3)}, meta=dict(iter=3))


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(CONTENT, path)
    whole, refused = path.read_bytes(), 0
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
    bits = random.Random(0).sample(range(8 * directory, 8 * len(whole)), 150)
    # what torch takes for a folder, of a file: it would leave its memory as it is
    bits += [8 * (whole.index(b'PK\1\2', directory) + 38) + 4, *random.Random(1).sample(range(8 * directory), 100)]
    for bit in bits:
        path.write_bytes(whole)
        flip(path, bit)
        try:
            found = read_content(path)
        except LoadError:
            refused += 1
            continue
        assert all(torch.equal(found['state_dict'][k], v) for k, v in CONTENT['state_dict'].items()), bit
        assert found['meta'] == CONTENT['meta'], bit
    assert refused > 100


def test_the_tensor_and_an_older_file_are_named_and_files_without_checksums_pass(tmp_path):
    for epoch in (1, 2):
        torch.save(CONTENT, tmp_path / f'epoch_{epoch}.pth')
    newest = tmp_path / 'epoch_2.pth'
    assert damage(newest) is None and damage(io.BytesIO(newest.read_bytes())) is None
    flip(newest, 8 * newest.read_bytes().index(CONTENT['state_dict']['a'].numpy().tobytes()) + 100)
    assert torch.load(newest, weights_only=True), 'torch does not look'
    with pytest.raises(LoadError, match='epoch_2.pth is damaged: .*data/0 has the checksum.*epoch_1.pth'):
        read_content(newest)
    assert older_sound(newest).name == 'epoch_1.pth' and not is_sound(newest)
    assert [path.name for path in checkpoints_of(tmp_path)][:2] == ['epoch_2.pth', 'epoch_1.pth']
    assert resolve_resume('latest', str(tmp_path)).endswith('epoch_1.pth')
    with pytest.raises(ConfigError, match='is damaged.*epoch_1.pth is the newest sound one'):
        resolve_resume(str(newest), str(tmp_path))
    flip(tmp_path / 'epoch_1.pth', 8 * 300)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, tmp_path / 'none.pth')
    finally:
        torch.serialization.set_crc32_options(before)
    torch.save(CONTENT, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert damage(tmp_path / 'none.pth') is None and read_content(tmp_path / 'none.pth')['meta'] == CONTENT['meta']
    assert damage(tmp_path / 'old.pth') is None


def test_where_all_are_damaged_nothing_starts_afresh(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(CONTENT, path)
    flip(path, 8 * path.read_bytes().index(CONTENT['state_dict']['a'].numpy().tobytes()) + 100)
    with pytest.raises(ConfigError, match='no checkpoint in .* is sound'):
        resolve_resume('auto', str(tmp_path))


def test_an_archive_whose_end_is_damaged_is_no_file_of_the_older_form(tmp_path):
    """torch knows an archive by its first bytes; found by tests/faults/mutated_checkpoints.py."""
    path = tmp_path / 'epoch_1.pth'
    torch.save(CONTENT, path)
    data = bytearray(path.read_bytes())
    data[data.index(CONTENT['state_dict']['a'].numpy().tobytes()) + 5] ^= 4
    data[-22 + 4 : -22 + 6] = b'\1\0'  # the number of its disk
    path.write_bytes(data)
    with pytest.raises(LoadError, match='is damaged'):
        read_content(path)
