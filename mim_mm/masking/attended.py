"""Masks driven by the attention of the class token: AM and AMT, and AttMask.

AM / AMT: Gui et al., Good Helper Is around You: Attention-Driven Masked Image Modeling, AAAI 2023, arXiv 2211.15362.
AttMask: Kakogeorgiou et al., What to Hide from Your Students, ECCV 2022, arXiv 2203.12719.

All need ``attention`` (B, N), the class token's row of the last block's attention averaged over heads, which
``mim_mm.encoders.Encoder.cls_attention`` computes; algorithms pass it to maskers whose ``needs_attention`` is true.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from mim_mm.masking.adaptive import RandomWarmUp, check_ratio
from mim_mm.masking.base import Masker, PartCount, ratio_text
from mim_mm.masking.grid import grid_shape
from mim_mm.masking.plan import (
    MaskPlan,
    draw_on_host,
    draw_uniform,
    exact_ratio,
    num_hidden,
    patches_of,
    to_device,
)
from mim_mm.registry import MODELS

# A patch of no attention at all is drawn last, in random order, instead of never.
SMALLEST_WEIGHT = 1e-12
MAX_SAMPLES = 16


def check_attention(attention: Tensor | None, tokens: Tensor, masker: object) -> Tensor:
    """``attention`` as fp32 without gradient.

    Raises:
        ValueError: if it is missing or does not belong to the tokens.
    """
    if attention is None:
        raise ValueError(
            f'{type(masker).__name__} needs attention=(B, N): the algorithm provides it as '
            'mim_mm.encoders.encoder_of(backbone).cls_attention(tokens), for a masker whose needs_attention is true'
        )
    if attention.shape != tokens.shape[:2]:
        raise ValueError(
            f'attention is {tuple(attention.shape)}, tokens {tuple(tokens.shape)}: give one number for every patch, '
            'averaged over heads and without the class token'
        )
    return attention.detach().float()


@MODELS.register_module()
class AttentionMasking(RandomWarmUp):
    """Attention-driven masking (AM) and, with ``throw_ratio``, masking and throwing (AMT); one part an image.

    Patches are drawn one after the other without replacement, with probability proportional to their attention among
    those that remain. The first ``ceil(N * mask_ratio)`` are hidden, the next ``floor(N * (mask_ratio + throw_ratio))``
    less that many thrown away, the rest visible: high attention tends to be hidden, medium thrown, low visible.

    The source draws from maps that it stores for every training image each 40 epochs and crops along with the image
    (:func:`crop_map`, for whoever stores maps). Here the attention is that of the model on the very crop, each step,
    which costs a pass of the whole image through the encoder.

    Args:
        mask_ratio: share of hidden patches; 0.75 (AM), 0.45 (AMT).
        throw_ratio: share of thrown patches; 0 (AM), 0.40 (AMT): 89 hidden, 77 thrown, 30 visible of 196 (the source
            rounds down: 88 and 78).
        random_epochs: epochs of random masks first; 41 in the source, which stores its first maps after epoch 40
            (counted from 0).
        random_ratio: share of hidden patches in those epochs; nothing is thrown.
        as_released: use only the top left 2 x 2 patches of the map, stretched over the image: what the published crop
            makes of 96 % of all crops because it divides pixel offsets by the image size as integers. For comparison
            with published numbers only.
        grid: rows and columns, for ``as_released``; None takes the square.
    """

    fixed_count = True

    def __init__(
        self,
        mask_ratio: float = 0.75,
        throw_ratio: float = 0.0,
        random_epochs: float = 0,
        random_ratio: float = 0.75,
        as_released: bool = False,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(random_epochs)
        if not _is_number(mask_ratio) or not _is_number(throw_ratio):
            raise ValueError(
                f'mask_ratio={mask_ratio!r}, throw_ratio={throw_ratio!r}: this strategy has one number each, e.g. 0.75 '
                'and 0 (AM); a ratio drawn from a range is an option of AttMask and BlockMasking'
            )
        if not 0 < mask_ratio < 1 or not 0 <= throw_ratio < 1 - mask_ratio:
            raise ValueError(
                f'mask_ratio={mask_ratio}, throw_ratio={throw_ratio}: mask_ratio must lie between 0 and 1 and the two '
                'together stay below 1, e.g. 0.75 and 0 (AM) or 0.45 and 0.40 (AMT)'
            )
        if not _is_number(random_ratio) or not 0 < random_ratio < 1:
            raise ValueError(f'random_ratio is {random_ratio}: it must lie between 0 and 1, e.g. 0.75')
        self.mask_ratio, self.throw_ratio, self.random_ratio = mask_ratio, throw_ratio, random_ratio
        self.as_released, self.grid = as_released, grid

    @property
    def needs_attention(self) -> bool:
        """Not during the warm-up, which would waste it."""
        return not self.warming_up

    @property
    def published(self) -> str:
        return 'attention'

    def counts(self, num_patches: int) -> list[PartCount]:
        hidden, thrown = self._counts(num_patches)
        return [PartCount(num_patches - hidden - thrown, hidden, thrown)]

    def __call__(
        self, tokens: Tensor, generator: torch.Generator | None = None, attention: Tensor | None = None
    ) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; ``attention`` (B, N) >= 0; a plan with K = 1."""
        batch, patches = tokens.shape[:2]
        drawn = draw_uniform((batch, patches), tokens, generator)
        if self.warming_up:
            return MaskPlan.from_scores(drawn[:, None], patches - num_hidden(patches, self.random_ratio))
        weights = check_attention(attention, tokens, self)
        if self.as_released:
            rows, columns = grid_shape(patches, self.grid)
            weights = _resized(weights.view(batch, rows, columns)[:, :2, :2], (rows, columns)).flatten(1)
        # The k-th smallest of exponential times with rates w is the k-th draw without replacement in proportion to w.
        share = weights / weights.sum(dim=1, keepdim=True).clamp(min=SMALLEST_WEIGHT)
        times = -torch.log1p(-drawn) / share.clamp(min=SMALLEST_WEIGHT)
        ranks = times.argsort(dim=1)
        hidden, thrown = self._counts(patches)
        order = torch.cat([ranks[:, hidden + thrown :], ranks[:, : hidden + thrown]], dim=1)[:, None]
        return MaskPlan(order, (patches - hidden - thrown,), num_thrown=thrown)

    def _counts(self, patches: int) -> tuple[int, int]:
        """How many patches are hidden and thrown; hidden by the rule of the project, both together rounded down."""
        hidden = num_hidden(patches, self.mask_ratio)
        if not self.throw_ratio:
            return hidden, 0
        together = min(patches_of(patches, self.mask_ratio, self.throw_ratio, down=True), patches - 1)
        return hidden, max(0, together - hidden)


@MODELS.register_module()
class AttMask(Masker):
    """Hide what the class token attends to most (high), least (low), or most but for some hints; one part an image.

    Args:
        variant: 'high', 'low' or 'hint'. 'hint' hides as 'high' and then shows ``int(N * show_max * r')`` patches drawn
            from the ``int(N * show_max)`` most attended ones, r' being a second draw of the ratio.
        ratio: share of hidden patches, or (low, high) of a uniform draw, made once a call for the whole batch. (0.1,
            0.5) in the source, for iBOT; methods that drop tokens want about 0.75.
        masking_prob: probability that an image is masked at all. 0.5 in the source, where the other half serves iBOT's
            loss on class tokens; reconstruction has nothing to learn from an image it sees whole, hence 1 here. Below 1
            the plan is ragged, and at least one image of the batch is masked.
        show_max: share of the most attended patches that hints come from; 0.1 in the source.
        round_down: hide ``int(N * ratio)`` patches as the source does, and not ``ceil(N * ratio)`` as all else here.
        hide_prob: probability that one of these patches is hidden, each drawn on its own; below 1 they are candidates,
            as MST has it with 'low', and the plan is ragged. Not with 'hint', which shows some in a way of its own.
    """

    needs_attention = True

    def __init__(
        self,
        variant: str = 'high',
        ratio: float | tuple[float, float] = (0.1, 0.5),
        masking_prob: float = 1.0,
        show_max: float = 0.1,
        round_down: bool = False,
        hide_prob: float = 1.0,
    ) -> None:
        if ratio is None or hide_prob is None:
            raise ValueError(
                f'ratio={ratio}, hide_prob={hide_prob}: state both, shares of your own choice; those of MST are not '
                'published'
            )
        if not 0 < hide_prob <= 1 or (variant == 'hint' and hide_prob < 1):
            raise ValueError(f"hide_prob={hide_prob} must lie in (0, 1], and be 1 with variant='hint'")
        if variant not in ('high', 'low', 'hint'):
            raise ValueError(f"variant is '{variant}': use 'high', 'low' or 'hint'")
        low, high = check_ratio(ratio)
        if not 0 < masking_prob <= 1 or not 0 < show_max < 1:
            raise ValueError(f'masking_prob={masking_prob} must lie in (0, 1], show_max={show_max} in (0, 1)')
        self.variant, self.ratio = variant, (low, high)
        self.masking_prob, self.show_max, self.round_down = masking_prob, show_max, round_down
        self.hide_prob = hide_prob

    @property
    def fixed_count(self) -> bool:
        return self.ratio[0] == self.ratio[1] and self.masking_prob == self.hide_prob == 1

    @property
    def published(self) -> str:
        return f'att mask {ratio_text(self.ratio)}'

    def counts(self, num_patches: int) -> list[PartCount]:
        ratio = sum(map(exact_ratio, self.ratio)) / 2
        hidden = self._hidden(num_patches, ratio)
        if self.variant == 'hint':
            hidden -= self._hints(num_patches, hidden, ratio)[1]
        hidden = max(1, round(hidden * self.hide_prob))
        return [PartCount(num_patches - hidden, hidden)]

    def __call__(
        self, tokens: Tensor, generator: torch.Generator | None = None, attention: Tensor | None = None
    ) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; ``attention`` (B, N); a plan with K = 1."""
        batch, patches = tokens.shape[:2]
        attention = check_attention(attention, tokens, self)
        hidden = self._hidden(patches, self._draw_ratio(tokens, generator))
        # Visible first: the patches to hide last.
        order = attention.argsort(dim=1, descending=self.variant == 'low')
        if self.variant == 'hint':
            pool, shown = self._hints(patches, hidden, self._draw_ratio(tokens, generator))
            mixed = draw_uniform((batch, pool), tokens, generator).argsort(dim=1)
            top = order[:, patches - pool :].gather(1, mixed)
            order = torch.cat([top[:, :shown], order[:, : patches - pool], top[:, shown:]], dim=1)
            hidden -= shown
        if self.hide_prob < 1:
            order, hidden = self._drawn(order, hidden, tokens, generator)
        elif self.masking_prob == 1:
            return MaskPlan(order[:, None], (patches - hidden,))
        gate = draw_on_host((batch,), tokens, generator)
        masked = (gate < self.masking_prob) | (gate == gate.min())
        return MaskPlan.from_lengths(order[:, None], torch.where(masked, patches - hidden, patches))

    def _drawn(
        self, order: Tensor, candidates: int, tokens: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """``order`` (B, N) with those of its last ``candidates`` patches at the end that are hidden, and how many of
        each image those are, long (B,) on the CPU."""
        drawn = draw_on_host((len(order), candidates), tokens, generator)  # lengths are known to the host
        taken = (drawn < self.hide_prob) | (drawn == drawn.min())  # at least one of the batch
        shown, last = order[:, : order.shape[1] - candidates], order[:, order.shape[1] - candidates :]
        last = last.gather(1, to_device(taken.long().argsort(dim=1, stable=True), order.device))
        return torch.cat([shown, last], dim=1), taken.sum(dim=1)

    def _hints(self, patches: int, hidden: int, ratio: float | Fraction) -> tuple[int, int]:
        """How many of the most attended patches hints come from, and how many of them are shown."""
        share = exact_ratio(self.show_max)
        pool = min(patches_of(patches, share, down=True), hidden)
        return pool, min(patches_of(patches, share * exact_ratio(ratio), down=True), pool, hidden - 1)

    def _hidden(self, patches: int, ratio: float | Fraction) -> int:
        hidden = num_hidden(patches, ratio)
        return max(1, patches_of(patches, ratio, down=True)) if self.round_down else hidden

    def _draw_ratio(self, tokens: Tensor, generator: torch.Generator | None) -> float:
        low, high = self.ratio
        return low if low == high else low + (high - low) * draw_on_host((1,), tokens, generator).item()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _resized(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps (B, H, W) stretched to pixels, bilinear, and averaged over each patch: (B, rows, columns)."""
    size = [side * MAX_SAMPLES for side in grid]
    pixels = F.interpolate(maps[:, None], size=size, mode='bilinear', align_corners=False)
    return F.avg_pool2d(pixels, MAX_SAMPLES)[:, 0]


def crop_map(
    maps: Tensor,
    boxes: Tensor,
    sizes: Tensor,
    flip: Tensor | None = None,
    grid: tuple[int, int] | None = None,
    as_released: bool = False,
) -> Tensor:
    """The part of a stored attention map that a random crop of its image shows, on the patches of the crop.

    The crop (top, left, height, width) of an image of H x W pixels shows rows ``h * top / H`` to ``h * (top + height) /
    H`` of a map of h rows, and columns alike; that window is resampled bilinearly (16 points along a side of a patch,
    averaged) and mirrored where the crop was.

    Args:
        maps: (B, h, w), attention over the whole image.
        boxes: (B, 4) crops as top, left, height, width in pixels (torchvision's order).
        sizes: (B, 2) height and width of the images in pixels.
        flip: bool (B,), True where the crop was mirrored left to right.
        grid: rows and columns of patches of the crop; None takes those of the map.
        as_released: the window of the published code instead, rows ``top // H`` to ``(top + height) // H + 2``: integer
            division leaves the top left 2 x 2 cells, or 3 where a crop reaches the far border.

    Returns:
        (B, rows, columns), fp32.
    """
    height, width = maps.shape[1:]
    grid = grid or (height, width)
    boxes, sizes = boxes.double().cpu(), sizes.double().cpu()
    if boxes.shape != (len(maps), 4) or sizes.shape != (len(maps), 2):
        raise ValueError(f'boxes is {tuple(boxes.shape)}, sizes {tuple(sizes.shape)}: B maps need (B, 4) and (B, 2)')
    start, stop = boxes[:, :2] / sizes, (boxes[:, :2] + boxes[:, 2:]) / sizes
    if as_released:
        start, stop = start.floor().long(), stop.floor().long() + 2
        windows = [m[a:b, c:d] for m, (a, c), (b, d) in zip(maps.float(), start.tolist(), stop.tolist())]
        out = torch.cat([_resized(window[None], grid) for window in windows])
    else:
        axes = [
            (torch.arange(cells * MAX_SAMPLES) + 0.5) / (cells * MAX_SAMPLES) * (b - a)[:, None] + a[:, None]
            for cells, a, b in zip(grid, start.unbind(1), stop.unbind(1))
        ]
        rows, columns = (2 * axis.to(maps.device).float() - 1 for axis in axes)
        places = torch.stack(
            [
                columns[:, None, :].expand(-1, rows.shape[1], -1),
                rows[:, :, None].expand(-1, -1, columns.shape[1]),
            ],
            dim=-1,
        )
        sampled = F.grid_sample(maps.float()[:, None], places, padding_mode='border', align_corners=False)
        out = F.avg_pool2d(sampled, MAX_SAMPLES)[:, 0]
    return out if flip is None else torch.where(flip.to(out.device)[:, None, None], out.flip(-1), out)
