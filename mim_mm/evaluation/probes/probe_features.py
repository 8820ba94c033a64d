"""Features of a frozen encoder for linear probes: the last blocks' tokens after the final norm, pooled in several ways.

DINOv2 (Oquab et al. 2024) reads the last 1 and 4 blocks, applies the encoder's final LayerNorm to each of them, and
joins class tokens, with or without the mean patch token of the last block; the mean patch token alone is what I-JEPA
probes, since it has no class token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mim_mm.encoders import reader_of

POOLINGS = ('cls', 'mean', 'cls_mean')


def read_blocks(backbone: nn.Module, images: Tensor, count: int) -> list[Tensor]:
    """Tokens of the last ``count`` blocks, each after the final norm: see :meth:`mim_mm.encoders.Encoder.read`.

    Returns:
        ``count`` tensors (B, P + N, D), the last block at the end.
    """
    encoder = reader_of(backbone)
    return encoder.read(images, range(encoder.depth - count, encoder.depth))


def pooled_width(width: int, blocks: int, pooling: str) -> int:
    """Length of the feature that :func:`pool` makes of the last ``blocks`` blocks of width ``width``."""
    return width * (blocks + (pooling == 'cls_mean'))


def pool(tokens: Sequence[Tensor], blocks: int, pooling: str, num_prefix: int) -> Tensor:
    """One vector an image out of the last ``blocks`` of ``tokens``.

    ``cls``: their class tokens, joined. ``mean``: their mean patch tokens, joined. ``cls_mean``: their class tokens,
    then the mean patch token of the last block only (DINOv2).

    Args:
        tokens: tensors (B, P + N, D) of consecutive blocks, the last block at the end.
        num_prefix: P.

    Returns:
        (B, pooled_width) in fp32, a copy, so that the tokens can be freed.
    """
    chosen = tokens[-blocks:]
    vectors = [] if pooling == 'mean' else [t[:, 0].float() for t in chosen]
    averaged = dict(cls=[], mean=chosen, cls_mean=chosen[-1:])[pooling]
    vectors += [t[:, num_prefix:].mean(1, dtype=torch.float32) for t in averaged]
    return torch.cat(vectors, 1)
