"""Where training stands: the one thing that masks, ramps and teachers ask instead of counting steps themselves."""

from __future__ import annotations

from dataclasses import dataclass


def mask_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the masks of one step on one rank: distinct for every (step, rank) below 2**20 ranks."""
    return (seed * 1_000_003 + step) * 2**20 + rank


@dataclass(frozen=True)
class Clock:
    """One moment of training, the same on all ranks. ``ClockHook`` tells it to the model before every step.

    Attributes:
        seed: of the masks; the run's seed unless a hook says otherwise.
        step: iterations before this one. With accumulated gradients a micro-batch is an iteration.
        epoch: whole passes over the training data before this step, also in an iteration-based loop; None where the
            loader has no length.
        share: of the whole training that is done, ``step / max_iters``, in [0, 1).
        epoch_length: iterations of a pass; None where the loader has no length.
        epochs: passes of the whole training; None where the loader has no length.
    """

    seed: int
    step: int
    epoch: int | None
    share: float
    epoch_length: int | None = None
    epochs: float | None = None

    @classmethod
    def at_epoch(cls, epoch: int) -> Clock:
        """A moment outside of training of which only the epoch matters, e.g. to draw the masks after a warm-up."""
        return cls(seed=0, step=0, epoch=epoch, share=0.0)

    def ramp(self, epochs: float) -> float:
        """How far a linear ramp over the first epochs (fractions allowed) has come, step by step: 0 to 1.

        Raises:
            ValueError: the length of an epoch is not known.
        """
        if not self.epoch_length:
            raise ValueError(
                f'a ramp of {epochs} epochs needs the length of an epoch, and the training loader has none: give a '
                'data set with a length, or leave the ramp out'
            )
        return min(1.0, self.step / (epochs * self.epoch_length))
