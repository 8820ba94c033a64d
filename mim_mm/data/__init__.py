"""Data sets: folders of unlabelled images and the demo sets."""

from mim_mm.registry import import_room

import_room(__name__)
