"""The backbone config of an encoder from the shapes of its tensors, and from what no tensor tells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mim_mm.checkpoint.function import function_of
from mim_mm.checkpoint.keymap import rename_key
from mim_mm.checkpoint.read import LoadError

SWIN_EPS = 1e-5  # of mmpretrain, timm and the release
ACTIVATIONS = {
    'gelu': dict(type='GELU'),
    'gelu_tanh': dict(type='GELU', approximate='tanh'),
    'quick_gelu': dict(type='mmpretrain.QuickGELU'),
}
_TABLE = 'relative_position_bias_table'


def backbone_of(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], image_size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """The config of the backbone that computes what the tensors belong to.

    Args:
        tensors: of the encoder, without prefix, under timm's or mmpretrain's names.
        facts: ``heads``, a number or a mapping from (width, depth); ``norm_eps``; ``activation``; None: not known.
        image_size: (height, width) in pixels, where the position table is not of a square grid.

    Raises:
        LoadError: something that decides the features is not known, or no backbone has it.
    """
    if any(name.startswith('stages.') for name in tensors):
        return _swin(tensors, image_size)
    state = {rename_key(name): value for name, value in tensors.items()}
    if 'dist_token' in state:
        raise LoadError('dist_token is a distillation token (DeiT): not supported, take the file trained without it.')
    blocks = [int(found[1]) for name in state if (found := re.match(r'layers\.(\d+)\.', name))]
    projection = state.get('patch_embed.projection.weight')
    if not blocks or projection is None or projection.ndim != 4:
        raise LoadError('it has no blocks.0 or no convolution patch_embed.proj (MoCo v3 with a conv stem?): no ViT.')
    width, channels, *patch = projection.shape
    depth = max(blocks) + 1
    tables = [name for name in state if name.endswith(_TABLE)]
    heads = state[tables[0]].shape[1] if tables else _known('heads', facts, (width, depth))
    size = image_size or _image_size(state, tables, patch)
    config: dict[str, Any] = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(
            embed_dims=width, num_layers=depth, num_heads=heads, feedforward_channels=_hidden(state, width),
        ),
        img_size=size[0] if size[0] == size[1] else tuple(size),
        patch_size=patch[0] if patch[0] == patch[1] else tuple(patch),
        in_channels=channels,
        norm_cfg=dict(type='LN', eps=_known('norm_eps', facts)),
    )  # fmt: skip
    if width % heads:
        raise LoadError(f'{width} wide with {heads} heads: the width must be a multiple of the heads; set --heads.')
    _blocks(config, state, facts)
    _ends(config, state)
    if tables or 'layers.0.attn.q_bias' in state:
        _as_beit(config, state, tables)
    registers, classes = _prefix(state)
    if registers or classes > 1:
        if config['type'] != 'mmpretrain.VisionTransformer' or not classes:
            raise LoadError('registers without a class token, or with biases of BEiT: not supported.')
        config.update(type='mim_mm.RegisterViT', num_registers=registers, num_cls_tokens=classes)
    return config


def _prefix(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many registers there are, and how many class tokens."""
    registers = [v.shape[-2] for n, v in state.items() if re.fullmatch(r'(reg|register)_tokens?', n)]
    return sum(registers), state['cls_token'].shape[-2] if 'cls_token' in state else 0


def _known(what: str, facts: Mapping[str, Any], size: tuple[int, int] | None = None) -> Any:
    value = facts.get(what)
    if isinstance(value, Mapping):
        value = value.get(size)
    if value is None:
        option = {'heads': '--heads N', 'norm_eps': '--eps E', 'activation': '--activation gelu'}[what]
        of_size = f' of a ViT {size[0]} wide and {size[1]} deep' if size else ''
        raise LoadError(
            f'{what}{of_size}: no tensor tells it and this origin does not fix it, and another one computes other '
            f'features. Say it ({option}), or whose file it is (--origin).'
        )
    return value


def _image_size(state: Mapping[str, Tensor], tables: list[str], patch: list[int]) -> tuple[int, int]:
    positions = state.get('pos_embed')
    if positions is not None:
        if positions.ndim == 4:
            return positions.shape[1] * patch[0], positions.shape[2] * patch[1]
        rows, (registers, classes) = positions.shape[1], _prefix(state)
        # of class tokens and patches, of patches alone (timm's no_embed_class), or of registers too
        fitting = [r for r in (rows - (classes or 1), rows, rows - registers - 1) if r > 0 and math.isqrt(r) ** 2 == r]
        side = math.isqrt(fitting[0]) if fitting else None
        what = f'pos_embed has {rows} rows'
    elif tables:
        rows = state[tables[0]].shape[0] - 3
        side = (math.isqrt(rows) + 1) // 2 if math.isqrt(rows) ** 2 == rows else None
        what = f'{tables[0]} has {rows + 3} rows'
    else:
        raise LoadError('it has no table of positions: another kind of encoder (rotary positions?), not supported.')
    if side is None:
        raise LoadError(f'{what}, of no square grid: say its image size (--image-size HEIGHT WIDTH).')
    return side * patch[0], side * patch[1]


def _hidden(state: Mapping[str, Tensor], width: int) -> int:
    first = state.get('layers.0.ffn.layers.0.0.weight')
    if first is None:
        first = state.get('layers.0.ffn.w12.weight')
    if first is None:
        raise LoadError('its blocks have no MLP of two layers and no SwiGLU (w12, w3): not supported.')
    return _swiglu_setting(first.shape[0] // 2) if _is_swiglu(state) else first.shape[0]


def _is_swiglu(state: Mapping[str, Tensor]) -> bool:
    if 'layers.0.ffn.w12.weight' in state:
        return True
    first, second = state.get('layers.0.ffn.layers.0.0.weight'), state.get('layers.0.ffn.layers.1.weight')
    return first is not None and second is not None and first.shape[0] == 2 * second.shape[1]


def _swiglu_setting(hidden: int) -> int:
    """What to give mmpretrain, which takes 2 / 3 of it, up to a multiple of 8, as DINOv2 does."""
    found = next((n for n in range(hidden * 3 // 2 + 2, 0, -1) if (int(n * 2 / 3) + 7) // 8 * 8 == hidden), None)
    if found is None:
        raise LoadError(f'a SwiGLU with {hidden} hidden values, no multiple of 8 as in DINOv2: not supported.')
    return found


def _blocks(config: dict[str, Any], state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    layer: dict[str, Any] = {}
    if _is_swiglu(state):
        layer['ffn_type'] = 'swiglu_fused'
    else:
        activation = _known('activation', facts)
        if activation not in ACTIVATIONS:
            raise LoadError(f'activation {activation!r}: known here are {", ".join(ACTIVATIONS)}; not supported.')
        if activation != 'gelu':
            layer['act_cfg'] = ACTIVATIONS[activation]
    if layer:
        config['layer_cfgs'] = layer
    if any(re.search(r'\.(attn\.gamma1\.weight|gamma_1)$', name) for name in state):
        config['layer_scale_init_value'] = 1e-5
    if not any(re.search(r'\.attn\.(qkv\.bias|q_bias)$', name) for name in state):
        config['qkv_bias'] = False


def _ends(config: dict[str, Any], state: Mapping[str, Tensor]) -> None:
    """Class token, norms before and after the blocks, and what comes out."""
    if 'cls_token' not in state:
        config['with_cls_token'] = False
    if 'pre_norm.weight' in state:
        config['pre_norm'] = True
        if 'patch_embed.projection.bias' in state:
            config['patch_cfg'] = dict(bias=True)
    pooled = 'ln2.weight' in state and 'ln1.weight' not in state
    config.update(out_type='avg_featmap' if pooled else 'raw', final_norm='ln1.weight' in state)


def _as_beit(config: dict[str, Any], state: Mapping[str, Tensor], tables: list[str]) -> None:
    """The config in the words of ``BEiTViT``, which keeps the two biases apart and has relative positions."""
    for key in ('with_cls_token', 'pre_norm'):
        if key in config:
            raise LoadError(f"BEiT's biases with {key}={config[key]}: no backbone here has both; not supported.")
    if 'ffn_type' in config.get('layer_cfgs', {}):
        raise LoadError("BEiT's biases with a SwiGLU (EVA): no backbone here has both; not supported.")
    bias = config.pop('qkv_bias', True) and ('qv_bias' if 'layers.0.attn.q_bias' in state else True)
    shared = f'rel_pos_bias.{_TABLE}' in tables
    config.setdefault('layer_scale_init_value', 0.0)
    config.update(
        type='mmpretrain.BEiTViT',
        bias=bias,
        use_abs_pos_emb='pos_embed' in state,
        use_rel_pos_bias=bool(tables) and not shared,
        use_shared_rel_pos_bias=shared,
    )


def _swin(state: Mapping[str, Tensor], image_size: tuple[int, int] | None) -> dict[str, Any]:
    width, channels, patch, _ = state['patch_embed.projection.weight'].shape
    found = [re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', name) for name in state]
    places = {(int(match[1]), int(match[2])) for match in found if match}
    stages = max(stage for stage, _ in places) + 1
    tables = [state[f'stages.{stage}.blocks.0.attn.w_msa.{_TABLE}'] for stage in range(stages)]
    windows = [(math.isqrt(len(table)) + 1) // 2 for table in tables]
    if image_size is None:  # where a map is smaller than a window, timm and the releases shrink the window
        image_size = (windows[0] * patch * 2 ** (stages - 1),) * 2
    config = dict(
        type='mmpretrain.SwinTransformer',
        arch=dict(
            embed_dims=width,
            depths=[sum(stage == number for stage, _ in places) for number in range(stages)],
            num_heads=[table.shape[1] for table in tables],
        ),
        img_size=image_size[0] if image_size[0] == image_size[1] else tuple(image_size),
        patch_size=patch,
        in_channels=channels,
        window_size=windows[0],
        drop_path_rate=0.0,
        out_indices=(stages - 1,),
    )
    if len(set(windows)) > 1:
        config['stage_cfgs'] = [dict(block_cfgs=dict(window_size=window)) for window in windows]
        raise LoadError(f'windows of {windows} tokens in its stages: one size for all is supported.')
    return config


def facts_of(config: Mapping[str, Any], module) -> dict[str, Any]:
    """What a written file says of its encoder: the config, and :func:`mim_mm.checkpoint.function.function_of` it."""
    return {**function_of(module), 'config': dict(config)}
