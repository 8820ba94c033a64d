"""Pictures of features: what people look at first."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from mim_mm.api.encoder import LoadedEncoder, load_encoder
from mim_mm.api.images import Image, as_list
from mim_mm.encoders.families import UnsupportedBackbone
from mim_mm.evaluation.pictures.feature_maps import pca_colours
from mim_mm.report.figures_features import draw_feature_maps

__all__ = ['draw_features']


def draw_features(
    encoder: str | os.PathLike | LoadedEncoder, images: Image | Iterable[Image], out: str | os.PathLike
) -> Path:
    """Images above the colours of their patches (three principal components of all patches together), and where the
    class token looks in the last block, for an encoder that has such an attention.

    Args:
        out: the PNG to write.

    Raises:
        ValueError: features that are all the same, or too few patches.
    """
    encoder = encoder if isinstance(encoder, LoadedEncoder) else load_encoder(encoder)
    images = as_list(images)
    batch = torch.stack([encoder.transform(image) for image in images])
    _, patches, grid = encoder.tokens(batch)
    colours, shares = pca_colours(patches.cpu())
    try:
        attention = [row.view(grid) for row in encoder.attention(images)[0]]
    except UnsupportedBackbone:
        attention = None
    seen = [encoder.pixels(image).permute(1, 2, 0).flip(-1).numpy() for image in images]
    maps = [part.view(*grid, 3) for part in colours]
    return draw_feature_maps(seen, maps, attention, shares.tolist(), out)
