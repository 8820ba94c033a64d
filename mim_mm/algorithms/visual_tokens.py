"""What BEiT and CAE share: the target is the visual token that a frozen tokenizer gives to each patch."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from mim_mm.algorithms.masked_input import MaskedInput
from mim_mm.checkpoint.read import read_content
from mim_mm.registry import MODELS


def load_tokenizer(tokenizer: dict, checkpoint: str | os.PathLike | None) -> nn.Module:
    """A frozen tokenizer with all of its weights from a file.

    Args:
        tokenizer: config of a module that turns images (B, C, H, W) into logits (B, vocabulary, h, w), such as
            ``mmpretrain.DALL-E`` (8 px a token).
        checkpoint: local file with its state dict, bare or under 'state_dict' or 'model'.

    Raises:
        ValueError: no file is given, or its weights are not exactly those of the tokenizer.
        FileNotFoundError: the file does not exist.
    """
    name, module = tokenizer['type'], MODELS.build(tokenizer)
    if any(isinstance(weight, FakeTensor) for weight in module.parameters()):
        return module.requires_grad_(False).eval()  # only shapes are asked for (mim_mm.cost): there is nothing to load
    if checkpoint is None:
        raise ValueError(
            f'tokenizer_checkpoint is None: the targets are the tokens of a trained {name}, and those of a random one '
            "mean nothing. Download its weights (for DALL-E dalle_encoder.pth, whose address stands in mmpretrain's "
            'BEiT and CAE recipes) and pass --cfg-options model.tokenizer_checkpoint=FILE'
        )
    if not os.path.isfile(checkpoint):
        raise FileNotFoundError(
            f"tokenizer_checkpoint '{checkpoint}' does not exist: pass a local file of {name} weights"
        )
    state = read_content(checkpoint)
    for key in ('state_dict', 'model'):
        state = state.get(key, state)
    own = module.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise ValueError(
            f"tokenizer_checkpoint '{checkpoint}' does not fit {name}: {len(wrong)} weights are missing, unknown or of "
            f'another shape ({", ".join(wrong[:3])}); give the file that belongs to this tokenizer and its options'
        )
    module.load_state_dict(state)
    return module.requires_grad_(False).eval()


class VisualTokens(MaskedInput):
    """A masked backbone beside a frozen tokenizer.

    Args:
        backbone, masker: as :class:`MaskedInput`; a mask unit is one patch.
        tokenizer, tokenizer_checkpoint: see :func:`load_tokenizer`.
        **kwargs: as :class:`MaskedInput`.
    """

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        tokenizer: dict,
        tokenizer_checkpoint: str | os.PathLike | None = None,
        **kwargs,
    ) -> None:
        super().__init__(backbone, masker, **kwargs)
        self.tokenizer = load_tokenizer(tokenizer, tokenizer_checkpoint)

    def train(self, mode: bool = True) -> VisualTokens:
        """The tokenizer stays in eval mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @torch.no_grad()
    def token_logits(self, views: list[Tensor] | Tensor) -> Tensor:
        """What the tokenizer says about the second view, (B, vocabulary, rows, columns).

        Args:
            views: the same crop twice, ``[images of the backbone, images of the tokenizer]``, each normalised in its
                own way; ``TwoSizeRandomResizedCrop`` and mmpretrain's ``TwoNormDataPreprocessor``
                make them.

        Raises:
            ValueError: if there are not two views, or the tokens of the second are not one a patch of the first.
        """
        if isinstance(views, Tensor) or len(views) != 2:
            raise ValueError(
                f'{type(self).__name__} needs two views of each image, one for the backbone and one for the tokenizer: '
                'use mim_mm.TwoSizeRandomResizedCrop and mim_mm.TwoNormPreprocessor'
            )
        # DALL-E's convolutions choose their own precision, and rounding decides between near-equal tokens.
        with torch.autocast(views[1].device.type, enabled=False):
            logits = self.tokenizer(views[1].float())
        wanted = self.units_of(*views[0].shape[-2:])
        if logits.shape[-2:] != (wanted.rows, wanted.columns):
            raise ValueError(
                f'the tokenizer makes {logits.shape[-2]} x {logits.shape[-1]} tokens of its view of '
                f'{views[1].shape[-2]} x {views[1].shape[-1]} px, the backbone has {wanted.rows} x {wanted.columns} '
                'patches: change second_size (112 for DALL-E beside 224 px in 16-px patches)'
            )
        return logits
