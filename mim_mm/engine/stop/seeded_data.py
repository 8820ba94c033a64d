"""Training data whose augmentation is a function of (seed, epoch, image), and that begins at any batch.

The index that the sampler gives carries its epoch to whoever reads the sample: the process itself or one of any number
of workers, that live for one epoch or for all. There the generators of Python, numpy and torch are set before the
sample is read, so that neither the order of reading nor what was read before matters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, IterableDataset

from mim_mm.compat.internals import infinite_indices, is_endless
from mim_mm.seeds import EPOCH, SAMPLE, mix, seed_everything, seed_generators


class Place(int):
    """The index of a sample that knows the epoch it is for, and which of its occurrences in the epoch it is."""

    def __new__(cls, index: int, epoch: int, copy: int = 0):
        place = super().__new__(cls, index)
        place.epoch, place.copy = epoch, copy
        return place

    def __reduce__(self):
        return Place, (int(self), self.epoch, self.copy)


class _Wrapped:
    """Everything but what ``OWN`` names is the wrapped object's, to be read and to be set."""

    OWN: tuple[str, ...] = ()

    def __init__(self, wrapped) -> None:
        self.wrapped = wrapped

    def __setattr__(self, name: str, value) -> None:
        if name == 'wrapped' or name in self.OWN:
            object.__setattr__(self, name, value)
        else:  # hooks change a pipeline in the middle of a training
            setattr(self.wrapped, name, value)

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getattr__(self, name: str):
        if name in ('wrapped', '__getitems__'):  # while being unpickled; torch would read whole batches by the other
            raise AttributeError(name)
        return getattr(self.wrapped, name)


def bare(part):
    """A data set, sampler or batch sampler below what this module put around it."""
    return bare(part.wrapped) if isinstance(part, _Wrapped) else part


class PlacedSampler(_Wrapped):
    """A sampler whose indices are :class:`Place`; others than integers stay as they are.

    Epoch and occurrence follow from the place in the order of all ranks: an endless order has passes, in repeated
    augmentation the copies of an image lie side by side. Of a sampler that is not known, which may give an image twice,
    occurrences are counted on each rank.

    Args:
        sampler: mmengine's, mmpretrain's, torch's, ...
        samples: in the data set.
    """

    OWN = ('samples', 'now', 'begin')

    def __init__(self, sampler, samples: int) -> None:
        super().__init__(sampler)
        self.samples, self.now, self.begin = samples, 0, 0

    def __iter__(self) -> Iterator:
        sampler, epoch = self.wrapped, self.now
        rank, world = get_dist_info()
        if isinstance(sampler, InfiniteSampler):
            for at, index in enumerate(infinite_indices(sampler, self.begin), self.begin):
                yield Place(index, (at * sampler.world_size + sampler.rank) // sampler.size)
        elif hasattr(sampler, 'num_repeats') and hasattr(sampler, 'rank'):
            for at, index in enumerate(sampler):
                yield Place(index, epoch, (at * sampler.world_size + sampler.rank) % sampler.num_repeats)
        else:
            seen = np.zeros(self.samples, np.int32)
            whole = type(sampler).__name__ in ('DefaultSampler', 'DistributedSampler')  # every image once on one rank
            for index in sampler:
                if not isinstance(index, (int, np.integer)):
                    yield index
                    continue
                yield Place(index, epoch, int(seen[index]) * world + (0 if whole else rank))
                seen[index] += 1


class SeededDataset(_Wrapped):
    """A map-style data set that sets the generators before it reads a :class:`Place`; another index is read as ever."""

    OWN = ('run_seed',)

    def __init__(self, dataset, seed: int) -> None:
        super().__init__(dataset)
        self.run_seed = seed

    @property
    def dataset(self):
        """The data set, under the name that mmengine's own wrappers have for it."""
        return self.wrapped

    def __getitem__(self, index):
        if isinstance(index, Place):
            seed_generators(mix(self.run_seed, SAMPLE, index.epoch, int(index), index.copy))
            index = int(index)
        return self.wrapped[index]


class SkipFirst(_Wrapped):
    """A batch sampler whose next iteration leaves out ``count`` batches; later ones are whole.

    What a sampler draws from the generators of the process follows from ``order_seed``.
    """

    OWN = ('count', 'order_seed')

    def __init__(self, batches):
        super().__init__(batches)
        self.count, self.order_seed = 0, 0

    def __iter__(self):
        # Runs with the first batch: a loader with workers makes two iterators and uses the second, and with workers
        # that stay it draws a seed of its own in the first epoch only.
        seed_everything(self.order_seed)
        count, self.count = self.count, 0
        yield from itertools.islice(iter(self.wrapped), count, None)


class SeededLoader:
    """Makes a ``DataLoader`` one of this module, in place, and says where its next iteration begins.

    An iterable data set is asked itself: ``set_epoch(epoch)`` and ``skip(batches)`` where it has them, as
    :class:`mim_mm.data.streaming.StreamedImages`; of another one nothing can be said.

    Args:
        loader: for training; its data set, sampler and batch sampler are wrapped.
        seed: of the run, the same on all ranks.
    """

    def __init__(self, loader, seed: int) -> None:
        self.loader, self.seed, self.placed, self.batches = loader, seed, None, None
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            return
        # DataLoader refuses these assignments although they work; iterators that exist already are not concerned.
        own, batches = vars(loader), loader.batch_sampler
        if hasattr(batches, 'sampler'):
            self.placed = PlacedSampler(batches.sampler, len(loader.dataset))
            if own.get('sampler') is batches.sampler:
                own['sampler'] = self.placed
            batches.sampler = self.placed
        self.batches = own['batch_sampler'] = SkipFirst(batches)
        own['dataset'] = SeededDataset(loader.dataset, seed)

    @property
    def endless(self) -> bool:
        """Whether the order has no end, so that epochs are none of the loader's."""
        return self.placed is not None and is_endless(self.placed.wrapped)

    def begin(self, epoch: int, seen: int = 0) -> None:
        """The next iteration is that of ``epoch`` (from 0) and leaves out the first ``seen`` batches, unread."""
        number = mix(self.seed, EPOCH, epoch)
        seed_everything(number)
        if self.batches is None:
            dataset = self.loader.dataset
            for name, value in (('set_epoch', epoch), ('skip', seen)):
                getattr(dataset, name, lambda value: None)(value)
            return
        if self.placed is not None:
            self.placed.now, self.placed.begin = epoch, 0
            getattr(self.placed.wrapped, 'set_epoch', lambda epoch: None)(epoch)
            if isinstance(self.placed.wrapped, InfiniteSampler) and type(self.batches.wrapped) is BatchSampler:
                # What is left out need not even be drawn one by one.
                self.placed.begin, seen = seen * self.batches.batch_size, 0
        self.batches.count, self.batches.order_seed = seen, number


class Passes:
    """The batches of an iteration-based loop, without end, from any iteration on; in place of mmengine's iterator.

    mmengine reads all batches before that iteration again where workers load them.

    Args:
        data: the loader.
        iteration: finished ones.
        announced: how many ``next`` mmengine 0.10.7 will call to get there; onedl-mmengine calls :meth:`skip_iter`.
    """

    def __init__(self, data: SeededLoader, iteration: int, announced: int) -> None:
        self.data, self.announced, self.iterator = data, announced, None
        length = None if data.endless else len(data.loader)
        self.epoch, self.seen = divmod(iteration, length) if length else (0, iteration)

    def __iter__(self):
        return self

    def skip_iter(self, count: int) -> None:
        self.announced = 0

    def __next__(self):
        if self.announced > 0:
            self.announced -= 1
            return None
        if self.iterator is None:
            self.data.begin(self.epoch, self.seen)
            self.iterator = iter(self.data.loader)
        try:
            return next(self.iterator)
        except StopIteration:
            self.epoch += 1
            self.data.begin(self.epoch)
            self.iterator = iter(self.data.loader)
            return next(self.iterator)


def set_seeds_again(loader, before: int, now: int, note: Callable[[str], None]) -> None:
    """Where a resumed run took the seed of its checkpoint, give it to the sampler, which was built before."""
    for holder in (loader, getattr(loader, 'batch_sampler', None)):
        sampler = getattr(holder, 'sampler', None)
        if before != now and getattr(sampler, 'seed', None) == before:
            sampler.seed = now
            note(f'the order of the data follows the seed of the checkpoint, {now}')
