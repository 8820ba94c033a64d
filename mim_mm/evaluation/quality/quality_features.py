"""Features of a frozen encoder for quick measurements: two vectors a block and image, by all processes."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from mmengine.dist import all_gather, all_reduce, get_dist_info
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from mim_mm.data.workers import shield_workers
from mim_mm.encoders import UnsupportedBackbone, reader_of
from mim_mm.evaluation.frozen.features import AMP, encode, evaluating
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.evaluation.probes.probe_features import read_blocks

__all__ = ['compact_tokens', 'extract_tokens']


def compact_tokens(backbone: nn.Module, images: Tensor, blocks: int, amp: str | None = None) -> Tensor:
    """The last blocks of a frozen encoder as the fewest tokens that pool to the same features.

    Args:
        images: (B, 3, H, W), normalised.
        blocks: L, how many last blocks; cut to what there is.

    Returns:
        (B, L, T, D) float32, after the final norm: the class token, if there is one, and the mean patch token.
        Backbones that are no stack of equal blocks (Swin, ConvNeXt) give their last map: (B, 1, 1, D).
    """
    try:
        encoder = reader_of(backbone)
        blocks = min(blocks, len(encoder.blocks))
    except UnsupportedBackbone:
        pooled = encode(backbone, images, amp)
        return torch.stack([pooled[name] for name in ('cls', 'mean') if name in pooled], 1)[:, None]
    autocast = torch.autocast(images.device.type, AMP[amp]) if amp else nullcontext()
    with evaluating(backbone), torch.no_grad(), autocast:
        tokens = read_blocks(backbone, images, blocks)
    means = [t[:, encoder.num_prefix :].mean(1, dtype=torch.float32) for t in tokens]
    if not encoder.num_prefix:
        return torch.stack(means, 1)[:, :, None]
    return torch.stack([torch.stack([t[:, 0].float(), mean], 1) for t, mean in zip(tokens, means)], 1)


def _own_share(backbone, data, count: int, settings, preprocess, device) -> Tensor:
    """Tokens of every ``world``-th image from ``rank`` on, as many on each rank (the last image may be repeated)."""
    rank, world = get_dist_info()
    indices = [min(i, len(data) - 1) for i in range(rank, count * world, world)]
    # An own generator: without it the loader draws its seed from the global one.
    loader = DataLoader(
        Subset(data, indices),
        settings.batch_size,
        num_workers=settings.workers,
        generator=torch.Generator().manual_seed(0),
    )
    shield_workers(loader)
    blocks = max(settings.probe['blocks'])
    out = [
        compact_tokens(backbone, preprocess.normalize(images.to(device)), blocks, settings.amp).cpu()
        for images, _ in loader
    ]
    return torch.cat(out)


def extract_tokens(backbone: nn.Module, data, settings, preprocess: Preprocess, device) -> Tensor:
    """Tokens (N, L, T, D) of all images in their order on rank 0; other ranks, which do their share, get (0, ...).

    Args:
        data: (uint8 (3, H, W), label) by index. settings: a ``QualitySettings``.

    Raises:
        RuntimeError: on every rank alike, when an image could not be read or a feature is not finite on one of them.
    """
    rank, world = get_dist_info()
    count = -(-len(data) // world)
    problem, own = '', torch.zeros(0)
    try:
        own = _own_share(backbone, data, count, settings, preprocess, device)
        if not own.isfinite().all():
            problem = f'features are not finite (amp={settings.amp})'
    except Exception as error:  # whatever it is, the other ranks must not wait for this one for ever
        problem = f'{type(error).__name__}: {error}'
    failed = torch.tensor(float(bool(problem)), device=device)
    all_reduce(failed)
    if failed:
        raise RuntimeError(problem or 'another process could not read its images; its log says why')
    if world == 1:
        return own
    out = torch.empty(len(data) if rank == 0 else 0, *own.shape[1:])
    for start in range(0, count, settings.batch_size):  # in pieces: the devices hold one batch of each rank at a time
        shares = all_gather(own[start : start + settings.batch_size].to(device))
        if rank == 0:
            for other, share in enumerate(shares):
                places = torch.arange(start, start + len(share)) * world + other
                keep = places < len(data)
                out[places[keep]] = share.cpu()[keep]
    return out
