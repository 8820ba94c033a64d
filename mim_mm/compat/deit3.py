"""mmpretrain's DeiT III with the second norm of each block.

Its ``DeiT3TransformerEncoderLayer`` normalises the input of the MLP by ``ln1`` again. ``ln2`` is never used: released
weights compute something else (timm's do not), and it has no gradient, at which DDP stops.
"""

from __future__ import annotations

from mim_mm.compat.on_import import after_import

PATCHED = 'mmpretrain.models.backbones.deit3'


def install() -> None:
    """Put :func:`forward` into the class, now or as soon as it is imported."""
    after_import(PATCHED, _patch)


def _patch(module) -> None:
    module.DeiT3TransformerEncoderLayer.forward = forward


def forward(self, x):
    """The block of DeiT III (Touvron et al., ECCV 2022): both residual branches behind norms of their own."""
    x = x + self.attn(self.ln1(x))
    return self.ffn(self.ln2(x), identity=x)
