"""Keeps ``mmpretrain.models`` importable beside a transformers that its multimodal models do not know.

mmpretrain takes any transformers from 4.28 on as reason to import BLIP, OFA and others, which are written for 4.x:
beside 5.0 the import of ``mmpretrain.models`` dies in a base class that is None ("NoneType takes no arguments"). It
asks one flag, ``mmpretrain.utils.dependency.WITH_MULTIMODAL``, which is cleared once that module was imported, so that
mmpretrain registers its placeholders, as where transformers is not installed.
"""

from mim_mm.compat.on_import import after_import

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


def install():
    """Clear the flag where it was read already, or as soon as it is."""
    after_import(NAME, _clear)
