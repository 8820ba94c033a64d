"""What one image costs in one pass: FLOPs, parameters, bytes kept for the backward pass, part by part.

A multiply-add is 2 FLOP. Counted are matrix products and convolutions, as ``torch.utils.flop_counter`` counts them;
norms, activations, losses and data movement are not. T tokens, D width, F width of the MLP, L depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# The backward pass in units of the forward pass.
TRAINED = 2.0  # gradient of the weights and of the input
FIRST = 1.0  # of the weights only: the input is the image
FROZEN = 0.0
RECOMPUTED = 3.0  # activation checkpointing runs the forward pass once more


@dataclass(frozen=True)
class Part:
    """A part of a model and what it costs for one training image.

    Attributes:
        name: what a reader of the table calls it.
        forward: FLOPs of the forward pass.
        backward: FLOPs of the backward pass over those of the forward pass.
        params: number of parameters.
        saved: bytes of activations that live until the backward pass; for frozen parts the bytes alive at one time.
    """

    name: str
    forward: float
    backward: float = TRAINED
    params: float = 0.0
    saved: float = 0.0


@dataclass(frozen=True)
class Work:
    """A model on one image.

    Attributes:
        model: short description; measurements are looked up by it.
        parts: in the order in which an image meets them.
        pixels: of one input image.
        notes: what was assumed in counting.
    """

    model: str
    parts: tuple[Part, ...]
    pixels: int
    notes: tuple[str, ...] = field(default=())

    @property
    def forward(self) -> float:
        """FLOPs of one forward pass in training."""
        return sum(part.forward for part in self.parts)

    @property
    def train(self) -> float:
        """FLOPs of forward and backward pass."""
        return sum(part.forward * (1 + part.backward) for part in self.parts)

    @property
    def params(self) -> float:
        return sum(part.params for part in self.parts)

    @property
    def trainable(self) -> float:
        return sum(part.params for part in self.parts if part.backward)

    @property
    def saved(self) -> float:
        """Bytes of activations an image: all that trained parts keep, and the largest frozen part at work."""
        frozen = [part.saved for part in self.parts if not part.backward]
        return sum(part.saved for part in self.parts if part.backward) + max(frozen, default=0.0)

    def __getitem__(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)


def linear(name: str, rows: float, fan_in: int, fan_out: int, backward: float = TRAINED, width: int = 2) -> Part:
    """A linear layer (or a convolution, with fan_in = channels x kernel) on ``rows`` rows; ``width`` bytes a value."""
    kept = rows * fan_in * width if backward else 0.0
    return Part(name, 2.0 * rows * fan_in * fan_out, backward, fan_in * fan_out + fan_out, kept)


def block_flops(tokens: float, dims: int, ffn: int, seen: float | None = None) -> float:
    """Forward FLOPs of one transformer block: ``T (8 D^2 + 4 D F) + 4 T S D``.

    Args:
        tokens: T.
        dims: D.
        ffn: F; with F = 4 D the first term is the usual 24 T D^2.
        seen: S, tokens that each token attends to; all of them by default, those of a window otherwise.
    """
    seen = tokens if seen is None else seen
    return tokens * (8.0 * dims**2 + 4.0 * dims * ffn) + 4.0 * tokens * seen * dims


def block_params(dims: int, ffn: int) -> int:
    """Weights and biases of qkv, projection and MLP, and two LayerNorms."""
    return (4 * dims**2 + 4 * dims) + (2 * dims * ffn + ffn + dims) + 4 * dims


def block_saved(tokens: float, dims: int, ffn: int, width: int = 2, scores: float = 0.0) -> float:
    """Bytes that one block keeps for the backward pass with a fused attention kernel.

    The residual stream is fp32 under autocast, so the inputs of both LayerNorms take 4 bytes a value; the inputs of qkv
    (D), the qkv (3 D), the output of the attention (D), the inputs of fc1 (D), GELU (F) and fc2 (F) take ``width``.

    Args:
        tokens, dims, ffn: T, D, F.
        width: bytes of the computing type: 2 in bf16 autocast, 4 in fp32.
        scores: entries of an explicit attention matrix, for backbones without a fused kernel: softmax in fp32 and a
            copy in the computing type.
    """
    return tokens * (8.0 * dims + width * (6.0 * dims + 2.0 * ffn)) + scores * (4 + width)


def blocks(
    name: str,
    depth: int,
    dims: int,
    ffn: int,
    lengths: Sequence[float],
    backward: float = TRAINED,
    width: int = 2,
    heads: int = 0,
) -> Part:
    """A stack of blocks on sequences of the given lengths (all those of one image).

    Args:
        heads: number of heads if the attention keeps its matrix, 0 for fused attention.
    """
    one = sum(block_saved(n, dims, ffn, width, heads * n * n) for n in lengths)
    if backward == RECOMPUTED:
        kept = 4.0 * dims * depth * sum(lengths) + one
    else:
        kept = one * (depth if backward else 1)
    flops = depth * sum(block_flops(n, dims, ffn) for n in lengths)
    return Part(name, flops, backward, depth * block_params(dims, ffn), kept)
