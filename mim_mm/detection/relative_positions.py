"""Attention of a windowed ViT: windows, two kinds of relative position terms, no N x N tensor where none is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from mim_mm.encoders.fused import attention

# The largest head width for which every fused attention kernel of torch (flash on CUDA included) is available.
MAX_FUSED_HEAD_DIM = 256


def partition_windows(x: Tensor, window: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Cut a map into windows that do not overlap.

    Args:
        x: (B, H, W, C).
        window: height and width of a window, in tokens.

    Returns:
        windows (B * n, h, w, C) and the padded (H', W'). Rows and columns of zeros are added at the bottom and
        the right when the map is not a multiple of the window; like ViTDet (Li et al. 2022, section 3) the added
        tokens take part in the attention of their window.
    """
    batch, height, width, channels = x.shape
    wh, ww = window
    bottom, right = -height % wh, -width % ww
    if bottom or right:
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
    padded = (height + bottom, width + right)
    x = x.view(batch, padded[0] // wh, wh, padded[1] // ww, ww, channels)
    return x.transpose(2, 3).reshape(-1, wh, ww, channels), padded


def join_windows(windows: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Inverse of :func:`partition_windows`: (B * n, h, w, C) -> (B, H, W, C) with ``size`` = (H, W)."""
    _, wh, ww, channels = windows.shape
    rows, cols = padded[0] // wh, padded[1] // ww
    x = windows.view(-1, rows, cols, wh, ww, channels).transpose(2, 3).reshape(-1, *padded, channels)
    return x[:, : size[0], : size[1]].contiguous()


def _fit_offsets(table: Tensor, length: int) -> Tensor:
    """Table (L, C) over the offsets -(n-1)..(n-1) -> the same for another n, with ``length`` = 2n - 1 rows.

    A smaller grid takes the middle rows, so that a distance keeps its meaning; a larger one interpolates linearly.
    """
    if table.shape[0] == length:
        return table
    if table.shape[0] > length:
        start = (table.shape[0] - length) // 2
        return table[start : start + length]
    return F.interpolate(table.t()[None], size=length, mode='linear', align_corners=False)[0].t()


class SharedRelPosBias(nn.Module):
    """One learnt bias a head and offset (BEiT, Bao et al. 2021), shared by all blocks that are given its output.

    Args:
        size: largest (H, W) of the token grid, in tokens.
        num_heads: heads.

    ``relative_position_bias_table`` is ((2H-1) * (2W-1), heads), zeros at the start, laid out as in BEiT without its
    three entries for the class token.
    """

    def __init__(self, size: tuple[int, int], num_heads: int):
        super().__init__()
        self.size = tuple(size)
        rows, cols = 2 * size[0] - 1, 2 * size[1] - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows * cols, num_heads))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Bias (heads, N, N) for a grid of ``size`` = (H, W): element (query, key) is table[query - key]."""
        height, width = size
        table = self.relative_position_bias_table
        table = table.t().view(-1, 2 * self.size[0] - 1, 2 * self.size[1] - 1)
        if height > self.size[0] or width > self.size[1]:
            wanted = (2 * max(height, self.size[0]) - 1, 2 * max(width, self.size[1]) - 1)
            table = F.interpolate(table[None].float(), size=wanted, mode='bicubic', align_corners=False)[0]
        top, left = (table.shape[1] + 1) // 2 - height, (table.shape[2] + 1) // 2 - width
        table = table[:, top : top + 2 * height - 1, left : left + 2 * width - 1]
        # Views that slide over the table give every (query + reversed key) pair; an index tensor of N x N entries and
        # its scatter in the backward pass are not needed.
        pairs = table.unfold(1, height, 1).unfold(2, width, 1).flip(-2, -1)
        return pairs.reshape(-1, height * width, height * width)


class RelPosAttention(MultiheadAttention):
    """mmpretrain's ``MultiheadAttention`` on maps, with optional decomposed relative positions of ViTDet.

    Args:
        rel_pos_size: (H, W) of the grid this block attends over. None: no decomposed tables.
        fold: carry the relative positions inside wider queries and keys instead of a bias tensor (see
            ``_fold``). Same result, no (B, heads, N, N) tensor. Falls back by itself above 256 channels a head.

    The stochastic depth of the parent (``out_drop``) is *not* applied here: inside a window it would drop single
    windows of an image. The backbone applies it to the whole map.
    """

    def __init__(self, *args, rel_pos_size: tuple[int, int] | None = None, fold: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self.fold = fold
        self.decomposed = rel_pos_size is not None
        if self.decomposed:
            height, width = rel_pos_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, self.head_dims))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, self.head_dims))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); ``bias`` (heads, N, N) is added to the logits, N = H * W."""
        batch, height, width, _ = x.shape
        tokens = height * width
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dims)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.decomposed:
            rows, cols = self._offset_terms(query, height, width)
            if self.fold and self.head_dims + height + width <= MAX_FUSED_HEAD_DIM:
                query, key, value = self._fold(query, key, value, rows, cols)
            else:
                bias = (rows[..., :, None] + cols[..., None, :]).flatten(-2)
        dropout = self.attn_drop if self.training else 0.0
        if bias is not None:
            bias = bias.to(query.dtype).expand(batch, -1, -1, -1)  # the fused kernels want four dimensions
        out = attention(query, key, value, bias, dropout, scale=self.head_dims**-0.5)[..., : self.head_dims]
        out = out.transpose(1, 2).reshape(batch, height, width, self.embed_dims)
        return self.gamma1(self.proj_drop(self.proj(out)))

    def _offset_terms(self, query: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Row and column terms (B, heads, N, H) and (B, heads, N, W) of the logits; the query is not scaled."""
        maps = query.unflatten(2, (height, width))
        row_table = _fit_offsets(self.rel_pos_h, 2 * height - 1).to(query.dtype)
        col_table = _fit_offsets(self.rel_pos_w, 2 * width - 1).to(query.dtype)
        # unfold(...)[i, :, k] is table[i + k]; flipping k gives table[i - k + n - 1], the offset query - key.
        row_pairs = row_table.unfold(0, height, 1).flip(-1)
        col_pairs = col_table.unfold(0, width, 1).flip(-1)
        rows = torch.einsum('bnijc,ick->bnijk', maps, row_pairs)
        cols = torch.einsum('bnijc,jcl->bnijl', maps, col_pairs)
        return rows.flatten(2, 3), cols.flatten(2, 3)

    def _fold(self, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, cols: Tensor):
        """Append the terms to the queries and one-hot row and column numbers to the keys.

        The product of the appended parts is rows[query, row of key] + cols[query, column of key]. The one-hot entries
        are sqrt(head width), because the kernel multiplies all products by 1 / sqrt(head width).
        """
        height, width = rows.shape[-1], cols.shape[-1]
        marks = key.new_zeros(height, width, height + width)
        marks[:, :, :height] = torch.eye(height, device=key.device, dtype=key.dtype)[:, None]
        marks[:, :, height:] = torch.eye(width, device=key.device, dtype=key.dtype)[None]
        marks = (marks * self.head_dims**0.5).flatten(0, 1).expand(*key.shape[:2], -1, -1)
        query = torch.cat((query, rows.to(query.dtype), cols.to(query.dtype)), dim=-1)
        # Fused kernels want one width for all three; the added columns of the output are zero and cut off.
        return query, torch.cat((key, marks), dim=-1), F.pad(value, (0, height + width))
