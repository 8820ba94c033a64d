"""Files are whole or absent; JSON that is damaged is named with the fix; a line cut off by a kill is no line."""

import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from mim_mm import files


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'made' / 'a.txt'
    files.write_text(path, 'old')
    with pytest.raises(KeyError), files.replacing(path) as temporary:
        temporary.write_text('half of the n')
        assert path.read_text() == 'old' and temporary.parent == path.parent
        raise KeyError
    with pytest.raises(FileNotFoundError), files.replacing(path):
        pass  # nothing was written
    assert path.read_text() == 'old' and os.listdir(path.parent) == ['a.txt']


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    files.write_json(path, {'a': 1})

    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(files.NotWritten, match='the disk is full'):
        files.write_json(path, {'a': 2})
    assert files.read_json(path) == {'a': 1} and os.listdir(tmp_path) == ['a.json']
    files.write_json(path, {'a': 3}, sync=False)
    assert files.read_json(path) == {'a': 3}


def test_an_exit_by_signal_in_the_middle_leaves_nothing(tmp_path):
    code = (
        'import os, signal, sys; from mim_mm import files\n'
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n'
        f'with files.replacing({str(tmp_path / "a")!r}) as part:\n'
        '    part.write_text("half"); os.kill(os.getpid(), signal.SIGTERM)\n'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 143
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.write_bytes(tmp_path / 'ours', b'x')
        (tmp_path / 'plain').write_bytes(b'x')
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('ours', 'plain')]
    assert modes == [0o666 & ~mask] * 2


def test_readers_and_writers_side_by_side_see_whole_files_only(tmp_path):
    path, sizes = tmp_path / 'a', set()
    files.write_bytes(path, b'')

    def write(letter):
        for _ in range(20):
            files.write_bytes(path, letter * 200_000, sync=False)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b'a', b'b')]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        data = path.read_bytes()
        sizes.add(len(data))
        assert len(set(data)) <= 1
    assert sizes <= {0, 200_000} and os.listdir(tmp_path) == ['a']


def test_names_that_are_no_text_are_kept(tmp_path):
    name = b'caf\xe9.png'.decode('utf-8', 'surrogateescape')
    files.write_text(tmp_path / 'list.txt', name, errors='surrogateescape')
    assert (tmp_path / 'list.txt').read_bytes() == b'caf\xe9.png'
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / 'list.txt', name)


def test_json_is_read_with_or_without_a_mark_and_damage_is_named(tmp_path):
    path = tmp_path / 'a.json'
    for encoding in ('utf-8', 'utf-8-sig', 'utf-16'):
        path.write_text('{"name": "é"}', encoding=encoding)
        assert files.read_json(path) == files.known_object(path) == {'name': 'é'}
    path.write_text('{"name": "é')
    with pytest.raises(files.DamagedFile, match=r'a\.json cannot be read \(Unterminated.*\): ask the author'):
        files.read_json(path, 'ask the author')
    with pytest.raises(files.DamagedFile, match='cannot be read.*directory'):
        files.read_json(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / 'none.json')
    files.write_json(tmp_path / 'list.json', [1, 2], indent=None)
    assert (tmp_path / 'list.json').read_text() == '[1, 2]\n'
    for useless in (path, tmp_path, tmp_path / 'none.json', tmp_path / 'list.json'):
        assert files.known_object(useless) == {}
    with pytest.raises(ValueError, match='JSON compliant'):
        files.write_json(path, float('nan'), allow_nan=False)


def test_lines_survive_a_kill_in_the_middle_of_one(tmp_path):
    path = tmp_path / 'log.jsonl'
    assert files.read_rows(path) == []
    files.append_row(path, dict(iter=1, loss=0.5))
    with open(path, 'a') as file:
        file.write('{"iter": 2, "los')
    files.append_row(path, dict(iter=3))
    assert files.read_rows(path) == [dict(iter=1, loss=0.5), dict(iter=3)]
    assert path.read_text().splitlines() == ['{"iter": 1, "loss": 0.5}', '{"iter": 2, "los', '{"iter": 3}']
    path.write_bytes(path.read_bytes() + b'[1]\n\n\xff\xfe\n7\n')
    assert [row['iter'] for row in files.read_rows(path)] == [1, 3]


def test_what_is_trained_again_is_dropped(tmp_path):
    path = tmp_path / 'log.jsonl'
    files.drop_after(path, 3)
    assert not path.exists()
    rows = [dict(iter=step, epoch=step // 2) for step in (1, 2, 3, 4)]
    files.write_rows(path, [*rows, dict(other=1)])
    with open(path, 'a') as file:
        file.write('{"iter": 1, "cut o')
    files.drop_after(path, 3)
    assert list(map(json.loads, path.read_text().splitlines())) == rows[:3]
    files.drop_after(path, 0, key='epoch')
    assert files.read_rows(path) == rows[:1]
    files.drop_after(path, 0)
    assert path.read_bytes() == b''


def test_nothing_but_the_standard_library_is_needed():
    code = (
        'import sys, importlib.util; s = importlib.util.spec_from_file_location("files", sys.argv[1]);'
        'm = importlib.util.module_from_spec(s); before = set(sys.modules); s.loader.exec_module(m);'
        'print({n.split(".")[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names))'
    )
    done = subprocess.run(
        [sys.executable, '-S', '-c', code, files.__file__], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == 'set()'
