"""Features of a frozen encoder for linear probes: the last blocks' tokens after the final norm, pooled in several ways.

DINOv2 (Oquab et al. 2024) reads the last 1 and 4 blocks, applies the encoder's final LayerNorm to each of them, and
joins class tokens, with or without the mean patch token of the last block; the mean patch token alone is what I-JEPA
probes, since it has no class token.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

POOLINGS = ('cls', 'mean', 'cls_mean')


@dataclass(frozen=True)
class Anatomy:
    """What of a backbone is read.

    Attributes:
        blocks: the blocks whose outputs are (B, P + N, D) tokens, first to last.
        norm: the final norm, or None where the backbone has none.
        num_prefix: P, tokens in front of the N patch tokens; the first is the class token.
        width: D.
    """

    blocks: Sequence[nn.Module]
    norm: nn.Module | None
    num_prefix: int
    width: int


def anatomy(backbone: nn.Module) -> Anatomy:
    """Where blocks, norm and prefix tokens of mmpretrain's ViT family (``layers``) or HiViT (``blocks``) are.

    Raises:
        ValueError: The backbone is neither, e.g. Swin, whose blocks have different widths.
    """
    width = getattr(backbone, 'embed_dims', None)
    if hasattr(backbone, 'num_main_blocks'):
        return Anatomy(list(backbone.blocks)[-backbone.num_main_blocks :], None, 0, width)
    if hasattr(backbone, 'layers') and hasattr(backbone, 'final_norm'):
        norm = backbone.ln1 if backbone.final_norm else None
        prefix = backbone.num_extra_tokens if backbone.cls_token is not None else 0
        return Anatomy(list(backbone.layers), norm, prefix, width)
    raise ValueError(
        f'{type(backbone).__name__} cannot be probed by block: a stack of equally wide blocks is needed. Use '
        "mmpretrain's VisionTransformer, BEiTViT or HiViT, or configs/linear/vitb_linear_90e.py with its own backbone."
    )


def read_tokens(backbone: nn.Module, images: Tensor, indices: Sequence[int], norm: bool = True) -> list[Tensor]:
    """Tokens of the blocks ``indices`` (counted from 0), from one forward pass without gradient.

    They are read where they arise, whatever ``out_indices`` and ``out_type`` the backbone was built with. Backbones
    that mask unless told otherwise (``MAEViT``, ``BEiTPretrainViT``) are told so.

    Args:
        images: (B, 3, H, W), normalised.
        norm: apply the encoder's final norm to each; False: the blocks' bare outputs.

    Returns:
        A tensor (B, P + N, D) for each index, in the order of ``indices``.
    """
    parts = anatomy(backbone)
    found: dict[int, Tensor] = {}
    options = {'mask': None} if 'mask' in inspect.signature(backbone.forward).parameters else {}

    def keep(index):
        def hook(module, inputs, output):
            if not isinstance(output, Tensor):
                raise ValueError(
                    f'{type(backbone).__name__} cannot be probed by block: its blocks put out a '
                    f'{type(output).__name__} and not tokens (B, L, D); see configs/linear/vitb_linear_90e.py'
                )
            found[index] = output

        return hook

    handles = [parts.blocks[index].register_forward_hook(keep(index)) for index in indices]
    try:
        with torch.no_grad():
            backbone(images, **options)
            tokens = [found[index] for index in indices]
            return [parts.norm(t) for t in tokens] if norm and parts.norm is not None else tokens
    finally:
        for handle in handles:
            handle.remove()


def read_blocks(backbone: nn.Module, images: Tensor, count: int) -> list[Tensor]:
    """Tokens of the last ``count`` blocks, each after the final norm: see :func:`read_tokens`.

    Returns:
        ``count`` tensors (B, P + N, D), the last block at the end.
    """
    depth = len(anatomy(backbone).blocks)
    return read_tokens(backbone, images, range(depth - count, depth))


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
