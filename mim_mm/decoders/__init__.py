"""Decoders: from the latent of the visible patches to a prediction of the hidden ones."""

from mim_mm.registry import import_room

import_room(__name__)
