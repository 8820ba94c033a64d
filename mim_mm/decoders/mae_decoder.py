"""The light decoder of MAE (He et al. 2022, section 3), run in permuted order.

A transformer does not care in which order its tokens come, so the tokens are never put back in image order: the
sequence is [prefix | visible | hidden] of each part, with the position table gathered in that order. Nothing wide is
unshuffled, shapes are static, and the pixel head runs on hidden patches only.
"""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mim_mm.compat.initializers import trunc_normal_
from mim_mm.encoders.fused import fuse_attention
from mim_mm.encoders.grid import Grid
from mim_mm.encoders.packed import Packing
from mim_mm.encoders.positions import init_linears, sincos_table, table_for
from mim_mm.registry import MODELS


@MODELS.register_module()
class MAEDecoder(BaseModule):
    """Linear to ``embed_dims``, blocks over visible and mask tokens, LayerNorm, linear to the patch values.

    Module names follow mmpretrain's ``MAEPretrainDecoder``, whose weights load. Call :meth:`build_for` before use.

    Args:
        embed_dims: width, 512 in MAE for every encoder.
        depth: blocks, 8 in MAE.
        num_heads: 16 in MAE.
        mlp_ratio: hidden width of the MLPs over ``embed_dims``.
        input_norm: LayerNorm on the latent, for encoders without a final norm (HiViT).
        fp32_head: the last norm and the prediction head in fp32, also under autocast. EMAE's recipes do so: its
            consistency term compares predictions with one another, and where they agree, what is left in bf16 is
            rounding (docs/results/cpu_steps.md). The head is 0.6 % of a step's FLOPs.
        positions: 'sincos' (fixed, prefix rows zero) or 'learned' (truncated normal, std 0.02, prefix rows
            too), as in Pixio.
    """

    def __init__(
        self,
        embed_dims: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        input_norm: bool = False,
        fp32_head: bool = False,
        positions: str = 'sincos',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims {embed_dims} is not divisible by num_heads {num_heads}: change one of them')
        if positions not in ('sincos', 'learned'):
            raise ValueError(f"positions is '{positions}': use 'sincos' (fixed, as MAE) or 'learned'")
        self.embed_dims = embed_dims
        self.positions = positions
        self.input_norm = input_norm
        self.fp32_head = fp32_head
        norm_cfg = dict(type='LN', eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.decoder_blocks = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, int(mlp_ratio * embed_dims), norm_cfg=norm_cfg)
            for _ in range(depth)
        )
        fuse_attention(self.decoder_blocks)
        self.ln1 = nn.LayerNorm(embed_dims, eps=1e-6)

    def build_for(self, grid: Grid, out_dims: int) -> MAEDecoder:
        """Create the layers whose shape the encoder fixes: input projection, positions and prediction head.

        Args:
            grid: geometry of the encoder.
            out_dims: values predicted a patch, p*p*3 for pixels.
        """
        self.num_prefix = grid.num_prefix
        self.base_grid = (grid.height, grid.width)
        self.decoder_norm_in = nn.LayerNorm(grid.embed_dims, eps=1e-6) if self.input_norm else nn.Identity()
        self.decoder_embed = nn.Linear(grid.embed_dims, self.embed_dims)
        table = sincos_table(grid.height, grid.width, self.embed_dims, grid.num_prefix)
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=self.positions == 'learned')
        self.decoder_pred = nn.Linear(self.embed_dims, out_dims)
        return self

    def init_weights(self) -> None:
        """Xavier linears, mask token N(0, 0.02), as MAE."""
        init_linears(self)
        nn.init.normal_(self.mask_token, std=0.02)
        if self.positions == 'learned':
            trunc_normal_(self.decoder_pos_embed, std=0.02)

    def forward(
        self,
        latent: Tensor,
        order: Tensor,
        num_visible: int,
        num_patches: int | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Predict the hidden patches of each part.

        Args:
            latent: (B*K, P+V, D), prefix tokens first, patches in the order of ``order[..., :V]``.
            order: long (B*K, N), see :class:`mim_mm.masking.MaskPlan`.
            num_visible: V.
            num_patches: N, where ``order`` leaves out patches that are thrown away; these get no token at all.
            grid: rows and columns of the patches, for images of another size than the encoder was built for.

        Returns:
            (B*K, N-V, out_dims) in the order of ``order[..., V:]``.
        """
        x = self._complete(latent, order, num_visible, num_patches, grid)
        return self._predict(x[:, self.num_prefix + num_visible :])

    def forward_everywhere(
        self,
        latent: Tensor,
        order: Tensor,
        num_visible: int,
        num_patches: int | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """:meth:`forward` for visible patches too: (B*K, N, out_dims) in the order of ``order``."""
        return self._predict(self._complete(latent, order, num_visible, num_patches, grid)[:, self.num_prefix :])

    def _complete(self, latent: Tensor, order: Tensor, num_visible: int, num_patches: int | None, grid) -> Tensor:
        """Visible and mask tokens after the blocks, (B*K, P+N, D')."""
        rows, patches = order.shape
        table = table_for(self.decoder_pos_embed, self.base_grid, grid, num_patches or patches, self.num_prefix)
        x = self._enter(latent)
        hidden = self.mask_token.expand(rows, patches - num_visible, -1)
        return self._run_blocks(torch.cat([x, hidden], dim=1), order, table)

    def forward_packed(self, latent: Tensor, packing: Packing, grid: tuple[int, int] | None = None) -> Tensor:
        """Predict the hidden patches of parts that see different numbers of patches.

        Every part has P+N tokens here, however few the encoder saw, so the batch is rectangular: only its entrance and
        the head, which runs on hidden patches alone, are packed.

        Args:
            latent: (T, D) from ``encode_packed``.
            grid: see :meth:`forward`.

        Returns:
            (H, out_dims) in the order of ``MaskPlan.hidden_index``.
        """
        x = self._complete_packed(latent, packing, grid)
        return self._predict(x.flatten(0, 1).index_select(0, packing.hidden))

    def forward_everywhere_packed(
        self, latent: Tensor, packing: Packing, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """:meth:`forward_packed` for visible patches too: (rows, N, out_dims) in the order of ``packing.order``."""
        return self._predict(self._complete_packed(latent, packing, grid)[:, self.num_prefix :])

    def _complete_packed(self, latent: Tensor, packing: Packing, grid: tuple[int, int] | None) -> Tensor:
        """Visible and mask tokens of every part after the blocks, (rows, P+N, D')."""
        rows, patches = packing.order.shape
        table = table_for(self.decoder_pos_embed, self.base_grid, grid, patches, self.num_prefix)
        x = self._enter(latent)
        # Mask tokens everywhere, then latents written over the first places: gathering both from one list would make
        # the backward pass add thousands of gradients into the one line of the mask token, one by one.
        blank = self.mask_token[0].expand(rows * (self.num_prefix + patches), -1)
        x = blank.index_copy(0, packing.destination, x)
        return self._run_blocks(x.unflatten(0, (rows, -1)), packing.order, table)

    def _enter(self, latent: Tensor) -> Tensor:
        """The latent at the decoder's width, in the type of the parameters and not of autocast.

        What the blocks add their results to stays in fp32 then, as it does in the encoder and in MAE's release. In bf16
        its rounding alone keeps the parts of an EMAE from agreeing below 0.005 (docs/results/cpu_steps.md).
        """
        return self.decoder_embed(self.decoder_norm_in(latent)).to(self.mask_token.dtype)

    def _predict(self, x: Tensor) -> Tensor:
        if not self.fp32_head:
            return self.decoder_pred(self.ln1(x))
        with torch.autocast(x.device.type, enabled=False):
            return self.decoder_pred(self.ln1(x.to(self.ln1.weight.dtype)))

    def _run_blocks(self, x: Tensor, order: Tensor, table: Tensor) -> Tensor:
        """Positions (1, P+N, D') in the order of the tokens, then the blocks: (rows, P+N, D') to the same."""
        table = table[0]
        places = table[self.num_prefix :]
        if self.decoder_pos_embed.requires_grad:  # a gradient for each row, added up at the end, not one by one
            positions = places.expand(len(x), -1, -1).gather(1, order[..., None].expand(-1, -1, places.shape[-1]))
        else:
            positions = places[order]
        if self.num_prefix:
            positions = torch.cat([table[: self.num_prefix].expand(len(x), -1, -1), positions], dim=1)
        x = x + positions
        for block in self.decoder_blocks:
            x = block(x)
        return x
