"""What the wheel declares is enough: nothing is imported that only a test or another package happens to bring."""

import ast
import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import venv
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from tiny_run import ROOT

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib
from packaging.requirements import Requirement
from safetensors.torch import save_file

pytestmark = pytest.mark.skipif(
    not (ROOT / 'pyproject.toml').is_file(), reason='the tests run from an installed package, not from a checkout'
)
# The same packages under the names of the last upstream releases (make test-upstream).
UPSTREAM = {
    'onedl-mmengine': ['mmengine'], 'onedl-mmcv': ['mmcv-lite', 'mmcv'], 'onedl-mmpretrain': ['mmpretrain'],
    'onedl-mmdetection': ['mmdet'],
}  # fmt: skip
# Modules of an extra, each imported where an ImportError is turned into advice; and what a benchmark compares with.
# (mim_mm/weights/verify.py opens timm and transformers by name where they are installed, and says so where not.)
EXTRAS = {'webdataset', 'braceexpand', 'simplejpeg', 'submitit', 'kornia', 'pyarrow'}
ROOM_OF_EXTRA = {'mmseg': ('mim_mm/segmentation/', 'mim_mm/evaluation/pictures/segments.py')}  # refused before it runs
PEERS = {'timm', 'lightly', 'transformers'}


def plain(name):
    return re.sub(r'[-_.]+', '-', name).lower()


def installed(name):
    for candidate in (name, *UPSTREAM.get(name, ())):
        try:
            return metadata.distribution(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def closure(requirements):
    """{name: distribution} of everything that pip would install for the requirements, without extras."""
    found, waiting = {}, list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
            continue
        distribution = installed(plain(requirement.name))
        if distribution is not None and plain(distribution.metadata['Name']) not in found:
            found[plain(distribution.metadata['Name'])] = distribution
            waiting += distribution.requires or []
    return found


@pytest.fixture(scope='module')
def declared():
    return closure(tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['dependencies'])


def imports(path):
    """(module, guarded) of each import in a file, also inside functions; guarded: ImportError is caught."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try) and any('ImportError' in ast.dump(h) for h in attempt.handlers)
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from ((name.split('.')[0], id(node) in guarded) for name in names)


def test_every_import_is_declared_or_optional(declared):
    providers = metadata.packages_distributions()
    undeclared = defaultdict(dict)
    for folder in ('mim_mm', 'tools', 'configs'):
        for path in sorted((ROOT / folder).rglob('*.py')):
            for module, guarded in imports(path):
                local = module in sys.stdlib_module_names or module == 'mim_mm' or (path.parent / module).exists()
                if not local and not {plain(n) for n in providers.get(module, ())} & set(declared):
                    name = path.relative_to(ROOT).as_posix()
                    undeclared[module][name] = undeclared[module].get(name, False) or guarded
    for module, rooms in ROOM_OF_EXTRA.items():
        assert all(name.startswith(rooms) for name in undeclared.pop(module, {})), module
    assert set(undeclared) <= EXTRAS | PEERS, {m: list(f) for m, f in undeclared.items() if m not in EXTRAS | PEERS}
    assert all(all(files.values()) for module, files in undeclared.items() if module in EXTRAS), dict(undeclared)
    for module in PEERS & set(undeclared):
        assert set(undeclared[module]) == {'mim_mm/benchmarks/peers.py'}, undeclared[module]


READ = """
import importlib.util, sys
assert all(importlib.util.find_spec(name) is None for name in ('timm', 'pytest', 'submitit'))
import mim_mm
from mim_mm.checkpoint.read import read_checkpoint
for path in sys.argv[1:]:
    assert read_checkpoint(path)['cls_token'].tolist() == [1.5, 2.5], path
print('read', len(sys.argv) - 1, mim_mm.__file__)
"""


def formats(folder):
    """One file of each kind that the reader takes, with the same tensor."""
    state = {'cls_token': torch.tensor([1.5, 2.5])}
    torch.save({'state_dict': state}, folder / 'zip.pth')
    torch.save(state, folder / 'old.pt', _use_new_zipfile_serialization=False)
    torch.save({'model': state}, folder / 'other.bin')
    save_file(state, folder / 'a.safetensors')
    return [str(folder / name) for name in ('zip.pth', 'old.pt', 'other.bin', 'a.safetensors')]


def done(command, **options):
    found = subprocess.run(command, capture_output=True, text=True, **options)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_each_format_is_read_with_what_is_declared(declared, tmp_path):
    """The package beside links to its declared dependencies, and nothing else of this environment."""
    farm = tmp_path / 'packages'
    farm.mkdir()
    for distribution in declared.values():
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ('..', '__pycache__')}
        for top in tops:
            if not top.endswith('.pth') and not (farm / top).exists():
                (farm / top).symlink_to(Path(distribution.locate_file(top)))
    (farm / 'mim_mm').symlink_to(ROOT / 'mim_mm')
    code = f'import sys; sys.path.insert(0, {str(farm)!r})\n{READ}'
    said = done([sys.executable, '-I', '-S', '-c', code, *formats(tmp_path)], cwd=tmp_path)
    assert f'read 4 {farm}' in said


@pytest.mark.full
def test_the_wheel_installed_by_pip_reads_each_format(built, tmp_path):
    """The same by pip, from the package index: minutes, and gigabytes where torch brings CUDA."""
    venv.create(tmp_path / 'venv', with_pip=True)
    python = tmp_path / 'venv/bin/python'
    wheel = next(built['installed'].parent.glob('wheel/*.whl'))
    environment = dict(os.environ, MMCV_WITH_OPS='0')
    environment.pop('PYTHONPATH', None)
    done([python, '-m', 'pip', 'install', '--quiet', '-c', ROOT / 'constraints.txt', wheel], env=environment)
    said = done([python, '-c', READ, *formats(tmp_path)], cwd=tmp_path, env=environment)
    assert f'read 4 {tmp_path / "venv"}' in said
