"""A plain ViT as the backbone of a detector: windows in most blocks, global attention in a few, any input size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.utils import to_2tuple
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mim_mm.detection.relative_positions import RelPosAttention, SharedRelPosBias, join_windows, partition_windows
from mim_mm.encoders.post_norm import PostNormLayer, norms_behind
from mim_mm.registry import MODELS

REL_POS = ('none', 'decomposed', 'shared_bias')
POS_EMBED_MODES = ('native', 'fixed')


@MODELS.register_module()
class WindowedViT(VisionTransformer):
    """ViT for detection after Li et al. 2021 (Benchmarking detection transfer) and 2022 (ViTDet).

    Parameters carry the names of mmpretrain's ``VisionTransformer``, so a pretraining checkpoint loads as it is; only
    the relative position tables are new. There is no class token.

    Args:
        arch: name in mmpretrain's zoo (``'base'``, ``'deit-small'``, ...) or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads``, ``feedforward_channels`` and, if wanted, ``global_attn_indexes``.
        img_size: usual (padded) input in pixels; decides the tables of the global blocks and, with
            ``pos_embed_mode='fixed'``, the position table. Other sizes run as well.
        pretrain_img_size: input size of the pretraining, in pixels.
        window_size: side of a window in tokens; 0 makes every block global. A window larger than the map is
            cut to the map.
        global_attn_indexes: blocks with global attention. Default: the last of four equal groups.
        rel_pos: ``'decomposed'`` (ViTDet: tables in every block, unscaled query), ``'shared_bias'`` (BEiT-style,
            one table for all windowed and one for all global blocks) or ``'none'``. All start at zero.
        pos_embed_mode: ``'native'``: the table keeps the pretraining grid and is resized in every forward pass
            (ViTDet); ``'fixed'``: it is resized once, while loading, to the grid of ``img_size``.
        out_indices: blocks whose output is returned.
        final_norm: normalise the output of the last block.
        with_cp: recompute the blocks in the backward pass to save memory.
        post_norm: norms behind the residuals and one in front of the first block, for encoders of ``PostNormViT``.
        kwargs: ``patch_size``, ``drop_path_rate``, ``layer_scale_init_value``, ... of ``VisionTransformer``.

    Raises:
        ValueError: Unknown ``rel_pos`` or ``pos_embed_mode``; a block index outside of the depth; a depth that four
            does not divide when ``global_attn_indexes`` is not given.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | tuple[int, int] = 1024,
        pretrain_img_size: int = 224,
        window_size: int = 16,
        global_attn_indexes: Sequence[int] | None = None,
        rel_pos: str = 'decomposed',
        pos_embed_mode: str = 'native',
        out_indices: Sequence[int] = (-1,),
        final_norm: bool = False,
        with_cp: bool = False,
        post_norm: bool = False,
        init_cfg=None,
        **kwargs,
    ):
        _check_choice('rel_pos', rel_pos, REL_POS)
        _check_choice('pos_embed_mode', pos_embed_mode, POS_EMBED_MODES)
        if 'out_type' in kwargs or 'with_cls_token' in kwargs:
            raise ValueError('WindowedViT returns maps and has no class token: remove out_type and with_cls_token.')
        if post_norm:
            # mmpretrain's patch embedding loses its bias where a norm follows.
            kwargs.update(pre_norm=True, patch_cfg={'bias': True, **kwargs.get('patch_cfg', {})})
        super().__init__(
            arch=arch,
            img_size=img_size if pos_embed_mode == 'fixed' else pretrain_img_size,
            out_indices=list(out_indices),
            out_type='featmap',
            with_cls_token=False,
            final_norm=final_norm,
            init_cfg=init_cfg,
            **kwargs,
        )
        patch = to_2tuple(kwargs.get('patch_size', 16))
        self.target_grid = tuple(math.ceil(s / p) for s, p in zip(to_2tuple(img_size), patch))
        self.window_size = window_size
        self.rel_pos = rel_pos
        self.with_cp = with_cp
        wanted = self.arch_settings.get('global_attn_indexes') if global_attn_indexes is None else global_attn_indexes
        self.global_attn_indexes = _global_blocks(wanted, self.num_layers)
        self._replace_attention(kwargs)
        if post_norm:
            norms_behind(self.layers)
        if rel_pos == 'shared_bias':
            heads = self.arch_settings['num_heads']
            self.rel_pos_global = SharedRelPosBias(self.target_grid, heads)
            if any(self._is_windowed(i) for i in range(self.num_layers)):
                self.rel_pos_window = SharedRelPosBias(self._window(self.target_grid), heads)

    def _is_windowed(self, index: int) -> bool:
        return self.window_size > 0 and index not in self.global_attn_indexes

    def _window(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Window (h, w) for a map of ``grid`` = (H, W)."""
        return min(self.window_size, grid[0]), min(self.window_size, grid[1])

    def _replace_attention(self, options: dict) -> None:
        rates = torch.linspace(0, options.get('drop_path_rate', 0.0), self.num_layers, device='cpu').tolist()
        for index, layer in enumerate(self.layers):
            grid = self._window(self.target_grid) if self._is_windowed(index) else self.target_grid
            layer.attn = RelPosAttention(
                self.embed_dims,
                self.arch_settings['num_heads'],
                proj_drop=options.get('drop_rate', 0.0),
                # Plain floats: numpy scalars, which mmpretrain passes on, break torch.compile and tensor-only files.
                dropout_layer=dict(type='DropPath', drop_prob=rates[index]),
                qkv_bias=options.get('qkv_bias', True),
                layer_scale_init_value=options.get('layer_scale_init_value', 0.0),
                rel_pos_size=grid if self.rel_pos == 'decomposed' else None,
            )
            if hasattr(layer.ffn, 'dropout_layer') and hasattr(layer.ffn.dropout_layer, 'drop_prob'):
                layer.ffn.dropout_layer.drop_prob = rates[index]

    def _prepare_pos_embed(self, state_dict, prefix, *args, **kwargs):
        """Bring a stored table (1, 1+hw, C), (1, hw, C) or (1, h, w, C) to this model's grid while loading."""
        name = prefix + 'pos_embed'
        if name not in state_dict:
            return
        table = state_dict[name]
        if table.ndim == 4:
            grid = tuple(table.shape[1:3])
            table = table.flatten(1, 2)
        elif table.shape == self.pos_embed.shape:
            return
        else:
            grid, extra = _square_grid(table.shape[1])
            table = table[:, extra:]
        state_dict[name] = resize_pos_embed(table, grid, self.patch_resolution, self.interpolate_mode, 0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) -> maps (B, C, H/p, W/p), one for each of ``out_indices``."""
        x, grid = self.patch_embed(x)
        x = x + resize_pos_embed(self.pos_embed, self.patch_resolution, grid, self.interpolate_mode, 0)
        x = self.pre_norm(self.drop_after_pos(x)).unflatten(1, grid)
        window = self._window(grid)
        bias_global = bias_window = None
        if self.rel_pos == 'shared_bias':
            bias_global = self.rel_pos_global(grid)
            bias_window = self.rel_pos_window(window) if hasattr(self, 'rel_pos_window') else None
        outs = []
        for index, layer in enumerate(self.layers):
            args = (layer, x, window, bias_window) if self._is_windowed(index) else (layer, x, None, bias_global)
            if self.with_cp and self.training:
                x = checkpoint(_run_block, *args, use_reentrant=False)
            else:
                x = _run_block(*args)
            if index == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if index in self.out_indices:
                outs.append(x.permute(0, 3, 1, 2).contiguous())
        return tuple(outs)


def _run_block(layer: nn.Module, x: Tensor, window: tuple[int, int] | None, bias: Tensor | None) -> Tensor:
    """One transformer block on a map (B, H, W, C); ``window`` None means global attention."""
    size, post_norm = x.shape[1:3], isinstance(layer, PostNormLayer)
    y = x if post_norm else layer.ln1(x)
    if window is None:
        y = layer.attn(y, bias)
    else:
        y, padded = partition_windows(y, window)
        y = join_windows(layer.attn(y, bias), padded, size)
    x = x + layer.attn.out_drop(y)
    return layer.behind_attention(x) if post_norm else layer.ffn(layer.ln2(x), identity=x)


def _global_blocks(indexes: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    if indexes is None:
        if depth % 4:
            raise ValueError(f'The depth {depth} is no multiple of 4: give global_attn_indexes.')
        return tuple(depth // 4 * (group + 1) - 1 for group in range(4))
    wrong = [i for i in indexes if not 0 <= i < depth]
    if wrong:
        raise ValueError(f'global_attn_indexes {wrong} lie outside of the blocks 0..{depth - 1}: correct them.')
    return tuple(sorted(indexes))


def _square_grid(rows: int) -> tuple[tuple[int, int], int]:
    """Grid and number of leading class rows of a table with ``rows`` rows: a square, or a square plus one."""
    for extra in (0, 1):
        side = math.isqrt(rows - extra)
        if side * side == rows - extra:
            return (side, side), extra
    raise ValueError(
        f'A position table of {rows} rows is neither a square grid nor a square grid and a class token: '
        f'reshape it to (1, h, w, C) first.'
    )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name}={value!r} is unknown: choose one of {", ".join(choices)}.')
