"""One method, one file, read top to bottom: plan, encode, decode, target, loss."""

from mim_mm.registry import import_room

import_room(__name__)
