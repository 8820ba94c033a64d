"""mmseg's encoder and decoder, told how deep each parameter lies, and with a frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from mim_mm.encoders import reader_of
from mim_mm.encoders.blocks import known_blocks
from mim_mm.registry import MODELS


@MODELS.register_module()
class MIMSegmentor(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with ``get_layer_depth``; same arguments.

    Raises:
        ValueError: the heads have different numbers of classes, of which only the first's would be evaluated.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        counts = {name: head.num_classes for name, head in self.heads().items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f'the heads have {" and ".join(f"{n} ({name})" for name, n in counts.items())} classes: set '
                'model.decode_head.num_classes and model.auxiliary_head.num_classes to the same number'
            )

    def heads(self) -> dict:
        """Name -> head, of those that the model has."""
        return {name: getattr(self, name) for name in ('decode_head', 'auxiliary_head') if hasattr(self, name)}

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """(depth, number of depths) of the parameter ``param_name``: 0 patch embedding, i + 1 block i, last the rest.

        Raises:
            NotImplementedError: The backbone cannot tell the depth of its parameters.
        """
        if not hasattr(self.backbone, 'get_layer_depth'):
            raise NotImplementedError(
                f'{type(self.backbone).__name__} has no get_layer_depth: use a ViT of mmpretrain, or train without '
                'layer decay.'
            )
        return self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')


@MODELS.register_module()
class FrozenSegmentor(MIMSegmentor):
    """A head on maps of a frozen encoder, read block by block; nothing of the encoder is trained.

    The encoder runs without gradient and always in eval mode. ``out_type`` and ``out_indices`` do not matter.

    Args:
        blocks: indices of the blocks that are read, from 0, negative ones from the end, ascending.
        norm: put each through the encoder's final norm, which it must have.
        *args, **kwargs: as ``EncoderDecoder``.

    Raises:
        ValueError: a block that does not exist, blocks out of order, or a norm that the encoder does not have.
    """

    def __init__(self, *args, blocks: Sequence[int] = (-1,), norm: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        encoder = reader_of(self.backbone)
        name = type(self.backbone).__name__
        self.blocks = known_blocks('blocks', blocks, len(encoder.blocks), name)
        if norm and encoder.norm is None:
            raise ValueError(f'norm=True, but this {name} has no final norm: set model.norm=False or final_norm=True')
        self.norm = norm
        self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FrozenSegmentor:
        """As always for neck and heads; the encoder stays in eval mode."""
        super().train(mode)
        self.backbone.train(False)
        return self

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> a map (B, D, h, w) for each block, or what the neck makes of them.

        Raises:
            ValueError: H or W is not a whole number of patches.
        """
        encoder = reader_of(self.backbone)
        h, w = encoder.grid.of_image(inputs)
        tokens = encoder.read(inputs, self.blocks, self.norm)
        maps = [t[:, encoder.num_prefix :].transpose(1, 2).unflatten(2, (h, w)) for t in tokens]
        return self.neck(maps) if self.with_neck else maps
