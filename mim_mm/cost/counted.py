"""Backbones without a formula: built, and counted by torch on tensors without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mim_mm.cost.work import TRAINED, Part


def count(module, *inputs) -> tuple[float, Any]:
    """Forward FLOPs of a module on the meta device, and what it returned.

    The attention kernel is the plain one: fused kernels are not counted on every device and version.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    module = module.to('meta')
    module.eval()  # not chained: mmpretrain's ConvNeXt returns nothing from it
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = module(*(value.to('meta') for value in inputs))
    return float(counter.get_total_flops()), out


def counted_backbone(backbone: Mapping, size: tuple[int, int], backward: float = TRAINED, width: int = 2):
    """``(parts, maps, name)`` of any registered backbone that returns maps or vectors, as :func:`backbones.swin`.

    Activations are not known without a formula: eight times the sum of the maps stands in for them.

    Raises:
        ValueError: it cannot be built, or not run without data.
    """
    import copy

    import torch

    from mim_mm.registry import MODELS

    settings = {key: value for key, value in copy.deepcopy(dict(backbone)).items() if key != 'init_cfg'}
    try:
        module = MODELS.build(settings)
        flops, out = count(module, torch.zeros(1, 3, *size, device='meta'))
    except Exception as error:
        raise ValueError(
            f'the backbone {backbone.get("type")} has no formula and could not be counted at {size[0]} x {size[1]} px: '
            f'{type(error).__name__}: {error}'
        ) from error
    out = out if isinstance(out, (tuple, list)) else (out,)
    maps = [(m.shape[-1] * m.shape[-2] if m.ndim == 4 else 1, m.shape[1]) for m in out]
    params = sum(p.numel() for p in module.parameters())
    kept = 8.0 * width * sum(tokens * channels for tokens, channels in maps)
    return [Part('backbone', flops, backward, params, kept)], maps, type(module).__name__


def counted_tokenizer(tokenizer: Mapping, size: tuple[int, int]) -> Part:
    """A frozen convolutional tokenizer (DALL-E's encoder), which no checkpoint of ours trains."""
    parts, _, _ = counted_backbone(tokenizer, size, 0.0)
    return Part('tokenizer', parts[0].forward, 0.0, parts[0].params, parts[0].saved)
