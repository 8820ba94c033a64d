"""Measures beside the losses: diagnostics of masks and of the agreement between parts."""

from mim_mm.registry import import_room

import_room(__name__)
