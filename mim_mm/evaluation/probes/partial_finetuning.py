"""Partial fine-tuning: the last blocks of an encoder are tuned, the rest is frozen (MAE, He et al., CVPR 2022, section
4.3 and figure 9): between a linear probe, which sees linear features alone, and fine-tuning, which changes them all."""

from __future__ import annotations

from functools import partial

from mmpretrain.models import ImageClassifier
from torch import nn

from mim_mm.encoders import UnsupportedBackbone, reader_of
from mim_mm.encoders.blocks import sub_blocks
from mim_mm.registry import MODELS

ALL, HALF = 'all', 0.5


@MODELS.register_module()
class PartialFineTuning(ImageClassifier):
    """mmpretrain's classifier with the last ``tuned_blocks`` blocks of its backbone tuned.

    What is tuned besides them: the final norm and the norm of pooled tokens, which stand behind the blocks, and neck
    and head. All that stands in front of the first tuned block is frozen: patch embedding, positions, class token,
    biases that all blocks share, stages before the main one, earlier blocks. Frozen parts have no gradient, so no graph
    is kept for them, no update and no weight decay, and are in eval mode also while the rest trains: no drop path, no
    dropout. (mmpretrain's ``frozen_stages`` forgets that at the next ``train()``.) Names of tensors are those of
    ``ImageClassifier``, and layer decay gives each block the rate that it has when all are tuned.

    Args:
        backbone: of a family with a stack of blocks (``VisionTransformer``, ``DeiT3``, ``RegisterViT``, ``BEiTViT``,
            ``HiViT`` and classes derived from them); with 'all' any.
        tuned_blocks: 'all', the default: ordinary fine-tuning. A whole number n, 0 to the depth: the last n. 0.5: of
            the last block only the MLP sub-block, with its norm and layer scale. 0: nothing of the backbone, the norms
            behind the blocks included, so that the head sees fixed features.
        head, neck, **kwargs: as mmpretrain's ``ImageClassifier``.

    Raises:
        ValueError: another ``tuned_blocks``, a backbone without known blocks or halves of them, or one with
            ``frozen_stages``.
    """

    _tuned: tuple[nn.Module, ...] | None = None  # parts of the backbone that follow the mode; None: the whole of it

    def __init__(
        self, backbone: dict, head: dict | None = None, tuned_blocks: int | float | str = ALL, neck=None, **kwargs
    ) -> None:
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.tuned_blocks = tuned_blocks
        if tuned_blocks == ALL:
            return
        parts = self._parts()
        # What the backbone itself keeps fixed in a tuned part stays so.
        tuned = [p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]
        tuned = [p for p in tuned if p.requires_grad]
        self.backbone.requires_grad_(False)
        for parameter in tuned:
            parameter.requires_grad_(True)
        self._tuned = tuple(part for part in parts if isinstance(part, nn.Module))
        self.train()

    def _parts(self) -> list[nn.Module | nn.Parameter]:
        """The tuned modules and parameters of the backbone."""
        wanted, name = self.tuned_blocks, type(self.backbone).__name__
        if getattr(self.backbone, 'frozen_stages', 0) > 0:
            raise ValueError(
                f'tuned_blocks={wanted!r} and backbone.frozen_stages={self.backbone.frozen_stages} both say what is '
                'frozen: leave frozen_stages out'
            )
        try:
            encoder = reader_of(self.backbone)
            blocks = encoder.blocks
        except UnsupportedBackbone:
            raise ValueError(
                f'tuned_blocks={wanted!r} counts blocks of one stack, which {name} does not have: use '
                'model.tuned_blocks=all, or a VisionTransformer, DeiT3, BEiTViT or HiViT'
            ) from None
        whole = isinstance(wanted, (int, float)) and not isinstance(wanted, bool) and float(wanted).is_integer()
        if not (whole and 0 <= wanted <= len(blocks)) and wanted != HALF:
            raise ValueError(
                f"tuned_blocks={wanted!r} must be 'all', 0.5 (the MLP of the last block) or a whole number of blocks, "
                f'0 to {len(blocks)} for this {name}'
            )
        if wanted == 0:
            return []
        if wanted != HALF:
            return [*blocks[len(blocks) - int(wanted) :], *encoder.closing]
        try:
            attention, mlp = sub_blocks(encoder, blocks[-1])
        except ValueError as error:
            raise ValueError(f'tuned_blocks=0.5 tunes the MLP of a block: {error}; tune whole blocks') from None
        drop_path = getattr(blocks[-1], 'drop_path', None)
        if isinstance(drop_path, nn.Module):  # BEiT's and HiViT's blocks have one for both sub-blocks
            for half in (attention, mlp):
                half[0].register_forward_pre_hook(partial(_drop_as, drop_path, half[1]))
        return [*mlp, *encoder.closing]

    def train(self, mode: bool = True) -> PartialFineTuning:
        """As always for what is tuned; the frozen parts stay in eval mode."""
        super().train(mode)
        if self._tuned is not None:
            self.backbone.train(False)
            for part in self._tuned:
                part.train(mode)
        return self


def _drop_as(drop_path: nn.Module, half: nn.Module, *_) -> None:
    """A drop path that two sub-blocks share drops in the one that now begins if that one is in train mode."""
    drop_path.train(half.training)
