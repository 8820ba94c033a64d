"""A decoder without self-attention, after CrossMAE (Fu et al., Rethinking Patch Dependence for Masked Autoencoders).

It changes the method: published MAE and EMAE figures do not apply to models trained with it. What it buys is that only
the patches that are predicted cost anything, so that a few of them may do (``RandomMasking(predict=0.25)``).
"""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mim_mm.encoders.fused import attention
from mim_mm.encoders.grid import Grid
from mim_mm.encoders.positions import init_linears, sincos_table, table_for
from mim_mm.registry import MODELS


class CrossBlock(nn.Module):
    """``x + attention(norm(x), latent)``, then ``x + mlp(norm(x))``; hidden patches never look at one another."""

    def __init__(self, dims: int, context_dims: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ln1, self.ln2 = nn.LayerNorm(dims, eps=1e-6), nn.LayerNorm(dims, eps=1e-6)
        self.query, self.proj = nn.Linear(dims, dims), nn.Linear(dims, dims)
        self.key_value = nn.Linear(context_dims, 2 * dims)
        hidden = int(mlp_ratio * dims)
        self.mlp = nn.Sequential(nn.Linear(dims, hidden), nn.GELU(), nn.Linear(hidden, dims))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B*K, M, D'), context (B*K, P+V, D); returns (B*K, M, D')."""
        q = self.query(self.ln1(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln2(x))


@MODELS.register_module()
class CrossAttentionDecoder(BaseModule):
    """Mask tokens with their positions read the encoder's latent by cross-attention.

    Every block reads the same normalised last latent; CrossMAE's weighted sums over all encoder blocks ("inter-block
    attention") are not built here.

    Args:
        embed_dims: width D', 512.
        depth: blocks, 12 in CrossMAE.
        num_heads: 16.
        mlp_ratio: hidden width of the MLPs over ``embed_dims``.
        input_norm: LayerNorm on the latent, for encoders without a final norm (HiViT).
    """

    def __init__(
        self,
        embed_dims: int = 512,
        depth: int = 12,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        input_norm: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims {embed_dims} is not divisible by num_heads {num_heads}: change one of them')
        self.embed_dims, self.depth, self.num_heads = embed_dims, depth, num_heads
        self.mlp_ratio, self.input_norm = mlp_ratio, input_norm
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.ln1 = nn.LayerNorm(embed_dims, eps=1e-6)

    def build_for(self, grid: Grid, out_dims: int) -> CrossAttentionDecoder:
        """Create the layers whose shape the encoder fixes; ``out_dims`` is p*p*3 for pixels."""
        self.decoder_norm_in = nn.LayerNorm(grid.embed_dims, eps=1e-6) if self.input_norm else nn.Identity()
        self.decoder_blocks = nn.ModuleList(
            CrossBlock(self.embed_dims, grid.embed_dims, self.num_heads, self.mlp_ratio) for _ in range(self.depth)
        )
        self.base_grid = (grid.height, grid.width)
        table = sincos_table(grid.height, grid.width, self.embed_dims)
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        self.decoder_pred = nn.Linear(self.embed_dims, out_dims)
        return self

    def init_weights(self) -> None:
        """Xavier linears, mask token N(0, 0.02), as MAE."""
        init_linears(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        latent: Tensor,
        order: Tensor,
        num_visible: int,
        num_patches: int | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Predict the hidden patches of each part, see ``MAEDecoder.forward``.

        Args:
            latent: (B*K, P+V, D).
            order: long (B*K, V+M), visible patches first; those that it leaves out are not predicted.
            num_visible: V.
            num_patches: N where ``order`` is shorter than that.
            grid: rows and columns of the patches, for images of another size than the encoder was built for.

        Returns:
            (B*K, M, out_dims) in the order of ``order[..., V:]``.
        """
        patches = num_patches or order.shape[-1]
        table = table_for(self.decoder_pos_embed, self.base_grid, grid, patches)
        context = self.decoder_norm_in(latent)
        x = self.mask_token + table[0][order[:, num_visible:]]  # in fp32, also under autocast
        for block in self.decoder_blocks:
            x = block(x, context)
        return self.decoder_pred(self.ln1(x))

    def forward_packed(self, latent: Tensor, packing: object, grid: tuple[int, int] | None = None) -> Tensor:
        raise NotImplementedError(
            'CrossAttentionDecoder wants parts of equal length: use a masker that hides the same number of patches in '
            'every image, or MAEDecoder'
        )
