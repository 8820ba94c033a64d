"""Adds ``configs/`` and ``tools/`` to the built package as ``mim_mm/.mim``, where OpenMMLab's tools look for them.

They are copied into the build folder. In the checkout, and thus in an editable install, ``mim_mm/.mim`` holds links to
them instead (``mim_mm/compat/paths.py`` finds either).

``mim train`` of onedl-mim 0.5 takes the folder of the first file that an installed package lists for its root. Files
are listed by name, and "mim_mm-0.2.0.dist-info/" sorts before "mim_mm/"; so the two tools it starts are there as well.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
FOLDERS = ('configs', 'tools')


class build_py_with_mim(build_py):
    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'mim_mm' / '.mim'
        for folder in FOLDERS:
            shutil.rmtree(target / folder, ignore_errors=True)
            shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))


class bdist_wheel_with_mim(bdist_wheel):
    def egg2dist(self, egginfo_path, distinfo_path):
        super().egg2dist(egginfo_path, distinfo_path)
        tools = Path(distinfo_path) / 'tools'
        tools.mkdir()
        for name in ('train.py', 'test.py'):
            shutil.copy(ROOT / 'tools' / name, tools)


setup(cmdclass={'build_py': build_py_with_mim, 'bdist_wheel': bdist_wheel_with_mim})
