"""What other libraries call an encoder of ours: the config, the tensors, and what each of them cannot compute.

Each function takes the canonical backbone config (:mod:`mim_mm.weights.own`) and the encoder's tensors under
mmpretrain's names, and gives the arguments of the other library and its tensors. What a library has no place for is
refused, with another target in the message: nothing is folded, cut or left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mim_mm.checkpoint.read import LoadError
from mim_mm.weights.names import renamed, to_hugging_face, to_swin, to_torchvision

_BACK = (
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'^layers\.', 'blocks.'),
    (r'^(blocks\.\d+)\.ln([12])\.', r'\1.norm\2.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
    (r'\.attn\.gamma1\.weight$', '.gamma_1'),
    (r'\.ffn\.gamma2\.weight$', '.gamma_2'),
    (r'\.ffn\.(w12|w3)\.', r'.mlp.\1.'),
    (r'^pre_norm\.', 'norm_pre.'),
    (r'^ln1\.', 'norm.'),
    (r'^ln2\.', 'fc_norm.'),
)
_HF_ACTIVATIONS = {'gelu': 'gelu', 'gelu_tanh': 'gelu_pytorch_tanh', 'quick_gelu': 'quick_gelu'}
_TIMM_SIZES = {  # (width, depth, heads): its name; where a size has none, ViT-B's with other arguments
    (192, 12, 3): 'vit_tiny_patch16_224', (768, 12, 12): 'vit_base_patch16_224',
    (384, 12, 6): 'vit_small_patch16_224',
    (1024, 24, 16): 'vit_large_patch16_224',
    (1280, 32, 16): 'vit_huge_patch14_224',
}  # fmt: skip
# Arguments at which timm's ViTs are without them.
_TIMM_DEFAULTS = dict(
    img_size=224, patch_size=16, in_chans=3, mlp_ratio=4.0, qkv_bias=True, init_values=None, class_token=True,
    pre_norm=False, fc_norm=False, final_norm=True,
)  # fmt: skip


class Cannot(LoadError):
    """A library has no place for something of the encoder."""

    def __init__(self, library: str, what: str, instead: str) -> None:
        super().__init__(f'{what}: {library} cannot compute that. Take {instead}.')


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmpretrain's names as timm's, layer scale as ``gamma_1``, as BEiT has it."""
    return renamed(state, _BACK)


def _sizes(config: Mapping[str, Any]) -> tuple[int, int, int, int]:
    return tuple(config['arch'][k] for k in ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels'))


def _epsilon(config: Mapping[str, Any]) -> float:
    return config['norm_cfg']['eps']


def _activation(config: Mapping[str, Any]) -> str:
    settings = (config.get('layer_cfgs') or {}).get('act_cfg') or dict(type='GELU')
    if settings['type'] == 'mmpretrain.QuickGELU':
        return 'quick_gelu'
    return 'gelu_tanh' if settings.get('approximate') == 'tanh' else 'gelu'


def _one_class_token(library: str, config: Mapping[str, Any]) -> None:
    if config.get('num_cls_tokens', 1) > 1:
        raise Cannot(library, f'{config["num_cls_tokens"]} class tokens', '--to safetensors or mmpretrain')


def _swiglu(config: Mapping[str, Any]) -> bool:
    return (config.get('layer_cfgs') or {}).get('ffn_type') == 'swiglu_fused'


# ---------------------------------------------------------------- timm


def for_timm(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Architecture, arguments of ``timm.create_model`` and tensors.

    Raises:
        Cannot: another epsilon than timm's, or another activation in BEiT.
    """
    if config['type'].endswith('SwinTransformer'):
        return _timm_swin(config, state)
    if _epsilon(config) != 1e-6:
        raise Cannot('timm', f'LayerNorms with epsilon {_epsilon(config):g} (its ViTs have 1e-6)', '--to hf')
    width, depth, heads, hidden = _sizes(config)
    tensors = plain_names(state)
    _one_class_token('timm', config)
    args: dict[str, Any] = dict(
        img_size=config['img_size'], patch_size=config['patch_size'], in_chans=config['in_channels'], embed_dim=width,
        depth=depth, num_heads=heads, mlp_ratio=hidden / width, num_classes=0,
        global_pool='token' if config['final_norm'] else 'avg',
    )  # fmt: skip
    if config['type'].endswith('BEiTViT'):
        return _timm_beit(config, tensors, args)
    scale = 'blocks.0.gamma_1' in tensors
    swiglu = _swiglu(config)
    if swiglu:  # both inputs in fc1
        args['mlp_ratio'] = tensors['blocks.0.mlp.w12.weight'].shape[0] / width
    args.update(
        qkv_bias=config.get('qkv_bias', True), init_values=1e-5 if scale else None,
        class_token=config.get('with_cls_token', True), pre_norm=config.get('pre_norm', False),
        fc_norm='fc_norm.weight' in tensors, final_norm=config['final_norm'] or 'fc_norm.weight' in tensors,
    )  # fmt: skip
    if not args['class_token']:
        args['global_pool'] = 'avg'
    if args['pre_norm'] and 'patch_embed.proj.bias' in tensors:
        raise Cannot('timm', 'a bias of the patches before a norm', '--to safetensors')
    if not swiglu and _activation(config) != 'gelu':
        args['act_layer'] = _activation(config)
    if 'register_tokens' in tensors:  # timm adds positions to the patches alone, and has that of the class inside it
        positions = tensors['pos_embed']
        tensors['reg_token'] = tensors.pop('register_tokens')
        tensors['cls_token'] = tensors['cls_token'] + positions[:, :1]
        tensors['pos_embed'] = positions[:, 1:]
        args.update(reg_tokens=tensors['reg_token'].shape[1], no_embed_class=True)
    named = {'gamma_1': 'ls1.gamma', 'gamma_2': 'ls2.gamma'}
    tensors = {re.sub(r'gamma_[12]$', lambda m: named[m[0]], name): value for name, value in tensors.items()}
    tensors = {
        name.replace('.mlp.w12.', '.mlp.fc1.').replace('.mlp.w3.', '.mlp.fc2.'): v for name, v in tensors.items()
    }
    if swiglu:
        return 'vit_giant_patch14_dinov2', args, tensors
    name = _TIMM_SIZES.get((width, depth, heads))
    defaults = dict(_TIMM_DEFAULTS, patch_size=14 if name == 'vit_huge_patch14_224' else 16)
    if name:
        defaults.update(embed_dim=width, depth=depth, num_heads=heads)
    if args['global_pool'] == 'avg':
        del defaults['fc_norm']
    kept = {key: value for key, value in args.items() if key not in defaults or value != defaults[key]}
    return name or 'vit_base_patch16_224', kept, tensors


def _timm_beit(
    config: Mapping[str, Any], tensors: dict[str, Tensor], args: dict[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    if _activation(config) != 'gelu':
        raise Cannot('timm', f'BEiT with {_activation(config)}', '--to hf')
    pooled = 'fc_norm.weight' in tensors
    if not pooled and not config['final_norm']:
        raise Cannot('timm', 'BEiT without a norm at its end', '--to hf')
    for name in [n for n in tensors if n.endswith('attn.qkv.bias')]:  # the bias of keys cancels in the softmax
        query, _, value = tensors.pop(name).chunk(3)
        stem = name.removesuffix('qkv.bias')
        tensors.update({f'{stem}q_bias': query.clone(), f'{stem}v_bias': value.clone()})
    args.update(
        qkv_bias=bool(config['bias']), init_values=config['layer_scale_init_value'] or None, use_fc_norm=pooled,
        use_abs_pos_emb=config['use_abs_pos_emb'], use_rel_pos_bias=config['use_rel_pos_bias'],
        use_shared_rel_pos_bias=config['use_shared_rel_pos_bias'],
    )  # fmt: skip
    return 'beit_base_patch16_224', args, tensors


def _timm_swin(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    args = dict(
        img_size=config['img_size'], patch_size=config['patch_size'], in_chans=config['in_channels'],
        embed_dim=config['arch']['embed_dims'], depths=list(config['arch']['depths']),
        num_heads=list(config['arch']['num_heads']), window_size=config['window_size'], num_classes=0,
    )  # fmt: skip
    return 'swin_base_patch4_window7_224', args, to_swin(state)


# ---------------------------------------------------------------- Hugging Face


def for_hugging_face(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], dict]:
    """Class, ``config.json`` and tensors.

    Raises:
        Cannot: Swin, a norm before the blocks, images that are not square, a norm after pooling in a plain ViT.
    """
    if config['type'].endswith('SwinTransformer'):
        raise Cannot('this export', 'Swin under the names of Hugging Face', '--to timm')
    if not isinstance(config['img_size'], int) or not isinstance(config['patch_size'], int):
        raise Cannot(
            'Hugging Face', f'images of {config["img_size"]} px in patches of {config["patch_size"]}', '--to timm'
        )
    if config.get('pre_norm'):
        raise Cannot("Hugging Face's ViTModel", 'a norm before the blocks', '--to timm')
    width, depth, heads, hidden = _sizes(config)
    tensors = plain_names(state)
    _one_class_token('Hugging Face', config)
    common: dict[str, Any] = dict(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=hidden,
        image_size=config['img_size'], patch_size=config['patch_size'], num_channels=config['in_channels'],
        hidden_act=_HF_ACTIVATIONS[_activation(config)], layer_norm_eps=_epsilon(config),
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.0, torch_dtype='float32',
    )  # fmt: skip
    if config['type'].endswith('BEiTViT'):
        kind, name = 'beit', 'BeitModel'
        _hf_beit(config, tensors, common)
    else:
        if not config['final_norm']:
            raise Cannot('Hugging Face', 'a plain ViT without a norm before pooling', '--to timm')
        kind, name = _hf_vit(config, tensors, common)
    return name, dict(architectures=[name], model_type=kind, **common), to_hugging_face(tensors, kind)


def _hf_beit(config: Mapping[str, Any], tensors: dict[str, Tensor], common: dict[str, Any]) -> None:
    if not config['bias']:
        raise Cannot('Hugging Face', 'BEiT without biases of queries and values', '--to timm')
    for name in [n for n in tensors if n.endswith('attn.qkv.bias')]:  # the bias of keys cancels in the softmax
        query, _, value = tensors.pop(name).chunk(3)
        stem = name.removesuffix('qkv.bias')
        tensors.update({f'{stem}q_bias': query.clone(), f'{stem}v_bias': value.clone()})
    shared = tensors.pop('rel_pos_bias.relative_position_bias_table', None)
    if shared is not None:  # a table a block computes the same, and names of one for all differ between versions
        for number in range(config['arch']['num_layers']):
            tensors[f'blocks.{number}.attn.relative_position_bias_table'] = shared.clone()
    common.update(
        use_mask_token=False, use_absolute_position_embeddings=config['use_abs_pos_emb'],
        use_relative_position_bias=config['use_rel_pos_bias'] or shared is not None,
        use_shared_relative_position_bias=False, layer_scale_init_value=config['layer_scale_init_value'],
        use_mean_pooling=not config['final_norm'],
    )  # fmt: skip


def _hf_vit(config: Mapping[str, Any], tensors: dict[str, Tensor], common: dict[str, Any]) -> tuple[str, str]:
    width, depth, *_, hidden = _sizes(config)
    common['qkv_bias'] = config.get('qkv_bias', True)
    scale, registers = 'blocks.0.gamma_1' in tensors, tensors.get('register_tokens')
    if not config.get('with_cls_token', True):
        if scale or _swiglu(config):
            raise Cannot('Hugging Face', 'layer scale or a SwiGLU without a class token', '--to timm')
        return 'ijepa', 'IJepaModel'
    if not scale and not _swiglu(config) and registers is None:
        return 'vit', 'ViTModel'
    if hidden % width:
        raise Cannot('Hugging Face', f'an MLP of {hidden} / {width} times the width (mlp_ratio is whole)', '--to timm')
    if not scale:  # these models always have it; ones are none
        ones = torch.ones(width, dtype=tensors['cls_token'].dtype)
        tensors.update({f'blocks.{n}.gamma_{k}': ones.clone() for n in range(depth) for k in (1, 2)})
    common.pop('intermediate_size')
    common.update(mlp_ratio=hidden // width, use_swiglu_ffn=_swiglu(config), use_mask_token=False)
    if registers is None:
        return 'dinov2', 'Dinov2Model'
    common['num_register_tokens'] = registers.shape[1]
    tensors['mask_token'] = torch.zeros(1, width, dtype=tensors['cls_token'].dtype)  # this class has one always
    return 'dinov2_with_registers', 'Dinov2WithRegistersModel'


# ---------------------------------------------------------------- torchvision


def for_torchvision(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[dict[str, Any], float, dict]:
    """Arguments of ``torchvision.models.VisionTransformer``, the epsilon of its norms, and tensors.

    Raises:
        Cannot: anything but a plain ViT with a class token, biases and GELU.
    """
    width, depth, heads, hidden = _sizes(config) if 'num_layers' in config['arch'] else (0, 0, 0, 0)
    tensors = plain_names(state)
    other = {
        'its class': not config['type'].endswith('.VisionTransformer'),
        'layer scale': 'blocks.0.gamma_1' in tensors,
        'no class token': not config.get('with_cls_token', True),
        'no biases of queries, keys and values': not config.get('qkv_bias', True),
        'a norm before the blocks': config.get('pre_norm', False),
        'a norm after pooling': not config.get('final_norm', True),
        'a SwiGLU': _swiglu(config),
        f'the activation {_activation(config)}': _activation(config) != 'gelu',
        f'images of {config["img_size"]} px': not isinstance(config['img_size'], int),
    }
    found = next((what for what, there in other.items() if there), None)
    if found:
        raise Cannot(
            'torchvision', f'{config["type"]} with {found}' if found != 'its class' else config['type'], '--to timm'
        )
    args = dict(
        image_size=config['img_size'], patch_size=config['patch_size'], num_layers=depth, num_heads=heads,
        hidden_dim=width, mlp_dim=hidden,
    )  # fmt: skip
    if config['in_channels'] != 3:
        raise Cannot('torchvision', f'images of {config["in_channels"]} channels', '--to timm')
    return args, _epsilon(config), to_torchvision(tensors)
