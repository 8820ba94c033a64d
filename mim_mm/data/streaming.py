"""Pretraining on shards that are not on a disk: read by URL, in order, through the ``webdataset`` package."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from torch.utils.data import IterableDataset, get_worker_info

from mim_mm.data.image_sources import SourceError
from mim_mm.folders import SUFFIXES, in_hidden
from mim_mm.registry import DATASETS
from mim_mm.seeds import SAMPLE, mix, seed_generators

MOST_WORKERS = 1024


@DATASETS.register_module()
class StreamedImages(IterableDataset):
    """Unlabelled images out of tar shards by ``http:``, ``https:``, ``pipe:`` or path, each read from front to back.

    Every epoch the shards are put into a new order, the same on all ranks; each of the ranks x workers readers takes
    every so manieth of them, and shuffles images within a buffer. An epoch has exactly ``images // (ranks x
    batch_size)`` batches on every rank, as distributed training needs: a reader whose shards end too early begins
    again with the first of them, and what is too much is left for another epoch. With as many shards as a multiple of
    the readers, all equally full, every image is seen once.

    A shard that breaks off is logged and left; where none of a reader's shards gives an image, the run stops. Samples
    are ``dict(img_bytes, name)``, for ``LazyLoadImageFromFile`` or directly for ``FastRandomResizedCrop``. In the
    loader ``sampler`` is None. The augmentation of an image follows from seed, epoch and its name; a resumed run goes
    on in its epoch, whose first images are read once more.

    Args:
        urls: one, with ranges in braces (``https://host/train-{000000..000640}.tar``), or several.
        images: in all shards together; ``shards.json`` of ``tools/make_shards.py`` says how many.
        batch_size: that of the loader.
        pipeline: transforms.
        buffer: images that a worker holds for shuffling, as files (500 of ImageNet are 55 MB).
        seed: of all orders.
        rank, world_size: this process among those that train; None asks torch.distributed.

    Raises:
        ImportError: webdataset is not installed.
        SourceError: too few images for a batch, fewer shards than readers, or no image to be had.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        images: int,
        batch_size: int,
        pipeline: Sequence[dict] = (),
        buffer: int = 500,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        try:
            import webdataset  # noqa: F401
            from braceexpand import braceexpand
        except ImportError as error:
            raise ImportError("StreamedImages needs webdataset: pip install 'mim_mm[stream]'") from error
        given = [urls] if isinstance(urls, str) else list(urls)
        # A file that is there is itself, whatever braces are in the name of its folder.
        self.urls = [url for one in given for url in ([one] if os.path.isfile(one) else braceexpand(one))]
        asked = get_dist_info()
        self.rank = asked[0] if rank is None else rank
        self.world_size = asked[1] if world_size is None else world_size
        self.batch_size, self.buffer, self.seed = batch_size, max(1, buffer), seed
        self.batches = images // (self.world_size * batch_size)
        if not self.batches:
            raise SourceError(f'{images} images are not one batch of {batch_size} on each of {self.world_size} ranks')
        self.pipeline = Compose(list(pipeline))
        # One counter a worker, in memory that outlives workers which are started anew every epoch.
        self._epochs = torch.zeros(MOST_WORKERS, dtype=torch.int64).share_memory_()
        self._skips = torch.zeros(MOST_WORKERS, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        """Images of an epoch on this rank."""
        return self.batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Take the order of that epoch the next time."""
        self._epochs.fill_(epoch)

    def skip(self, batches: int) -> None:
        """Leave out that many batches of all workers together the next time."""
        self._skips.fill_(batches)

    def own_urls(self, epoch: int, worker: int, workers: int) -> list[str]:
        """The shards of one reader in its order."""
        readers = self.world_size * workers
        if len(self.urls) < readers:
            raise SourceError(
                f'{len(self.urls)} shards for {readers} readers ({self.world_size} ranks x {workers} workers): use '
                'fewer workers, or more shards (tools/make_shards.py --images-per-shard)'
            )
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.urls))
        return [self.urls[i] for i in order[self.rank * workers + worker :: readers]]

    def __iter__(self) -> Iterator[dict]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        epoch, skipped = int(self._epochs[worker]), int(self._skips[worker])
        self._epochs[worker] += 1
        self._skips[worker] = 0
        # Batch b is worker b % workers's. The loader asks worker 0 first, also for the first batch that is left.
        worker = (worker + skipped) % workers
        urls = self.own_urls(epoch, worker, workers)
        rng = np.random.default_rng([self.seed, epoch, self.rank * workers + worker])

        def share(batches: int) -> int:
            # Whole batches, so that all workers together give as many as the loader's length says.
            return (batches // workers + (worker < batches % workers)) * self.batch_size

        stream = self._endless(urls, rng)
        given, left_out = 0, share(skipped)
        while given < share(self.batches):
            # What is left out is read as well: only so is it known what a transform passed over.
            turn, sample = next(stream)
            seed_generators(mix(self.seed, SAMPLE, epoch, zlib.crc32(sample['name'].encode()), turn))
            packed = self.pipeline(sample)
            if packed is not None:  # a transform passed over an image that cannot be read
                given += 1
                if given > left_out:
                    yield packed

    def _endless(self, urls: list[str], rng: np.random.Generator) -> Iterator[tuple[int, dict]]:
        """Samples, each with how often the shards were read before."""
        for turn in itertools.count():
            found = 0
            for sample in self._shuffled((sample for url in urls for sample in self._read(url)), rng):
                found += 1
                yield turn, sample
            if not found:
                raise SourceError(f'none of {len(urls)} shards gives an image, e.g. {urls[0]}; the log has the reasons')

    def _read(self, url: str) -> Iterator[dict]:
        from webdataset.tariterators import tarfile_samples

        try:
            for sample in tarfile_samples(iter([dict(url=url)])):
                if in_hidden(sample['__key__'].lstrip('/')):
                    continue
                for ending, value in sample.items():
                    if isinstance(value, bytes) and f'.{ending}'.endswith(SUFFIXES):
                        yield dict(img_bytes=value, name=f'{sample["__key__"]}.{ending}')
        except Exception as error:  # curl, the shell, tarfile and webdataset each have their own
            print_log(f'{url} breaks off: {type(error).__name__}: {error}', logger='current')

    def _shuffled(self, samples: Iterator[dict], rng: np.random.Generator) -> Iterator[dict]:
        """All samples once. Two go into the buffer for one that comes out until it is full, so that the first batch
        does not wait for it; at the end it empties."""
        held: list[dict] = []
        for count, sample in enumerate(samples):
            held.append(sample)
            if len(held) > self.buffer or count % 2 == 0 and len(held) > 1:
                yield self._take(held, rng)
        while held:
            yield self._take(held, rng)

    @staticmethod
    def _take(held: list[dict], rng: np.random.Generator) -> dict:
        at = int(rng.integers(len(held)))
        held[at], held[-1] = held[-1], held[at]
        return held.pop()
