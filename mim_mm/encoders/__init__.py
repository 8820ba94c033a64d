"""Adapters that let an mmpretrain backbone encode under a MaskPlan."""

from mim_mm.encoders import hivit, vit  # noqa: F401  (they register their backbones)
from mim_mm.encoders.base import Grid, describe, embed, encode, prepare

__all__ = ['Grid', 'describe', 'embed', 'encode', 'prepare']
