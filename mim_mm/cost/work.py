"""What one image costs in one pass: FLOPs, parameters, bytes kept for the backward pass, part by part.

A multiply-add is 2 FLOP. Counted are matrix products and convolutions, as ``torch.utils.flop_counter`` counts them;
norms, activations, losses and data movement are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModuleCost:
    """A part of a model and what it costs for one training image.

    Attributes:
        name: path of its module, ``backbone.layers``.
        forward: FLOPs of the forward pass.
        backward: FLOPs of the backward pass over those of the forward pass: 2 where weights and input get a gradient,
            1 where the input is the image, 0 where all is frozen, nearly 3 where the forward pass is repeated.
        params: number of parameters.
        trainable: number of those that are trained.
        saved: bytes of activations that live until the backward pass.
        working: of a part that keeps none, the most bytes alive at one time while it runs.
    """

    name: str
    forward: float
    backward: float = 2.0
    params: float = 0.0
    trainable: float = 0.0
    saved: float = 0.0
    working: float = 0.0


@dataclass(frozen=True)
class Work:
    """A model on one image.

    Attributes:
        model: short description; measurements are looked up by it.
        parts: in the order in which an image meets them.
        size: height and width of an input image.
        kind: pretrain, linear, probe, finetune, coco, seg or seg_linear.
        half: whether it computes in 16 bits (autocast).
        derived: bytes that follow from weights alone and are kept for the backward pass whatever the batch: weights
            cast to 16 bits, tables of positions.
        notes: what was assumed in counting.
    """

    model: str
    parts: tuple[ModuleCost, ...]
    size: tuple[int, int]
    kind: str = 'pretrain'
    half: bool = True
    derived: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

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
        return sum(part.trainable for part in self.parts)

    @property
    def saved(self) -> float:
        """Bytes of activations an image: all that is kept, and the largest of the parts that keep nothing at work."""
        return sum(part.saved for part in self.parts) + max((part.working for part in self.parts), default=0.0)

    def __getitem__(self, name: str) -> ModuleCost:
        return next(part for part in self.parts if part.name == name)
