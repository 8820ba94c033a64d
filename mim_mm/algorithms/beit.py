"""BEiT: BERT Pre-Training of Image Transformers (Bao et al., ICLR 2022, arXiv 2106.08254), for any mask plan."""

from __future__ import annotations

from torch import Tensor

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.visual_tokens import VisualTokens
from mim_mm.encoders.initial import STD
from mim_mm.masking.plan import true_places
from mim_mm.registry import MODELS


@MODELS.register_module()
class BEiT(VisualTokens):
    """Mask tokens at the input, cross entropy with the visual tokens of the hidden patches.

    The mean is over all of them, on all ranks.

    Backbone, head and tokenizer are mmpretrain's (``BEiTPretrainViT``, ``BEiTV1Head``, ``DALL-E``).

    Args:
        backbone: ``mmpretrain.BEiTPretrainViT``.
        masker: ``BlockMasking`` in the paper.
        vocabulary: number of visual tokens, 8192 for DALL-E.
        **kwargs: ``tokenizer``, ``tokenizer_checkpoint`` and the others of :class:`VisualTokens`.
    """

    def __init__(self, backbone: dict, masker: dict, vocabulary: int = 8192, **kwargs) -> None:
        super().__init__(backbone, masker, **kwargs)
        _, channels = self.encoder.output
        self.head = MODELS.build(
            dict(
                type='mmpretrain.BEiTV1Head',
                embed_dims=channels,
                num_embed=vocabulary,
                # The release cuts the head's draws at one standard deviation, too.
                init_cfg=dict(type='TruncNormal', layer='Linear', std=STD, a=-STD, b=STD),
                loss=dict(type='mmpretrain.CrossEntropyLoss'),
            )
        )

    def loss(self, inputs: list[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_tokens`` of one step; ``inputs`` as in :meth:`VisualTokens.token_logits`."""
        wanted = self.token_logits(inputs)
        plan = self.plan(inputs[0], self.mask_generator)
        mask, images, wanted = self.masked_parts(plan, inputs[0], wanted)
        tokens = self.encoder.encode_masked(images, self.units_of(*images.shape[-2:]).expand(mask))
        hidden = true_places(mask, sum(plan.num_patches - visible for visible in plan.rows()[1]))
        # As BEiTV1Head.loss, which looks for the hidden ones on the device and waits for their number.
        logits = self.head.cls_head(tokens[:, self.grid.num_prefix :].flatten(0, 1)[hidden])
        losses = {'loss_tokens': self.head.loss_module(logits, wanted.argmax(dim=1).flatten()[hidden])}
        return self.outcome(Terms(losses, {}), lambda: {'loss_tokens': len(hidden)})
