"""The projection head of DINO and iBOT (Caron et al., ICCV 2021; Zhou et al., ICLR 2022)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from mim_mm.compat.initializers import trunc_normal_


def prototypes(width: int, outputs: int, norm_last_layer: bool) -> nn.Linear:
    """A weight-normalised layer without bias: rows ``g v / |v|`` with g = 1, fixed if ``norm_last_layer``.

    It can be copied, unlike torch's older ``weight_norm``, whose checkpoints (``weight_g``, ``weight_v``) it loads as
    well as its own (``parametrizations.weight.original0`` and ``original1``). v starts as torch's linear layers.
    """
    layer = weight_norm(nn.Linear(width, outputs, bias=False))
    layer.parametrizations.weight.original0.data.fill_(1)
    layer.parametrizations.weight.original0.requires_grad_(not norm_last_layer)
    return layer


class DINOHead(nn.Module):
    """Features -> logits over prototypes: D -> hidden -> hidden -> bottleneck, GELU between; L2 norm; prototypes.

    Parameters are named as in the releases, ``mlp.{0,2,4}`` and ``last_layer``; where patches have prototypes of their
    own, ``last_layer2``.

    Args:
        in_dims: D.
        out_dims: prototypes of the class token, and of patches if they share them.
        patch_out_dims: prototypes of patches; None: those of the class token (iBOT's ``shared_head``).
        norm_last_layer: rows of the last layer have length 1 for good; False lets them train, which the releases
            advise for ViT-S.
    """

    def __init__(
        self,
        in_dims: int,
        out_dims: int,
        patch_out_dims: int | None = None,
        hidden_dims: int = 2048,
        bottleneck_dims: int = 256,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dims, hidden_dims),
            nn.GELU(),
            nn.Linear(hidden_dims, hidden_dims),
            nn.GELU(),
            nn.Linear(hidden_dims, bottleneck_dims),
        )
        self.last_layer = prototypes(bottleneck_dims, out_dims, norm_last_layer)
        self.last_layer2 = None
        if patch_out_dims is not None:
            self.last_layer2 = prototypes(bottleneck_dims, patch_out_dims, norm_last_layer)
        for layer in self.mlp[::2]:
            trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def project(self, x: Tensor) -> Tensor:
        """(..., D) -> unit vectors (..., bottleneck)."""
        return F.normalize(self.mlp(x), dim=-1)

    def forward(self, cls: Tensor) -> Tensor:
        """Class tokens (B, D) -> logits (B, K)."""
        return self.last_layer(self.project(cls))

    @property
    def patch_prototypes(self) -> nn.Linear:
        """The layer from projected patches to their logits: linear, so that the mean commutes with it."""
        return self.last_layer if self.last_layer2 is None else self.last_layer2

    def patches(self, x: Tensor) -> Tensor:
        """Patch tokens (..., D) -> logits (..., K)."""
        return self.patch_prototypes(self.project(x))
