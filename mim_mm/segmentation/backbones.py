"""Maps of a ViT that mmpretrain does not put out itself."""

from __future__ import annotations

from mmpretrain.models import VisionTransformer
from torch import Tensor

from mim_mm.registry import MODELS


@MODELS.register_module()
class NormedMaps(VisionTransformer):
    """mmpretrain's ViT, every map of ``out_indices`` after the final norm, which they share (iBOT's ``out_with_norm``).

    mmpretrain normalises the last map alone. Arguments are those of ``VisionTransformer``; ``out_type`` and
    ``final_norm`` are set.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **{**kwargs, 'out_type': 'featmap', 'final_norm': True})
        self.final_norm = False  # not a second time, on the last block

    def _format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, P + N, D) of a block -> map (B, D, h, w)."""
        return super()._format_output(self.ln1(x), hw)
