"""How the releases of BEiT, SimMIM, CAE, BootMAE, DINO, iBOT, MSN, MoCo v3, I-JEPA and data2vec 2.0 initialise
encoders; elsewhere mmpretrain's start stays.

Its modules draw MLPs as Xavier-uniform with biases N(0, 1e-6), whatever ``init_cfg`` says, and cut normal draws at an
absolute +-2, where BEiT and its kin cut at one standard deviation: a spread of 0.0108 where 0.02 is written.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mim_mm.compat.initializers import trunc_normal_
from mim_mm.encoders.positions import init_linears, set_positions

STD = 0.02


def cut_normal_(tensor: Tensor, std: float = STD) -> Tensor:
    """N(0, std^2) cut at one standard deviation: the ``trunc_normal_`` of BEiT's, SimMIM's and CAE's pretraining."""
    return trunc_normal_(tensor, std=std, a=-std, b=std)


@torch.no_grad()
def init_dino(backbone: nn.Module) -> None:
    """DINO's and iBOT's ViT: linears, class token and positions normal (0.02), biases zero, norms one and zero; the
    convolution of the patches as torch makes it."""
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=STD)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            module.weight.fill_(1)
            module.bias.zero_()
        elif isinstance(module, nn.Conv2d):
            module.reset_parameters()
    for name in ('pos_embed', 'cls_token'):
        if getattr(backbone, name, None) is not None:
            trunc_normal_(getattr(backbone, name), std=STD)


@torch.no_grad()
def init_msn(backbone: nn.Module) -> None:
    """MSN's ViT: as :func:`init_dino`, but the convolution of the patches normal by its fan-in (He), its bias zero."""
    init_dino(backbone)
    projection = backbone.patch_embed.projection
    nn.init.kaiming_normal_(projection.weight, mode='fan_in', nonlinearity='relu')
    if projection.bias is not None:
        projection.bias.zero_()


@torch.no_grad()
def init_ijepa(module: nn.Module) -> None:
    """I-JEPA's encoder and predictor: linears and convolutions normal (0.02), biases zero, norms one and zero.

    The release divides the last projections of each block by sqrt(2 i), and then draws all linears anew."""
    for child in module.modules():
        if isinstance(child, (nn.Linear, nn.Conv2d)):
            trunc_normal_(child.weight, std=STD)
            if child.bias is not None:
                child.bias.zero_()
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            child.weight.fill_(1)
            child.bias.zero_()


def init_cae(backbone: nn.Module) -> None:
    """CAE's encoder: Xavier-uniform linears (queries, keys and values as one matrix), convolution and class token cut
    normal, biases zero. (``--fix_init_weight``, which its ViT-L uses, would be :func:`init_beit`.)"""
    init_linears(backbone)
    _init_rest(backbone)


@torch.no_grad()
def init_beit(backbone: nn.Module) -> None:
    """BEiT's and SimMIM's ViT: all matrices, class and mask token cut normal; biases and tables of relative positions
    zero; then the last projections of block i (from 1), of attention and MLP, divided by sqrt(2 i)."""
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            cut_normal_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            module.weight.fill_(1)
            module.bias.zero_()
    _init_rest(backbone)
    if backbone.pos_embed is not None:
        cut_normal_(backbone.pos_embed)
    for number, layer in enumerate(backbone.layers, start=1):
        layer.attn.proj.weight /= math.sqrt(2 * number)
        layer.ffn.layers[1].weight /= math.sqrt(2 * number)


def init_separate(module: nn.Module) -> None:
    """As :func:`init_linears`, but queries, keys and values of each ``qkv`` count as three matrices (MoCo v3, BootMAE),
    and split biases of queries and values are zero."""
    init_linears(module)
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear) and name.endswith('qkv'):
            bound = math.sqrt(6 / (child.out_features // 3 + child.in_features))
            nn.init.uniform_(child.weight, -bound, bound)
    for name, parameter in module.named_parameters():
        if name.rpartition('.')[2] in ('q_bias', 'v_bias'):
            nn.init.zeros_(parameter)


def init_bootmae(backbone: nn.Module) -> None:
    """BootMAE's encoder: :func:`init_separate`, the patch embedding Xavier-uniform as one matrix, its bias zero, class
    token N(0, 1e-6)."""
    init_separate(backbone)
    projection = backbone.patch_embed.projection
    nn.init.xavier_uniform_(projection.weight.data.flatten(1))
    nn.init.zeros_(projection.bias)
    if backbone.cls_token is not None:
        nn.init.normal_(backbone.cls_token, std=1e-6)


def init_mocov3(backbone: nn.Module) -> None:
    """MoCo v3's ViT: the matrices of :func:`init_bootmae`, and fixed sine-cosine positions."""
    init_bootmae(backbone)
    set_positions(backbone, 'sincos', *backbone.patch_resolution, backbone.num_extra_tokens)


@torch.no_grad()
def init_data2vec2(backbone: nn.Module) -> None:
    """data2vec 2.0's ViT: linears normal (0.02, not cut), biases zero, norms one and zero; the patch embedding
    Xavier-uniform as one matrix, its bias as torch makes it; class token N(0, 1); fixed sine-cosine positions."""
    projection = backbone.patch_embed.projection
    projection.reset_parameters()
    nn.init.xavier_uniform_(projection.weight.data.flatten(1))
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=STD)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            module.weight.fill_(1)
            module.bias.zero_()
    if backbone.cls_token is not None:
        nn.init.normal_(backbone.cls_token)
    rows = backbone.pos_embed.shape[1] - math.prod(backbone.patch_resolution)
    set_positions(backbone, 'sincos', *backbone.patch_resolution, rows)


@torch.no_grad()
def _init_rest(backbone: nn.Module) -> None:
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            cut_normal_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
    for name, parameter in backbone.named_parameters():
        last = name.rpartition('.')[2]
        if last in ('cls_token', 'mask_token'):
            cut_normal_(parameter)
        elif last in ('q_bias', 'v_bias', 'relative_position_bias_table'):
            parameter.zero_()
