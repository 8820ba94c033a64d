"""Keeps ``mmpretrain.models`` importable beside a transformers that its multimodal models do not know.

mmpretrain takes any transformers from 4.28 on as reason to import BLIP, OFA and others, which are written for 4.x:
beside 5.0 the import of ``mmpretrain.models`` dies in a base class that is None ("NoneType takes no arguments"). It
asks one flag, ``mmpretrain.utils.dependency.WITH_MULTIMODAL``; the finder below lets that module load as it is and then
clears the flag, so that mmpretrain registers its placeholders, as where transformers is not installed.
"""

import sys

NAME = 'mmpretrain.utils.dependency'
FIRST_UNKNOWN = 5  # major version


def unknown_transformers():
    """The version of an installed transformers that mmpretrain's multimodal models do not know, else None."""
    import importlib.metadata  # 50 ms, which nothing but this pays

    try:
        version = importlib.metadata.version('transformers')
    except importlib.metadata.PackageNotFoundError:
        return None
    major = (version or '').split('.')[0]
    return version if major.isdigit() and int(major) >= FIRST_UNKNOWN else None


def _clear(module):
    if unknown_transformers():
        module.WITH_MULTIMODAL = False


class _Finder:
    """First in line, finds nothing itself: what the others find for this one module is followed by :func:`_clear`."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != NAME:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not cls)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                _clear(module)

            spec.loader.exec_module = exec_module  # of this loader object: it loads this module only
        return spec


def install():
    """Put the finder first in ``sys.meta_path`` (once), or clear the flag where it was read already."""
    if NAME in sys.modules:
        _clear(sys.modules[NAME])
    elif _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
