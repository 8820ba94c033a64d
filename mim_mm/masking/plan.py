"""MaskPlan: which patches each part of an image sees, as a value that can be drawn, replayed and compared.

B images, K parts, N patches, V visible patches. Indices live in patch space 0..N-1; class tokens are the encoder's
business. True in a mask means hidden.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

# Offsets of a CUDA generator are multiples of it.
PHILOX_STEP = 4


@lru_cache
def exact_ratio(ratio: float | Fraction) -> Fraction:
    """The number that was written: 0.7 for the float next to it, 75/196 and 1 - 1/7 for what they evaluate to.

    The fraction of denominator below a million that a float stands for, if there is one, else its shortest decimal.
    ``N * ratio`` in floats lies now above and now below the whole number that is meant, and ceil makes it one patch.
    """
    if isinstance(ratio, Fraction):
        return ratio
    near = Fraction(ratio).limit_denominator(10**6)
    return near if abs(near - Fraction(ratio)) < Fraction(1, 10**14) else Fraction(repr(float(ratio)))


@torch.compiler.assume_constant_result  # a whole step can be captured as one graph, fractions cannot
def patches_of(num_patches: int, *ratios: float | Fraction, down: bool = False) -> int:
    """``N * (sum of ratios)`` rounded up, or down, without a rounding before."""
    return (math.floor if down else math.ceil)(num_patches * sum(map(exact_ratio, ratios)))


def num_hidden(num_patches: int, ratio: float | Fraction) -> int:
    """The one rounding rule of the project: hide ``ceil(N * ratio)`` patches of the :func:`exact_ratio`, see the rest.

    It equals MAE's ``int(N * (1 - ratio))`` visible patches without its floating-point traps (N=10, ratio=0.9 keeps
    one patch here and none there), and SBAM's ``K = ceil(L * gamma)`` hidden patches.

    Raises:
        ValueError: if the ratio leaves nothing to see or nothing to predict.
    """
    hidden = patches_of(num_patches, ratio)
    if not 0 < hidden < num_patches:
        raise ValueError(
            f'mask ratio {float(ratio)} of {num_patches} patches hides {hidden}: at least one patch must be hidden and '
            f'one visible; use a ratio between {1 / num_patches:.4g} and {1 - 1 / num_patches:.4g}'
        )
    return hidden


@dataclass(frozen=True)
class MaskPlan:
    """K views of each image, every patch being visible, hidden or thrown away in each view.

    What holds for every plan: a line of ``order`` is a permutation of the N patches, ``[visible | hidden | thrown]``.
    Hidden ones are predicted. Thrown ones are nobody's: not encoded, not decoded, not predicted, in no mean; only
    methods that drop tokens can throw any, and only where all parts of all images are equally long.

    Attributes:
        order: long (B, K, N), see above.
        num_visible: how many patches each of the K parts sees. A tuple of Python ints, equal for all images of the
            batch, so that shapes stay static. In a ragged plan the largest number among the images.
        partition: True when the parts were cut from one permutation (parallel masking): then every patch is visible
            in exactly one part, and the hidden groups stand in ``order`` in ascending part number, which lets the
            losses of a uniform plan work on static slices.
        per_image: long (B, K) on the CPU, the visible patches of each part of each image, or None where ``num_visible``
            says it all. 0 means that the image does not have that part: nothing of it is visible or hidden, and what
            stands in ``order`` there is ignored. On the host, so that shapes are known without waiting for the device.
            Made by :meth:`from_lengths`.
        num_thrown: T, how many patches at the end of each line of ``order`` are thrown away.
        same_visible: True when all parts of an image see the same patches in the same order (several targets of one
            context): then one part's encoding is that of all.
    """

    order: Tensor
    num_visible: tuple[int, ...]
    partition: bool = False
    per_image: Tensor | None = None
    num_thrown: int = 0
    same_visible: bool = False

    def __post_init__(self) -> None:
        if self.order.dim() != 3 or self.order.dtype != torch.long:
            raise ValueError(
                f'order must be a long tensor (B, K, N), got {self.order.dtype} of shape {tuple(self.order.shape)}'
            )
        parts, patches = self.order.shape[1:]
        if len(self.num_visible) != parts:
            raise ValueError(f'num_visible has {len(self.num_visible)} entries, order has {parts} parts: give one each')
        if self.per_image is not None:
            _check_per_image(self.per_image, self.order, self.num_visible)
        elif not all(0 < v <= patches for v in self.num_visible):
            raise ValueError(f'num_visible is {self.num_visible}: every part must see between 1 and {patches} patches')
        if self.num_thrown:
            _check_thrown(self, patches)

    @classmethod
    def from_scores(cls, scores: Tensor, num_visible: int) -> MaskPlan:
        """The plan that shows, in each part, the patches of smallest score.

        Args:
            scores: (B, K, N), any real dtype; ascending argsort, as in MAE (``noise`` there).
            num_visible: V, equal for all parts.
        """
        return cls(scores.argsort(dim=-1), (num_visible,) * scores.shape[1])

    @classmethod
    def from_lengths(cls, order: Tensor, lengths: Tensor | Sequence, partition: bool = False) -> MaskPlan:
        """The plan that shows, of each part of each image, the first ``lengths`` patches of ``order``.

        Lengths that are the same for all images give a plan of static shape, any others a ragged one.

        Args:
            order: long (B, K, N), see :class:`MaskPlan`.
            lengths: integers (B, K), or (B,) for the same number in all parts of an image; 0 = the image does not have
                that part. A list or a CPU tensor; a tensor of another device is waited for, once, here.
            partition: see :class:`MaskPlan`.

        Raises:
            ValueError: if a length lies outside 0..N, or an image has no part at all.
        """
        host = torch.as_tensor(lengths).detach().cpu()
        if host.is_floating_point() or host.dtype == torch.bool:
            raise ValueError(f'lengths has dtype {host.dtype}: give whole numbers of patches, e.g. lengths.long()')
        if host.dim() == 1 and order.dim() == 3:
            host = host[:, None].expand(-1, order.shape[1])
        host = host.long().contiguous()
        if host.dim() != 2 or host.shape != order.shape[:2]:
            raise ValueError(
                f'lengths has shape {tuple(host.shape)}, order {tuple(order.shape)}: give (B, K) or (B,) lengths'
            )
        if host.min() > 0 and (host == host[0]).all():
            return cls(order, tuple(host[0].tolist()), partition)
        return cls(order, tuple(host.amax(dim=0).tolist()), partition, host)

    @property
    def num_parts(self) -> int:
        return self.order.shape[1]

    @property
    def num_patches(self) -> int:
        return self.order.shape[2]

    @property
    def ragged(self) -> bool:
        """Whether images differ in their lengths or parts are absent, so that no batch of static shape holds them."""
        return self.per_image is not None

    @property
    def uniform(self) -> bool:
        """Whether all parts of all images see the same number of patches."""
        return not self.ragged and len(set(self.num_visible)) == 1

    @property
    def kept(self) -> Tensor:
        """Long (B, K, N-T), ``order`` without the thrown patches: visible and then hidden ones."""
        return self.order[..., : self.num_patches - self.num_thrown]

    @property
    def hidden(self) -> Tensor:
        """Long (B, K, N-T-V), the hidden patches in the order of ``order``, of a uniform plan."""
        return self.kept[..., self.num_visible[0] :]

    @property
    def visible(self) -> Tensor:
        """Long (B, K, V), the visible patches; parts that see fewer than the longest are filled up with -1."""
        longest = max(self.num_visible)
        visible = self.order[:, :, :longest]
        if self.uniform:
            return visible
        rank = torch.arange(longest, device=self.order.device)
        return visible.masked_fill(rank >= self.lengths[..., None], -1)

    @property
    def lengths(self) -> Tensor:
        """Long (B, K), the number of visible patches, on the device of ``order``; 0 = absent."""
        if self.per_image is not None:
            return to_device(self.per_image, self.order.device)
        if self.uniform:
            return torch.full(self.order.shape[:2], self.num_visible[0], device=self.order.device)
        return host_index(self.num_visible, self.order.device).expand(self.order.shape[:2])

    @property
    def mask(self) -> Tensor:
        """Bool (B, K, N) in patch order, True = hidden; all False in an absent part."""
        lengths = self.lengths[..., None]
        rank = torch.arange(self.num_patches, device=self.order.device)
        hidden = rank >= lengths
        if self.ragged:
            hidden = hidden & (lengths > 0)
        if self.num_thrown:
            hidden = hidden & (rank < self.num_patches - self.num_thrown)
        return torch.zeros_like(self.order, dtype=torch.bool).scatter_(2, self.order, hidden.expand_as(self.order))

    @property
    def thrown(self) -> Tensor:
        """Bool (B, K, N) in patch order, True = thrown away."""
        gone = self.order[..., self.num_patches - self.num_thrown :]
        return torch.zeros_like(self.order, dtype=torch.bool).scatter_(2, gone, True)

    def hidden_per_image(self) -> Tensor:
        """Long (B,) on the CPU, how many (part, patch) pairs of each image are hidden."""
        batch, _, patches = self.order.shape
        if self.per_image is None:
            kept = patches - self.num_thrown
            return torch.tensor(sum(kept - visible for visible in self.num_visible)).expand(batch)
        return (patches - self.per_image).masked_fill(self.per_image == 0, 0).sum(dim=1)

    def rows(self) -> tuple[list[int], list[int]]:
        """The parts that exist, image by image: their places ``b * K + k``, and what each sees. Host ints."""
        if self.per_image is None:
            lengths = list(self.num_visible) * self.order.shape[0]
        else:
            lengths = self.per_image.flatten().tolist()
        present = [row for row, length in enumerate(lengths) if length]
        return present, [lengths[row] for row in present]

    def hidden_index(self) -> Tensor:
        """Long (H,), every hidden (image, part, patch) as an index into (B, K, N) flattened.

        Image by image, part by part, then in the order of ``order``.
        """
        rows, visible = self.rows()
        patches, device = self.num_patches, self.order.device
        row, place = ragged_places([patches - self.num_thrown - v for v in visible], device)
        base = host_index([r * patches for r in rows], device)[row]
        start = host_index(visible, device)[row]
        return base + self.order.flatten()[base + start + place]


def _check_thrown(plan: MaskPlan, patches: int) -> None:
    if not plan.uniform or plan.partition:
        raise ValueError(
            f'num_thrown is {plan.num_thrown}, but parts differ in length or share out the image: patches are thrown '
            'away only where all parts of all images see the same number of them and no part needs what another has'
        )
    if not 0 < plan.num_thrown < patches - plan.num_visible[0]:
        raise ValueError(
            f'{plan.num_thrown} of {patches} patches are thrown away and {plan.num_visible[0]} visible: at least one '
            'must be left to be hidden'
        )


def _check_per_image(per_image: Tensor, order: Tensor, num_visible: tuple[int, ...]) -> None:
    batch, parts, patches = order.shape
    if per_image.dtype != torch.long or per_image.device.type != 'cpu' or per_image.shape != (batch, parts):
        raise ValueError(
            f'per_image must be a long CPU tensor ({batch}, {parts}), got {per_image.dtype} of shape '
            f'{tuple(per_image.shape)} on {per_image.device}: make the plan with MaskPlan.from_lengths'
        )
    if per_image.min() < 0 or per_image.max() > patches:
        raise ValueError(
            f'lengths lie between {per_image.min()} and {per_image.max()}: a part sees 1 to {patches} patches, '
            '0 = the image does not have it'
        )
    empty = (per_image == 0).all(dim=1).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f'images {empty} have no part at all: every image needs one part that sees a patch')
    if tuple(per_image.amax(dim=0).tolist()) != tuple(num_visible):
        raise ValueError(f'num_visible is {num_visible}, not the largest lengths: make the plan with from_lengths')


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU tensor that the host does not wait for: pinned memory is copied behind the running kernels."""
    if device.type != 'cuda' or host.is_cuda or torch.compiler.is_compiling():
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def host_index(values: Sequence[int], device: torch.device) -> Tensor:
    """Python ints as a long tensor of a device, without a wait."""
    return to_device(torch.tensor(values, dtype=torch.long), device)


def true_places(mask: Tensor, count: int) -> Tensor:
    """Long (count,), the places of a bool tensor's True ones in it flattened, ascending; the host knows their number.

    ``mask.nonzero()``, and with it ``tensor[mask]``, waits for the device to count.
    """
    return (~mask).flatten().to(torch.uint8).argsort(stable=True)[:count]


def ragged_places(lengths: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """For sequences laid end to end: long (T,) number of the sequence of each entry, and its place in that sequence.

    Args:
        lengths: S host ints, T in all. Their sum being known to the host, nothing waits for the device.
    """
    counts = host_index(lengths, device)
    total = sum(lengths)
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=device), counts, output_size=total)
    return sequence, torch.arange(total, device=device) - (counts.cumsum(0) - counts)[sequence]


def draw_uniform(shape: tuple[int, ...], tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform noise in [0, 1) on the device of ``tokens``, fp32 whatever the autocast dtype.

    A generator of another device draws there and the noise is moved, so that a CPU generator gives the same masks on
    every machine.
    """
    return _draw(torch.rand, shape, tokens, generator)


def draw_normal(shape: tuple[int, ...], tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise N(0, 1), drawn as :func:`draw_uniform` draws."""
    return _draw(torch.randn, shape, tokens, generator)


def _draw(draw: Callable, shape: tuple[int, ...], tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    device = tokens.device if generator is None else generator.device
    drawn = draw(shape, generator=generator, device=device, dtype=torch.float32)
    return drawn if drawn.device == tokens.device else to_device(drawn, tokens.device)


def draw_on_host(shape: tuple[int, ...], tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform noise in [0, 1) on the CPU, fp32: numbers that decide shapes, or that loops on the host look at.

    A CPU generator draws it, :func:`draw_uniform`'s numbers. One of a GPU is not asked, which the host would wait for:
    its seed and offset, which the host knows, seed the draw, and the offset moves on as if the GPU had drawn. So masks
    are as replayable as ever, and differ from those of a CPU generator of the same seed, as they do anyway.
    """
    device = tokens.device if generator is None else generator.device
    if device.type != 'cuda':
        return torch.rand(shape, generator=generator, device=device, dtype=torch.float32).cpu()
    if generator is None:
        generator = torch.cuda.default_generators[device.index]
    seed, offset = generator.initial_seed(), generator.get_offset()
    generator.set_offset(offset + PHILOX_STEP)
    mixed = int.from_bytes(hashlib.blake2b(f'{seed} {offset}'.encode(), digest_size=8).digest(), 'big')
    return torch.rand(shape, generator=torch.Generator().manual_seed(mixed), dtype=torch.float32)
