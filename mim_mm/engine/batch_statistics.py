"""Methods that look at the batch as a whole, and what accumulated gradients would make of them."""

from __future__ import annotations


class AccumulationRefused(ValueError):
    """A method that accumulation would change was asked to accumulate."""


def check_accumulation(method: type, steps: int, allowed: bool) -> str | None:
    """Refuse accumulation for a method that compares the images of a batch or keeps statistics of it.

    A micro-batch of such a method sees its own images only: fewer negatives, centres of fewer images. Methods say so in
    ``batch_statistics`` (:class:`mim_mm.algorithms.base.Pretraining`), '' for none.

    Args:
        method: class of the model.
        steps: micro-batches in an optimizer step, ``accumulative_counts``.
        allowed: ``allow_accumulation`` of the config.

    Returns:
        What to say where it was allowed; None where nothing changes.

    Raises:
        AccumulationRefused: with what changes, and how to allow it.
    """
    what = getattr(method, 'batch_statistics', '')
    if steps < 2 or not what:
        return None
    name = method.__name__
    changes = f'{name} takes {what}, and {steps} accumulated micro-batches each see their own images only'
    if allowed:
        return f'allow_accumulation=True: {changes}. This is another method than {name}; do not report it as {name}'
    raise AccumulationRefused(
        f'optim_wrapper.accumulative_counts={steps}: {changes}, which is another method: set it to 1 and use a larger '
        'batch_size or more GPUs; or set allow_accumulation=True (--cfg-options) to train that other method'
    )
