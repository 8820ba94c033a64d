"""What MSN's linear probe does to a frozen class token (Assran et al., ECCV 2022, ``linear_eval.py``)."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mim_mm.registry import MODELS


@MODELS.register_module()
class LayerNormL2(BaseModule):
    """A trained LayerNorm, then unit length.

    Args:
        embed_dims: D, width of the feature.
        eps: of the LayerNorm; the release has torch's default.
    """

    def __init__(self, embed_dims: int, eps: float = 1e-5, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.norm = nn.LayerNorm(embed_dims, eps=eps)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Features (B, D), the last entry of ``inputs`` -> ((B, D),) of length 1."""
        return (F.normalize(self.norm(inputs[-1]), dim=1),)
