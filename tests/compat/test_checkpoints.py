"""The modules of upstream that load files are those whose loading is ours, in whatever version is installed."""

import ast
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import checkpoint as upstream

from mim_mm.checkpoint.read import LoadError
from mim_mm.compat import checkpoints

# torch < 1.7 only; the packages' own tools and demos, which nobody imports
EXEMPT = {'mmengine.utils.dl_utils.hub', 'mmpretrain.models.multimodal.ram.gradio_demo'}


def callers(package):
    """Modules of a package that call ``torch.load``."""
    root = Path(importlib.util.find_spec(package).origin).parent
    for path in root.rglob('*.py'):
        names = path.relative_to(root).with_suffix('').parts
        if names[0] == '.mim':
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'torch.load':
                yield '.'.join((package, *names))


@pytest.mark.parametrize('package', ['mmengine', 'mmcv', 'mmpretrain', 'mmdet'])
def test_every_module_that_loads_files_is_listed(package):
    assert set(callers(package)) - EXEMPT <= set(checkpoints.LOADERS)


def test_their_torch_is_torch_but_for_load():
    assert upstream.torch.nn is torch.nn and upstream.torch.save is torch.save
    assert upstream.torch.load is not torch.load


def test_a_file_is_fetched_once_and_read_with_care(tmp_path, monkeypatch):
    fetched = []

    def fetch(url, path, prefix, progress):
        fetched.append((url, prefix))
        torch.save(dict(a=torch.ones(1)), path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    for _ in range(2):
        found = upstream.load_url('https://example.org/x-0123abcd.pth?y', str(tmp_path / 'new'), check_hash=True)
        assert found['a'].tolist() == [1]
    assert fetched == [('https://example.org/x-0123abcd.pth?y', '0123abcd')]


def test_config_texts_outside_of_a_resume_are_read_as_ever():
    assert Config.fromstring('a = 1 + 1', '.py').a == 2


def test_an_inferencer_with_a_config_is_as_ever():
    from mmengine.infer import BaseInferencer

    with pytest.raises(LoadError, match='model=CONFIG'):
        BaseInferencer._init_model(None, None, 'a.pth')
    with pytest.raises(FileNotFoundError):  # further than that
        BaseInferencer._init_model(None, Config(dict(model=dict())), 'a.pth')
