"""Private names of mmengine that the package reads; docs/openmmlab.md lists whatever else there is."""

import itertools


def parse_option(text):
    """The value of ``key=text`` on a command line as mmengine's ``DictAction`` reads it."""
    from mmengine.config import DictAction

    return DictAction._parse_iterable(text)


def built_loop(runner, part):
    """The ``part`` ('train', 'val' or 'test') loop of a Runner, None before it is built.

    Asking ``runner.train_loop`` or ``runner.iter`` would build it, which a run that only tests must not do.
    """
    from mmengine.runner import BaseLoop

    loop = getattr(runner, f'_{part}_loop', None)
    return loop if isinstance(loop, BaseLoop) else None


def resumes(runner):
    """Whether a Runner was told to go on from a checkpoint."""
    return bool(runner._resume)


def draws_by_rank(runner):
    """Whether the ranks of a run have seeds of their own (``randomness.diff_rank_seed``)."""
    return bool((getattr(runner, '_randomness_cfg', None) or {}).get('diff_rank_seed'))


def is_endless(sampler):
    """Whether the order of a sampler has no end: mmengine's InfiniteSampler and mmdet's of several sources."""
    return hasattr(sampler, '_indices_of_rank')


def infinite_indices(sampler, begin):
    """The order of an InfiniteSampler on its rank from index ``begin`` on, whatever it has given already."""
    return itertools.islice(sampler._indices_of_rank(), begin, None)
