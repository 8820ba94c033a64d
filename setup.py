"""Adds ``configs/`` and ``tools/`` to the built package as ``mim_mm/.mim``, where OpenMMLab's tools look for them.

They are copied into the build folder. In the checkout, and thus in an editable install, ``mim_mm/.mim`` holds links to
them instead (``mim_mm/compat/paths.py`` finds either).
"""

import shutil
from pathlib import Path

from setuptools import setup
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


setup(cmdclass={'build_py': build_py_with_mim})
