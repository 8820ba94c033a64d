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


def own_store():
    """The key-value store that the processes of a job met at, by a connection of its own where torch can make one.

    On the other connection a wait of the main thread would hold back everybody else.
    """
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store()
    try:
        return store.clone()
    except (AttributeError, RuntimeError):  # an older torch, a kind of store that cannot
        return store


def own_folder(vis_backend):
    """The folder that a visualization backend writes to."""
    return vis_backend._save_dir


def line_of(thread):
    """``file:line function`` of the innermost line outside of torch that a thread, named by its ident, is in."""
    import os
    import sys

    frame = sys._current_frames().get(thread)
    while frame is not None and f'{os.sep}torch{os.sep}' in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return ''
    return f'{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}'


def draws_by_rank(runner):
    """Whether the ranks of a run have seeds of their own (``randomness.diff_rank_seed``)."""
    return bool((getattr(runner, '_randomness_cfg', None) or {}).get('diff_rank_seed'))


def is_endless(sampler):
    """Whether the order of a sampler has no end: mmengine's InfiniteSampler and mmdet's of several sources."""
    return hasattr(sampler, '_indices_of_rank')


def infinite_indices(sampler, begin):
    """The order of an InfiniteSampler on its rank from index ``begin`` on, whatever it has given already."""
    return itertools.islice(sampler._indices_of_rank(), begin, None)


def loss_scale(wrapper):
    """The factor of the loss in an ``AmpOptimWrapper``: a tensor, where the public way would wait for the device."""
    return wrapper.loss_scaler._get_scale_async()


def take_averages(hook, checkpoint):
    """Give an ``EMAHook`` the averages of a checkpoint of its own run, and the weights back their place in it."""
    hook._swap_ema_state_dict(checkpoint)
    hook.ema_model.load_state_dict(checkpoint['ema_state_dict'])
