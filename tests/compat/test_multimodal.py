"""mmpretrain beside a transformers that its multimodal models do not know: a fake 5.x without what 5 removed."""

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mmpretrain.utils import dependency

from mim_mm.compat import multimodal

ROOT = Path(__file__).resolve().parents[2]
# Every name is a class, as far as mmpretrain asks at import; in pytorch_utils only what 5.x still has.
ANY_CLASS = """
class Base:
    from_pretrained = from_config = classmethod(lambda cls, *args: cls())


known = {'_BaseAutoModelClass': Base}


def any_class(name):
    if name.startswith('__'):
        raise AttributeError(name)
    return known.setdefault(name, type(name, (Base,), {}))
"""
ANY_NAME = 'from transformers.fake import any_class as __getattr__\n'
MODULES = {
    'fake': ANY_CLASS,
    '__init__': ANY_NAME,
    'activations': ANY_NAME,
    'modeling_outputs': ANY_NAME,
    'modeling_utils': ANY_NAME,
    'utils': ANY_NAME,
    'generation/__init__': '',
    'generation/utils': ANY_NAME,
    'models/__init__': '',
    'models/auto/__init__': '',
    'models/auto/auto_factory': ANY_NAME,
    'models/bert/__init__': '',
    'models/bert/configuration_bert': ANY_NAME,
    'models/opt/__init__': '',
    'models/opt/configuration_opt': ANY_NAME,
    'pytorch_utils': 'def apply_chunking_to_forward(): ...\ndef prune_linear_layer(): ...\n',
}


@pytest.fixture
def site(tmp_path):
    """Folder of the fake package, to put on the path; the version is the caller's."""
    for name, text in MODULES.items():
        path = tmp_path / 'transformers' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def versioned(version):
        info = tmp_path / f'transformers-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n')
        return tmp_path

    return versioned


def python(code, site):
    path = os.pathsep.join([str(ROOT), str(site)])
    environment = {**os.environ, 'PYTHONPATH': path}
    words = [sys.executable, '-c', textwrap.dedent(code)]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_without_the_package_mmpretrain_dies(site):
    if 'onedl-mmpretrain' not in importlib.metadata.packages_distributions().get('mmpretrain', ()):
        pytest.skip('the last upstream release dies of something else in the fake package')
    # the premise; a release that knows transformers 5 needs compat/multimodal no more
    assert 'NoneType takes no arguments' in python('import mmcv, mmpretrain.models', site('5.2.0')).stderr


def test_every_entry_point_imports_beside_transformers_5(site):
    done = python(
        """
        import mim_mm.benchmarks.step, mim_mm.evaluation.frozen.knn, mmpretrain.models
        from mmpretrain.registry import MODELS
        from mmpretrain.utils.dependency import WITH_MULTIMODAL
        print(WITH_MULTIMODAL, MODELS.get('VisionTransformer').__name__)
        try:
            MODELS.get('mmpretrain.BlipVQA')()
        except ImportError as error:
            print('placeholder')
        """,
        site('5.2.0'),
    )
    assert done.stdout.split('\n')[-3:-1] == ['False VisionTransformer', 'placeholder'], done.stderr[-2000:]


@pytest.mark.parametrize('version, told', [('4.46.3', False), ('5.0.0rc1', True), ('10.1', True), (None, False)])
def test_only_what_is_not_known_is_left_out(version, told, site, monkeypatch):
    if version:
        monkeypatch.syspath_prepend(site(version))
    elif multimodal.unknown_transformers():
        pytest.skip('transformers 5 is installed here')
    assert multimodal.unknown_transformers() == (version if told else None)


def test_a_flag_that_was_read_before_is_cleared(site, monkeypatch):
    monkeypatch.syspath_prepend(site('5.2.0'))
    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
    multimodal.install()
    assert dependency.WITH_MULTIMODAL is False
