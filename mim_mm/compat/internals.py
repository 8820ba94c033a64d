"""Private names of mmengine that the package reads; docs/openmmlab.md lists whatever else there is."""


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


def loss_scale(wrapper):
    """The factor of the loss in an ``AmpOptimWrapper``: a tensor, where the public way would wait for the device."""
    return wrapper.loss_scaler._get_scale_async()


def take_averages(hook, checkpoint):
    """Give an ``EMAHook`` the averages of a checkpoint of its own run, and the weights back their place in it."""
    hook._swap_ema_state_dict(checkpoint)
    hook.ema_model.load_state_dict(checkpoint['ema_state_dict'])
