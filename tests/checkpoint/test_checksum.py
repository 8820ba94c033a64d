"""No flipped bit of a checkpoint loads as other weights: every bit of the directory, some of the tensors."""

import io
import random
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mim_mm.checkpoint.atomic import checkpoints_of
from mim_mm.checkpoint.checksum import damage, is_sound, older_sound
from mim_mm.checkpoint.read import LoadError, read_content
from mim_mm.checkpoint.tensor_file import CHECKSUMS, metadata, tensor_damage, write_tensors
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


# ---------------------------------------------------------------- safetensors

TENSORS = {
    'a': torch.arange(25.0).view(5, 5), 'b.half': torch.ones(3, dtype=torch.bfloat16), 'empty': torch.empty(0, 4),
    'count': torch.tensor(7), 'c': torch.arange(6).view(2, 3),
}  # fmt: skip


def test_a_flipped_bit_of_a_safetensors_file_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / 'a.safetensors'
    write_tensors(path, TENSORS, {'encoder': '{"num_heads": 3}'})
    whole, refused, seen = path.read_bytes(), 0, 0
    bits = random.Random(0).sample(range(8 * len(whole)), 120)
    first = 8 + int.from_bytes(whole[:8], 'little')
    bits += range(8 * first, 8 * len(whole), 29)  # of the tensors
    for bit in bits:
        path.write_bytes(whole)
        flip(path, bit)
        seen += 1
        try:
            found = read_content(path)
        except LoadError as error:
            assert 'damaged' in str(error)
            refused += 1
            continue
        assert found.keys() == TENSORS.keys(), bit
        assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in TENSORS.items()), bit
    assert refused > 0.9 * seen


def test_other_libraries_read_it_and_files_without_checksums_pass(tmp_path):
    path = tmp_path / 'a.safetensors'
    write_tensors(path, {**TENSORS, 'again': TENSORS['a'].T}, {'encoder': '{}'})
    assert torch.equal(load_file(path)['again'], TENSORS['a'].T) and tensor_damage(path) is None
    with safe_open(path, 'pt') as file:
        assert file.metadata()['format'] == 'pt' and CHECKSUMS in file.metadata()
    assert metadata(path) == {'format': 'pt', 'encoder': '{}'}
    save_file(TENSORS, tmp_path / 'plain.safetensors')
    assert tensor_damage(tmp_path / 'plain.safetensors') is None and metadata(tmp_path / 'plain.safetensors') == {}
    assert read_content(tmp_path / 'plain.safetensors').keys() == TENSORS.keys()
    data = bytearray(path.read_bytes())
    data[data.index(TENSORS['a'].numpy().tobytes()) + 40] ^= 1
    path.write_bytes(data)
    assert load_file(path), 'safetensors does not look'
    with pytest.raises(LoadError, match='a.safetensors is damaged: a has the checksum .*, it was written with'):
        read_content(path)
