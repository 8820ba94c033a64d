"""What a masking strategy is, and all that others may ask of one."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from mim_mm.clock import Clock
from mim_mm.masking.plan import MaskPlan


class PartCount(NamedTuple):
    """Patches of one part of an image: N together."""

    visible: int
    hidden: int
    thrown: int = 0


class Masker:
    """Base of the masking strategies. A new one has ``__call__``; what else it changes it says in the attributes.

    Whoever needs to know something of a strategy asks here and never goes by the name of its class. Any callable of the
    same signature serves as a masker too: :func:`needs_attention`, :func:`fixed_count`, :func:`fixed_overlap`,
    :func:`counts`, :func:`published` and :func:`set_clock` take it as it is.

    Attributes:
        needs_attention: whether the next call wants ``attention``; computing it costs a pass through the encoder.
        fixed_count: all images of a step hide the same number of patches, on every rank and in every micro-batch.
        fixed_overlap: so do all pairs of parts, together.
        clock: where training stands, or None when nobody said so.
    """

    needs_attention: bool = False
    fixed_count: bool = False
    fixed_overlap: bool = True
    clock: Clock | None = None

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """The plan for tokens (B, N, D), drawn from the generator alone; with ``needs_attention`` it gets a keyword
        ``attention`` (B, N), the class token's."""
        raise NotImplementedError(f'{type(self).__name__} is no masker yet: define __call__(tokens, generator=None)')

    def counts(self, num_patches: int) -> list[PartCount]:
        """(visible, hidden, thrown) of each of the K parts of an image of N patches.

        Where they differ between images, the middle: a ratio drawn from a range counts by its mean, one that follows
        the image by its base, a gate by the images it lets through. After the warm-up, if there is one.
        """
        return drawn_counts(self, num_patches)

    @property
    def published(self) -> str:
        """The strategy in the words of the published table, e.g. ``random r=3/4`` or ``parallel K=4``."""
        return type(self).__name__

    def set_clock(self, clock: Clock) -> None:
        """Say where training stands."""
        self.clock = clock


def ratio_text(ratio: float | tuple[float, float]) -> str:
    """A ratio as the published table writes it: ``r=3/4``, ``r=0.1 to 0.5``."""
    if isinstance(ratio, tuple) and ratio[0] != ratio[1]:
        return f'r={ratio[0]:g} to {ratio[1]:g}'
    return f'r={Fraction(ratio[0] if isinstance(ratio, tuple) else ratio).limit_denominator(20)}'


def drawn_counts(masker: object, num_patches: int) -> list[PartCount]:
    """The counts of one plan drawn for blank tokens: those of every plan where they are fixed."""
    tokens = torch.zeros(1, num_patches, 1)
    options = dict(attention=tokens[..., 0]) if needs_attention(masker) else {}
    plan = masker(tokens, torch.Generator().manual_seed(0), **options)
    left = num_patches - plan.num_thrown
    return [PartCount(visible, left - visible, plan.num_thrown) for visible in plan.lengths[0].tolist() if visible]


# What is asked of any masker, one that somebody wrote without the base class included.


def needs_attention(masker: object) -> bool:
    return getattr(masker, 'needs_attention', False)


def fixed_count(masker: object) -> bool:
    """A masker that does not say is taken to vary."""
    return getattr(masker, 'fixed_count', False)


def fixed_overlap(masker: object) -> bool:
    return getattr(masker, 'fixed_overlap', True)


def counts(masker: object, num_patches: int) -> list[PartCount]:
    ask = getattr(masker, 'counts', None)
    return ask(num_patches) if ask else drawn_counts(masker, num_patches)


def published(masker: object) -> str:
    return getattr(masker, 'published', None) or type(masker).__name__


def set_grid(masker: object, grid: tuple[int, int]) -> None:
    """Say what grid (rows, columns) the patches lie on, to those that would take it to be square (``grid`` is None).

    36 patches may be 6 x 6 or 4 x 9: nothing else would notice.
    """
    while masker is not None and not hasattr(masker, 'grid'):
        masker = getattr(masker, 'inner', None)  # one around another, as DrawnRatio is
    if masker is not None and masker.grid is None:
        masker.grid = grid


def set_clock(masker: object, clock: Clock) -> None:
    """One without ``set_clock`` need not know; one with ``set_epoch``, as maskers had it before, is told that."""
    if hasattr(masker, 'set_clock'):
        masker.set_clock(clock)
    elif hasattr(masker, 'set_epoch') and clock.epoch is not None:
        masker.set_epoch(clock.epoch)


class Around(Masker):
    """A masker that asks another one, ``inner``, and passes on what that wants to know and says of itself."""

    inner: object

    @property
    def needs_attention(self) -> bool:
        return needs_attention(self.inner)

    @property
    def logit_scale(self) -> float | None:
        return getattr(self.inner, 'logit_scale', None)

    @property
    def random_epochs(self) -> float:
        """Those of the masker."""
        return getattr(self.inner, 'random_epochs', 0)

    def set_clock(self, clock: Clock) -> None:
        super().set_clock(clock)
        set_clock(self.inner, clock)
