"""One Encoder class for each family of backbones: what algorithms, probes and tools ask of any of them."""

from mim_mm.encoders import (  # noqa: F401  (their classes enter FAMILIES)
    beit,
    deit3,
    hivit,
    masked_conv,
    post_norm,
    raw_pixels,
    register_vit,
    swin,
    swin_v2,
    vit,
)
from mim_mm.encoders.base import Encoder
from mim_mm.encoders.families import FAMILIES, UnsupportedBackbone
from mim_mm.encoders.grid import Grid
from mim_mm.encoders.lookup import build_backbone, class_of, encoder_of, family_of, grid_of, reader_of, sketch

__all__ = [
    'FAMILIES',
    'Encoder',
    'Grid',
    'UnsupportedBackbone',
    'build_backbone',
    'class_of',
    'encoder_of',
    'family_of',
    'grid_of',
    'reader_of',
    'sketch',
]
