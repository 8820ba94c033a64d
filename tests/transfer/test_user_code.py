"""The user's own modules belong to a run: which files they are, and that an edit runs the stage again."""

import hashlib
import json

import pytest
from mmengine.config import Config

from mim_mm.compat.paths import repo_root
from mim_mm.transfer.identity import digest
from mim_mm.transfer.own.user_code import user_code


@pytest.fixture
def code(tmp_path, monkeypatch):
    """``write(name, text)`` into a folder on the path; the modules are never imported."""
    folder = tmp_path / 'my code'
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(name, text=''):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def modules(tmp_path, text, **more):
    path = tmp_path / 'config.py'
    path.write_text(text)
    for name, base in more.items():
        (tmp_path / f'{name}.py').write_text(base)
    config = Config.fromfile(str(path), import_custom_modules=False)
    return user_code(config, path)


def test_imports_are_followed_to_the_end(tmp_path, code):
    mask = code('chk_mask.py', 'import torch, json\nfrom chk_pkg.deep import tool\n\ndef f():\n    import chk_late\n')
    code('chk_late.py')
    code('chk_pkg/__init__.py', 'from . import near\n')
    code('chk_pkg/near.py')
    code('chk_pkg/unused.py')
    code('chk_pkg/deep/__init__.py')
    code('chk_pkg/deep/tool.py', 'from ..other import thing\nraise RuntimeError("reading must not run me")\n')
    code('chk_pkg/other.py', 'from mim_mm.masking import base\n')
    named = ['chk_mask', 'mim_mm', 'mmpretrain.models', 'chk_none']
    found = modules(tmp_path, f'custom_imports = dict(imports={named})\n')
    names = ['chk_late', 'chk_mask', 'chk_pkg', 'chk_pkg.deep', 'chk_pkg.deep.tool', 'chk_pkg.near', 'chk_pkg.other']
    assert list(found) == names
    assert found['chk_mask'] == dict(file=str(mask), sha256=hashlib.sha256(mask.read_bytes()).hexdigest())


@pytest.mark.parametrize('text', [
    'custom_imports = dict(imports="chk_one")\n',
    'import chk_one\nx = 1\n',
    'from chk_one import value\nx = value\n',
    'model = dict(masker=dict(type="chk_one.Mine"))\n',
    'from mmengine.config import read_base\nwith read_base():\n    from .base import *\n',
])  # fmt: skip
def test_where_a_config_may_name_it(tmp_path, code, text):
    code('chk_one.py', 'value = 3\n')
    assert list(modules(tmp_path, text, base='import chk_one\ny = 2\n')) == ['chk_one']


def test_a_package_that_loads_by_name_counts_whole(tmp_path, code):
    code('chk_all/__init__.py', 'import pkgutil\n')
    code('chk_all/sub/__init__.py')
    code('chk_all/sub/leaf.py', 'import chk_leaf\n')
    code('chk_leaf.py')
    found = modules(tmp_path, 'custom_imports = dict(imports=["chk_all"])\n')
    assert list(found) == ['chk_all', 'chk_all.sub', 'chk_all.sub.leaf', 'chk_leaf']


@pytest.mark.parametrize('path', ['configs/emae/emae_vitb_300e.py', 'configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py'])
def test_our_recipes_bring_in_nothing(path):
    assert user_code(Config.fromfile(str(repo_root() / path)), repo_root() / path) == {}


def test_editing_a_masker_runs_the_stage_again(place, code):
    mask = code('chk_masker.py', 'import chk_helper\nRATIO = 0.75\n')
    helper = code('chk_helper.py', 'X = 1\n')
    place.config('pretrain', load=False, custom_imports=dict(imports=['chk_masker'], allow_failed_imports=False))
    place.write(pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'))
    assert place.run()[0] == 0
    record = place.record('pretrain')
    wanted = {name: dict(file=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
              for name, file in (('chk_helper', helper), ('chk_masker', mask))}  # fmt: skip
    assert record['code'] == wanted and place.record('linear')['code'] == {}
    assert place.run()[1].count('] skip: ') == 2
    helper.write_text('X = 2\n')
    code_, said = place.run()
    assert code_ == 0 and '[pretrain] rerun: code changed: chk_helper: ' in said and 'chk_masker' not in said
    assert place.record('pretrain')['code']['chk_helper']['sha256'] == hashlib.sha256(b'X = 2\n').hexdigest()
    # A record of a version that knew nothing of code is not thrown away for it.
    old = place.record('pretrain')
    identity = json.loads((place.work / 'pretrain/identity.json').read_text())
    del old['code'], identity['config']['<code>']
    old['config']['sha256'] = digest(identity['config'])
    (place.work / 'pretrain/run.json').write_text(json.dumps(old))
    assert place.run()[1].count('] skip: ') == 2
