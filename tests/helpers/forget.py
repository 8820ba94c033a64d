"""Takes back what a package of a user registered, so that the next test of the process may register the same names."""

import sys

from mim_mm.encoders import FAMILIES
from mim_mm.registry import MODELS


def forget(package):
    """Remove the classes that the modules of ``package`` registered, and the modules themselves."""

    def inside(module):
        return module.split('.')[0] == package

    for known in (MODELS.module_dict, FAMILIES):
        for name in [name for name, cls in known.items() if inside(cls.__module__)]:
            known.pop(name)
    for name in filter(inside, list(sys.modules)):
        sys.modules.pop(name)
