"""What a built wheel and a source distribution carry, and that configs are found inside an installed wheel."""

import re
import subprocess
from email.parser import Parser
from pathlib import Path

import pytest
from built_wheel import run

from mim_mm.compat import paths
from mim_mm.version import __version__

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not (ROOT / 'pyproject.toml').is_file(), reason='the tests run from an installed package, not from a checkout'
)


def sources(folder):
    """Files of a folder of the checkout, relative to the checkout."""
    files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob('*') if path.is_file())
    return {path.as_posix() for path in files if '__pycache__' not in path.parts and '.mim' not in path.parts}


def test_wheel_carries_package_configs_and_tools(built):
    assert built['name'] == f'mim_mm-{__version__}-py3-none-any.whl'
    assert sources('mim_mm') <= built['wheel']  # modules and data files
    for folder in ('configs', 'tools'):
        wanted = {f'mim_mm/.mim/{name}' for name in sources(folder)}
        assert wanted and wanted <= built['wheel']
    assert 'mim_mm/.mim/model-index.yml' in built['wheel']
    assert not [name for name in built['wheel'] if name.startswith(('tests/', 'configs/', 'tools/')) or '.pyc' in name]


def test_shell_tools_stay_executable(built):
    scripts = sorted((built['installed'] / 'mim_mm/.mim/tools').glob('*.sh'))
    assert scripts
    for script in scripts:
        assert (ROOT / 'tools' / script.name).stat().st_mode & 0o111, f'chmod +x tools/{script.name}'


def test_wheel_metadata(built):
    (metadata,) = built['installed'].glob('*.dist-info/METADATA')
    fields = Parser().parsestr(metadata.read_text())
    assert fields['Requires-Python'] == '<3.13,>=3.10'
    assert fields['License-Expression'] == 'Apache-2.0'
    wanted = {re.split(r'[<>=;\s]', requirement)[0] for requirement in fields.get_all('Requires-Dist')}
    assert {'torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain', 'onedl-mmdetection'} <= wanted
    licenses = list(metadata.parent.rglob('LICENSE'))
    assert licenses and 'Apache License' in licenses[0].read_text()


def test_source_distribution_is_complete(built):
    for folder in ('mim_mm', 'configs', 'tools'):
        assert sources(folder) <= built['sdist']
    assert {'LICENSE', 'README.md', 'pyproject.toml', 'setup.py', 'constraints.txt', 'Makefile'} <= built['sdist']


MINE = """
_base_ = 'mim_mm::{recipe}'
tiny = dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
model = dict(backbone=dict(arch=tiny, img_size=32, patch_size=8))
loader = dict(batch_size=5, num_workers=0, persistent_workers=False, pin_memory=False)
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""
PRETRAIN = (
    MINE
    + """
model['decoder'] = dict(embed_dims=32, depth=1, num_heads=2)
steps = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=32),
    dict(type='PackImage'),
]
train_dataloader = dict(dataset=dict(data_root={root!r}, data_prefix='', pipeline=steps), **loader)
"""
)
FINETUNE = (
    MINE
    + """
model['head'] = dict(in_channels=32, num_classes=2)
steps = [dict(type='LoadImageFromFile'), dict(type='mmpretrain.RandomResizedCrop', scale=32), dict(type='PackInputs')]
data = dict(data_root={root!r}, data_prefix='', pipeline=steps)
train_dataloader = dict(dataset=data, **loader)
val_dataloader = test_dataloader = dict(dataset=dict(data, classes_from=None), **loader)
val_evaluator = test_evaluator = dict(topk=(1,))
"""
)
PLAIN = """
import sys
import mim_mm
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile(sys.argv[1])
cfg.work_dir = 'work_dirs/pretrain'
Runner.from_cfg(cfg).train()
"""


def test_a_recipe_by_name_trains_from_an_installed_wheel(built, image_folder, tmp_path):
    """By plain mmengine, then by the tool that ``mim train`` starts; the recipes are those of the wheel."""
    root = str(image_folder)
    (tmp_path / 'pretrain.py').write_text(PRETRAIN.format(recipe='emae/emae_vits_300e.py', root=root))
    (tmp_path / 'finetune.py').write_text(FINETUNE.format(recipe='finetune/vits_finetune_200e.py', root=root))
    (tmp_path / 'plain.py').write_text(PLAIN)
    tool = built['installed'] / 'mim_mm' / '.mim' / 'tools' / 'train.py'
    for command in (('plain.py', 'pretrain.py'), (tool, 'finetune.py', '--launcher', 'none')):
        run(*command, cwd=tmp_path, PYTHONPATH=built['installed'], OMP_NUM_THREADS=1)
    assert (tmp_path / 'work_dirs/finetune/epoch_1.pth').is_file()
    (log,) = (tmp_path / 'work_dirs/pretrain').glob('*/*.log')
    assert 'loss_consistency' in log.read_text()


def test_mim_starts_the_tools_of_a_checkout_and_of_a_wheel(built):
    """Where ``mim train`` looks: below the package; onedl-mim beside the first file of a wheel, its dist-info."""
    inside = ROOT / 'mim_mm' / '.mim'
    assert (inside / 'tools' / 'train.py').samefile(ROOT / 'tools' / 'train.py')
    assert (inside / 'configs').samefile(ROOT / 'configs')
    for place in ('mim_mm/.mim', f'mim_mm-{__version__}.dist-info'):
        for tool in ('train.py', 'test.py'):
            assert (built['installed'] / place / 'tools' / tool).read_text() == (ROOT / 'tools' / tool).read_text()


def test_paths_of_the_checkout():
    assert paths.repo_root() == ROOT
    assert paths.configs_root().is_dir() and (paths.tools_root() / 'doctor.py').is_file()


def test_paths_without_configs_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, 'PACKAGE', tmp_path / 'somewhere' / 'mim_mm')
    with pytest.raises(FileNotFoundError, match='pip install -e'):
        paths.repo_root()


def test_constraints_pin_exactly_and_once_for_each_python():
    from packaging import markers
    from packaging.requirements import Requirement

    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith('#')]
    for version in ('3.10', '3.11', '3.12'):
        environment = {**markers.default_environment(), 'python_version': version}
        chosen = [r for r in requirements if r.marker is None or r.marker.evaluate(environment)]
        names = [r.name.lower() for r in chosen]
        assert len(names) == len(set(names))
        assert {'torch', 'torchvision', 'onedl-mmcv', 'onedl-mmdetection', 'pytest', 'setuptools'} <= set(names)
    assert all(re.fullmatch(r'==[\w.]+', str(r.specifier)) for r in requirements)


def test_wheelhouse_refuses_other_pythons(tmp_path):
    script = ROOT / 'tools' / 'wheelhouse.sh'
    for arguments in (['3.9', tmp_path / 'house'], ['3.12'], ['3.12', tmp_path / 'house', '--fast']):
        done = subprocess.run(['bash', str(script), *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 2 and 'PYTHON_VERSION DIR [--full]' in done.stderr
    assert not (tmp_path / 'house').exists()


def test_wheelhouse_names_are_pinned():
    # the script walks the pins; a name that is not among them would be left out without a word
    script = (ROOT / 'tools' / 'wheelhouse.sh').read_text()
    pinned = {line.split('==')[0] for line in (ROOT / 'constraints.txt').read_text().splitlines()}
    for variable in ('needed', 'skipped'):
        names = re.search(rf"^{variable}='([^']*)'", script, re.M).group(1).split()
        assert names and set(names) <= pinned
