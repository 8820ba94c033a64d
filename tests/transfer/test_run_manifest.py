"""run.json is whole or absent, and a damaged one says what is wrong."""

import json
import os

import pytest

from mim_mm.transfer import manifest
from mim_mm.transfer.manifest import DamagedManifest, Record, read_record


def test_round_trip(tmp_path):
    record = Record('c', 'linear-s1', 'linear', 'emae', 1, 'done', metrics={'accuracy/top1': 61.5}, parent=None)
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    assert json.loads((tmp_path / 'run.json').read_text())['schema'] == 1


def test_absent_is_none(tmp_path):
    assert read_record(tmp_path) is None


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    old = Record('c', 's', 'linear', 'a', 0, 'running')
    old.write(tmp_path)

    def full_disk(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full_disk)
    with pytest.raises(OSError, match='the disk is full.*What was there before is whole'):
        Record('c', 's', 'linear', 'a', 0, 'done').write(tmp_path)
    monkeypatch.undo()
    assert read_record(tmp_path) == old
    assert [path.name for path in tmp_path.iterdir()] == ['run.json']


@pytest.mark.parametrize(
    'text, word',
    [
        ('', 'cannot be read'),
        ('{"schema": 1, "chain": "c"', 'cannot be read'),
        ('[]', 'not a record'),
        ('{"schema": 2}', 'schema 2'),
        ('{"schema": 1, "chain": "c", "stage": "s"}', 'lacks kind, arm, seed, status'),
        ('{"schema": 1, "chain": "c", "stage": "s", "kind": "k", "arm": "a", "seed": 0, "status": "fine"}', 'fine'),
    ],
)
def test_damage_is_named(tmp_path, text, word):
    (tmp_path / 'run.json').write_text(text)
    with pytest.raises(DamagedManifest, match=word) as error:
        read_record(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_keys_of_a_later_version_do_no_harm(tmp_path):
    Record('c', 's', 'linear', 'a', 0, 'done').write(tmp_path)
    content = dict(json.loads((tmp_path / 'run.json').read_text()), mood='good')
    (tmp_path / 'run.json').write_text(json.dumps(content))
    assert read_record(tmp_path).status == 'done'


def test_tail(tmp_path):
    log = tmp_path / 'log'
    log.write_text('\n'.join(f'line {i}' for i in range(100)) + '\n')
    assert manifest.tail(log, lines=2) == 'line 98\nline 99'
    assert manifest.tail(tmp_path / 'none') == ''
