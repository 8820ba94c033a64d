"""Names of classes, files and folders that are code, templates or paths stay names in the configs that are written."""

import pytest
from mmengine.config import Config

from mim_mm.transfer.own.own_configs import HERE, literal

NAMES = [
    "x'''+__import__('os').system('touch ran')+r'''",
    HERE + "'''+open('ran','w').name+r'''",
    '{{ fileBasename }}',
    '{{$HOME:x}}',
    '{{{{ fileDirname }}}}',
    '{{_base_.model}}',
    "'; touch ran; '",
    '$(touch ran)',
    '../../etc',
    'a\nb"""\\',
    '\\{{ fileDirname }}',
]


@pytest.mark.parametrize('name', NAMES)
def test_a_name_is_read_back_as_it_is_and_nothing_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'written.py'
    path.write_text(f'classes = {literal((name, "cat"))}\ntable = {literal({name: [name], 3: 4})}\n')
    cfg = Config.fromfile(path)
    assert tuple(cfg.classes) == (name, 'cat') and cfg.table == {name: [name], 3: 4}
    assert not (tmp_path / 'ran').exists()


def test_the_folder_of_a_config_is_still_filled_in(tmp_path):
    folder = tmp_path / 'it\'s "here"'
    folder.mkdir()
    (folder / 'written.py').write_text(f'ann_file = {literal(HERE + "/../train list-1.txt")}\n')
    assert Config.fromfile(folder / 'written.py').ann_file == f'{folder}/../train list-1.txt'
