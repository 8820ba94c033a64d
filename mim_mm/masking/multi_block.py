"""Multi-block masking: several target blocks and what a large context block leaves of the rest (Assran et al., I-JEPA,
CVPR 2023, section 3 and appendix A.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mim_mm.clock import mask_seed
from mim_mm.masking.base import Masker, PartCount
from mim_mm.masking.grid import grid_shape
from mim_mm.masking.plan import MaskPlan, draw_on_host, to_device
from mim_mm.registry import MODELS

# Places that are tried for the context before its image gets other targets.
TRIES = 20
# How often an image gets other targets before it is given up; of 51,200 images of 14 x 14 patches none needed it once.
REDRAWS = 100
# Sizes are drawn as by a rank of this number, which no process has: all processes draw the same.
EVERY_RANK = 2**20 - 1
# Images of a batch that :meth:`MultiBlockMasking.counts` supposes.
TYPICAL_BATCH = 64


@MODELS.register_module()
class MultiBlockMasking(Masker):
    """Predict K target blocks of an image, each from the same context: a large block without the targets.

    The plan has K parts that all see the context; part k hides target k, and everything else is thrown away. Targets
    may overlap each other. One size of the targets and one of the context hold for the whole batch, also on other
    ranks, which draw it from the clock; places are drawn for each image. A size comes from one uniform number u, which
    sets scale and aspect alike:

        area = int(N * (low + u (high - low))), height = round(sqrt(area * aspect)), width = round(sqrt(area / aspect))

    and a side as long as the grid is one patch shorter. A corner is uniform over ``side of grid - side of block``
    places, one fewer than there are, so that the last row and column are in no block. All as released.

    Contexts are cut to the shortest of the batch, the last patches of the longer ones being thrown away; so how much of
    an image is seen depends on the batch: of 16 x 16 patches 111, 82, 74, 70 in batches of 1, 16, 64, 128.

    A context of ``min_keep`` patches or fewer is drawn again, 20 times, and then with other targets. (The release lets
    the context overlap the last target instead, which no plan can say.)

    Args:
        num_targets: K.
        target_scale: share of the patches in a target, (low, high).
        target_aspect: height / width of a target, (low, high).
        context_scale: as ``target_scale``; the context is square.
        min_keep: a context has more patches than this, and so must targets, which are predicted whole.
        grid: rows and columns; None takes the square.
    """

    fixed_overlap = False

    def __init__(
        self,
        num_targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        min_keep: int = 10,
        grid: tuple[int, int] | None = None,
    ) -> None:
        if num_targets < 1 or min_keep < 0:
            raise ValueError(f'num_targets={num_targets}, min_keep={min_keep}: at least 1 and 0; 4 and 10 are released')
        for name, (low, high) in dict(target_scale=target_scale, context_scale=context_scale).items():
            if not 0 < low <= high <= 1:
                raise ValueError(f'{name} is {(low, high)}: two shares of the patches, 0 < low <= high <= 1')
        if not 0 < target_aspect[0] <= target_aspect[1]:
            raise ValueError(f'target_aspect is {tuple(target_aspect)}: two ratios, 0 < low <= high, e.g. (0.75, 1.5)')
        self.num_targets, self.min_keep, self.grid = num_targets, min_keep, grid
        self.target_scale, self.target_aspect = tuple(target_scale), tuple(target_aspect)
        self.context_scale = tuple(context_scale)

    @property
    def published(self) -> str:
        return f'multi-block K={self.num_targets}'

    def counts(self, num_patches: int) -> list[PartCount]:
        """Of a batch of 64 images with blocks of the middle size."""
        draw = torch.Generator().manual_seed(0)
        plan = self._plan(torch.zeros(TYPICAL_BATCH, num_patches, 1), draw, (0.5, 0.5))
        left = num_patches - plan.num_thrown
        return [PartCount(visible, left - visible, plan.num_thrown) for visible in plan.num_visible]

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; returns a plan of ``num_targets`` parts.

        Blocks are placed on the CPU, from numbers drawn there (:func:`mim_mm.masking.plan.draw_on_host`).

        Raises:
            ValueError: a target has ``min_keep`` patches or fewer, or the context cannot have more.
        """
        if self.clock is None:
            target, context = draw_on_host((2,), tokens, generator).tolist()
        else:
            clock = self.clock
            shared = torch.Generator().manual_seed(mask_seed(clock.seed, clock.step, EVERY_RANK) % 2**63)
            target, context = torch.rand(2, generator=shared).tolist()
        return self._plan(tokens, generator, (target, context))

    def _plan(self, tokens: Tensor, generator: torch.Generator | None, drawn: tuple[float, float]) -> MaskPlan:
        """The plan for blocks whose sizes follow from two numbers in [0, 1), of targets and context."""
        batch, patches = tokens.shape[:2]
        shape = grid_shape(patches, self.grid)
        target = block_size(shape, drawn[0], self.target_scale, self.target_aspect)
        context = block_size(shape, drawn[1], self.context_scale, (1.0, 1.0))
        if min(math.prod(target), math.prod(context)) <= self.min_keep:
            raise ValueError(
                f'blocks of {target} and {context} of {shape[0]} x {shape[1]} patches: targets and context must have '
                f'more than min_keep={self.min_keep} patches; lower min_keep, or use more patches or larger scales'
            )
        targets = torch.zeros(batch, self.num_targets, patches, dtype=torch.bool)
        seen = torch.zeros(batch, patches, dtype=torch.bool)
        left = torch.arange(batch)
        for _ in range(REDRAWS):
            targets[left] = self._blocks((len(left), self.num_targets), shape, target, tokens, generator)
            free = ~targets[left].any(dim=1)
            for _ in range(TRIES):
                found = self._blocks((len(left),), shape, context, tokens, generator) & free
                good = found.sum(dim=1) > self.min_keep
                seen[left[good]] = found[good]
                left, free = left[~good], free[~good]
                if not len(left):
                    return self._order(seen, targets, tokens.device)
        raise ValueError(
            f'{self.num_targets} targets of {target} leave no context of more than min_keep={self.min_keep} of '
            f'{shape[0]} x {shape[1]} patches: fewer or smaller targets, or a smaller min_keep'
        )

    def _order(self, seen: Tensor, targets: Tensor, device: torch.device) -> MaskPlan:
        """The plan of contexts bool (B, N) and targets bool (B, K, N), each of these with as many patches."""
        kept = int(seen.sum(dim=1).min())
        seen = seen & (seen.cumsum(dim=1) <= kept)
        # Three groups of patches, each in the order of the image.
        group = torch.where(seen[:, None], 0, torch.where(targets, 1, 2))
        order, length = group.argsort(dim=-1, stable=True), int(targets[0, 0].sum())
        thrown = seen.shape[1] - kept - length
        return MaskPlan(to_device(order, device), (kept,) * self.num_targets, num_thrown=thrown, same_visible=True)

    def _blocks(
        self,
        count: tuple[int, ...],
        shape: tuple[int, int],
        size: tuple[int, int],
        tokens: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Bool (*count, N) on the CPU, True where a block of that size lies."""
        numbers = draw_on_host((2, *count), tokens, generator).double()
        inside = []
        for number, side, length in zip(numbers, shape, size):
            first = (number * (side - length)).floor().clamp(max=side - length - 1)[..., None]
            places = torch.arange(side)
            inside.append((places >= first) & (places < first + length))
        return (inside[0][..., :, None] & inside[1][..., None, :]).flatten(-2)


def block_size(
    shape: tuple[int, int], number: float, scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int]:
    """Height and width in patches of a block on a grid of ``shape``, from one number in [0, 1)."""
    area = int(shape[0] * shape[1] * (scale[0] + number * (scale[1] - scale[0])))
    ratio = aspect[0] + number * (aspect[1] - aspect[0])
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return min(height, shape[0] - 1), min(width, shape[1] - 1)
