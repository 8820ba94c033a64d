"""What a checkpoint has seen of its data: which images, in which order, how many of them.

A sampler that deals out one permutation in turns (mmengine's ``DefaultSampler``, ``InfiniteSampler``) has, after n
batches on every process, seen the first n x batch x processes images of it, whatever the batch and the processes are.
So a place in the middle of an epoch can be counted in other batches, where their size divides it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_world_size

from mim_mm.engine.stop.seeded_data import bare

SAMPLED = 256  # images whose names are looked at, evenly spaced


def describe(loader) -> dict[str, Any]:
    """Plain data for the checkpoint: the images (their number, a digest of some names) and the order of an epoch.

    ``order`` is None where the order depends on the batch or on the number of processes.
    """
    dataset, sampler = bare(loader.dataset), bare(getattr(loader, 'sampler', None))
    in_turns = type(sampler) in (DefaultSampler, InfiniteSampler) and _deals_whole_batches(loader)
    order = None
    if in_turns and isinstance(getattr(sampler, 'seed', None), int):
        order = f'{type(sampler).__name__} seed={sampler.seed} shuffle={bool(getattr(sampler, "shuffle", False))}'
    try:
        count = len(dataset)
    except TypeError:  # a stream
        count = None
    return dict(images=count, names=_names(dataset, count), order=order)


def _deals_whole_batches(loader) -> bool:
    from torch.utils.data import BatchSampler

    return type(bare(getattr(loader, 'batch_sampler', None))) is BatchSampler


def images_an_iteration(loader) -> int | None:
    """Images that one iteration reads, over all processes; None where the loader does not say."""
    size = getattr(loader, 'batch_size', None) or getattr(getattr(loader, 'batch_sampler', None), 'batch_size', None)
    return size * get_world_size() if isinstance(size, int) else None


def _names(dataset, count: int | None) -> str | None:
    """Digest of the last two parts of some images' paths, so that a data set may move; None where it has no paths."""
    read = getattr(dataset, 'get_data_info', None)
    if read is None or not count:
        return None
    digest = hashlib.sha256()
    try:
        for place in range(min(count, SAMPLED)):
            path = read(place * count // min(count, SAMPLED))['img_path']
            digest.update('/'.join(str(path).split('/')[-2:]).encode() + b'\0')
    except Exception:  # other data sets keep other things
        return None
    return digest.hexdigest()[:16]


def other_images(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """How the images differ from those of the checkpoint, in words; None where they do not, or nobody can tell."""
    if then.get('images') and now['images'] and then['images'] != now['images']:
        return f'{then["images"]} -> {now["images"]} images'
    if then.get('names') and now['names'] and then['names'] != now['names']:
        return f'as many images ({now["images"]}) of other names'
    return None
