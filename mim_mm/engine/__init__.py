"""Hooks, optimizer wrappers and constructors, and the guards that run before training."""

from mim_mm.registry import import_room

import_room(__name__)
