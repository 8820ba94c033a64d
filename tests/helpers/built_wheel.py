"""The wheel and the source distribution, built from a copy of the checkout without network."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tiny_run import ROOT

SKIPPED = shutil.ignore_patterns(
    '.git',
    '.venv*',
    'work_dirs',
    'wheelhouse',
    'data',
    'build',
    'dist',
    '*.egg-info',
    '__pycache__',
    '.pytest_cache',
)


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(folder):
    """The wheel built from the source distribution, which is built from a copy of the checkout; without network."""

    def skipped(directory, names):
        # `data` is ignored at the top only: mim_mm/data and tests/data are code
        out = set(SKIPPED(directory, names))
        return out if Path(directory) == ROOT else out - {'data'}

    shutil.copytree(ROOT, folder / 'checkout', ignore=skipped, symlinks=True)  # mim_mm/.mim holds links
    run('-c', 'from setuptools import build_meta; build_meta.build_sdist("../sdist")', cwd=folder / 'checkout')
    (archive,) = (folder / 'sdist').glob('*.tar.gz')
    with tarfile.open(archive) as tar:
        names = {name.split('/', 1)[1] for name in tar.getnames() if '/' in name}
        tar.extractall(folder / 'unpacked', **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    (tree,) = (folder / 'unpacked').iterdir()
    options = ('--no-build-isolation', '--no-deps', '--no-index', '--quiet', '--wheel-dir', folder / 'wheel')
    run('-m', 'pip', 'wheel', *options, tree, cwd=folder)
    (wheel,) = (folder / 'wheel').glob('*.whl')
    installed = folder / 'installed'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        content = set(archive.namelist())
    return dict(sdist=names, wheel=content, installed=installed, name=wheel.name)
