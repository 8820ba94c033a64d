"""mmpretrain's attention with less work in the backward pass, in whatever is trained."""

from __future__ import annotations

from mmengine.hooks import Hook

from mim_mm.encoders.fused import fuse_attention
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class FusedAttentionHook(Hook):
    """Call :func:`mim_mm.encoders.fused.fuse_attention` on the model before training; ``tools/train.py`` adds this.

    The algorithms of this package do so themselves; this is for fine-tuning, where mmpretrain builds the model.
    """

    def before_train(self, runner) -> None:
        fuse_attention(runner.model)
