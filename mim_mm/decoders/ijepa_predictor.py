"""The predictor of I-JEPA (Assran et al., CVPR 2023): the features of hidden patches, from those of the context."""

from __future__ import annotations

import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mim_mm.compat.initializers import trunc_normal_
from mim_mm.encoders.fused import fuse_attention
from mim_mm.encoders.grid import Grid
from mim_mm.encoders.initial import STD, init_ijepa
from mim_mm.encoders.positions import sincos_table, table_for


class JEPAPredictor(nn.Module):
    """Linear to ``embed_dims``, positions, mask tokens of the target, blocks, LayerNorm, linear to the encoder's width.

    Args:
        grid: geometry of the encoder.
        width: D of its features, of which targets are made.
        num_heads: of each block; the encoder's in the release, whatever the width here.
        embed_dims: D' of the blocks, 384 in the release.
        depth: blocks; 12 for ViT-H, 16 for ViT-g, 6 by the default of the code.
        mlp_ratio: hidden width of the MLPs over ``embed_dims``.
    """

    def __init__(
        self,
        grid: Grid,
        width: int,
        num_heads: int,
        embed_dims: int = 384,
        depth: int = 12,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(
                f'the predictor is {embed_dims} wide and has {num_heads} heads: give predictor.num_heads, a divisor '
                'of predictor.embed_dims'
            )
        self.num_prefix, self.base_grid = grid.num_prefix, (grid.height, grid.width)
        self.predictor_embed = nn.Linear(width, embed_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        table = sincos_table(grid.height, grid.width, embed_dims, grid.num_prefix)
        self.predictor_pos_embed = nn.Parameter(table, requires_grad=False)
        self.predictor_blocks = nn.ModuleList(
            TransformerEncoderLayer(
                embed_dims, num_heads, int(mlp_ratio * embed_dims), norm_cfg=dict(type='LN', eps=1e-6)
            )
            for _ in range(depth)
        )
        fuse_attention(self.predictor_blocks)
        self.predictor_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.predictor_proj = nn.Linear(embed_dims, width)
        self.init_weights()

    def init_weights(self) -> None:
        """All matrices and the mask token normal (0.02), biases zero, as the release."""
        init_ijepa(self)
        trunc_normal_(self.mask_token, std=STD)

    def forward(self, latent: Tensor, context: Tensor, target: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Predict one target of each row.

        Args:
            latent: (R, P+V, D) after the encoder's final norm, patches in the order of ``context``.
            context: long (R, V), places of the patches that the encoder saw.
            target: long (R, M), places of those that are predicted.
            grid: rows and columns, where they are not those of the encoder.

        Returns:
            (R, M, D) in the order of ``target``.
        """
        patches = self.base_grid[0] * self.base_grid[1] if grid is None else grid[0] * grid[1]
        table = table_for(self.predictor_pos_embed, self.base_grid, grid, patches, self.num_prefix)[0]
        prefix, places = table[: self.num_prefix], table[self.num_prefix :]
        seen = self.predictor_embed(latent).to(places.dtype)
        at = torch.cat([prefix.expand(len(seen), -1, -1), places[context]], dim=1)
        x = torch.cat([seen + at, self.mask_token + places[target]], dim=1)
        for block in self.predictor_blocks:
            x = block(x)
        return self.predictor_proj(self.predictor_norm(x[:, seen.shape[1] :]))
