"""A classifier on a frozen encoder, whose feature is any of the published ones: blocks, norm and pooling are options.

MAE, MoCo v3     blocks=(-1,)             pool='cls'        norm=True
DINO ViT-S       blocks=(-4, -3, -2, -1)  pool='cls'        norm=True   (Caron et al. 2021, eval_linear.py)
DINO ViT-B       blocks=(-1,)             pool='cls_mean'   norm=True
BEiT             blocks=(8,)              pool='cls_mean'   norm=False  (Bao et al. 2022, run_linear_eval.py)
CAE, attentive   blocks=(-1,)             pool='tokens'     norm=True   (Chen et al. 2023), then AttentivePool
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.models import ImageClassifier
from torch import Tensor

from mim_mm.encoders import reader_of
from mim_mm.encoders.blocks import known_blocks
from mim_mm.evaluation.probes.probe_features import POOLINGS, pool, pooled_width
from mim_mm.registry import MODELS


@MODELS.register_module()
class FrozenProbe(ImageClassifier):
    """mmpretrain's classifier, but nothing of the backbone is trained and its feature is read block by block.

    The whole backbone has ``requires_grad=False``, runs without gradient and is always in eval mode, so that features
    do not depend on drop path or dropout. ``frozen_stages`` is not needed (and with it alone mmpretrain's ViT goes back
    to train mode).

    Args:
        backbone: mmpretrain's ``VisionTransformer``, ``BEiTViT`` or ``HiViT``. ``out_type`` and ``out_indices``
            do not matter.
        head: its ``in_channels`` is the feature's width: see ``pool``.
        blocks: indices of the blocks to read, from 0, negative ones from the end, ascending.
        norm: put each block's output through the backbone's final norm (DINO, iBOT, DINOv2); the backbone must
            have one. False: bare outputs.
        pool: 'cls': class tokens of the blocks, joined, the earliest first; 'mean': their mean patch tokens,
            joined; 'cls_mean': class tokens, then the mean patch token of the last block; 'tokens': all tokens of the
            single block, for a neck that pools.
        neck: between feature and head, e.g. ``ClsBatchNormNeck`` or ``mim_mm.AttentivePool``.
        **kwargs: As mmpretrain's ``ImageClassifier``.

    Raises:
        ValueError: A block that does not exist, blocks out of order, a pooling that the backbone cannot give, a norm it
            does not have, or a head for another width.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        blocks: Sequence[int] = (-1,),
        norm: bool = True,
        pool: str = 'cls',
        neck: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        encoder = reader_of(self.backbone)
        name = type(self.backbone).__name__
        self.blocks = known_blocks('blocks', blocks, len(encoder.blocks), name)
        if pool not in (*POOLINGS, 'tokens') or (pool == 'tokens' and len(self.blocks) > 1):
            raise ValueError(f"pool={pool!r} on {len(self.blocks)} block(s): use one of {POOLINGS}, or 'tokens' on one")
        if 'cls' in pool and not encoder.num_prefix:
            raise ValueError(f"pool={pool!r} needs a class token, which this {name} lacks: use pool='mean'")
        if norm and encoder.norm is None:
            raise ValueError(f'norm=True, but this {name} has no final norm: set model.norm=False or final_norm=True')
        self.norm, self.pool, self.num_prefix = norm, pool, encoder.num_prefix
        width = encoder.width if pool == 'tokens' else pooled_width(encoder.width, len(self.blocks), pool)
        if getattr(self.head, 'in_channels', width) != width:
            raise ValueError(f'head.in_channels={self.head.in_channels}, the feature has {width}: set it to {width}')
        self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FrozenProbe:
        """As always for neck and head; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.train(False)
        return self

    def features(self, inputs: Tensor) -> Tensor:
        """Frozen features of normalised images.

        Args:
            inputs: (B, 3, H, W).

        Returns:
            (B, width) in fp32, or (B, P + N, D) for ``pool='tokens'``; without gradient.
        """
        tokens = reader_of(self.backbone).read(inputs, self.blocks, self.norm)
        return tokens[-1] if self.pool == 'tokens' else pool(tokens, len(tokens), self.pool, self.num_prefix)

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> tuple[Tensor, ...] | Tensor:
        """As mmpretrain's: what is known after 'backbone' (:meth:`features`), 'neck' or 'pre_logits'.

        Raises:
            ValueError: Another stage.
        """
        if stage not in ('backbone', 'neck', 'pre_logits'):
            raise ValueError(f"stage={stage!r}: use 'backbone', 'neck' or 'pre_logits'")
        found = (self.features(inputs),)
        if stage != 'backbone' and self.with_neck:
            found = self.neck(found)
        return self.head.pre_logits(found) if stage == 'pre_logits' else found
