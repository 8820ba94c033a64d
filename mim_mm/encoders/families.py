"""The classes of backbones that have an Encoder, and what is said of one that lacks what is asked."""

from __future__ import annotations

from torch import nn


class UnsupportedBackbone(NotImplementedError, ValueError):
    """A backbone cannot do what is asked of it. (A ValueError too: what is wrong is the config that names it.)"""


FAMILIES: dict[type[nn.Module], type] = {}  # filled by the subclasses of Encoder


# What a family may lack: how a refusal puts it, and what to do instead.
_LACKS = {
    'grid': ('has no grid of patches that is known', 'use a backbone that embeds patches'),
    'prepare': ("has no start as MAE's", "use mmpretrain's VisionTransformer, HiViT, ConvNeXt or ResNet"),
    'embed': ('has no patch embedding that is known', 'use a backbone that embeds patches'),
    'positions': ('has no table of positions at its input', "use mmpretrain's VisionTransformer"),
    'encode_tokens': ('cannot encode tokens that were changed', "use mmpretrain's VisionTransformer"),
    'encode': ('cannot encode visible patches only', 'use a method with mask tokens, such as SimMIM'),
    'encode_levels': (
        'cannot show several depths of an encoding of visible patches',
        'use mmpretrain.BEiTViT without relative positions, or mmpretrain.VisionTransformer',
    ),
    'encode_packed': (
        'has no encode_packed, which parts of unequal length need',
        'use a masker with one number of visible patches for all images and parts',
    ),
    'encode_masked': (
        'has no place for mask tokens at its input',
        'use mmpretrain.BEiTPretrainViT or mmpretrain.SimMIMSwinTransformer, or MAE, which drops patches',
    ),
    'encode_visible': ('does not drop hidden patches by a mask', 'use mmpretrain.CAEPretrainViT'),
    'encode_whole': ('has no pass over whole images that is known', 'use a ViT, HiViT or Swin'),
    'mlp_outputs': (
        'does not show what its MLPs put out',
        "use mim_mm.PostNormViT, or mmpretrain's VisionTransformer with its plain MLPs",
    ),
    'cls_attention': ('shows no class-token attention', 'use a masker that needs none (SalienceMasking)'),
    'blocks': (
        'cannot be probed by block: a stack of equally wide blocks is needed',
        "use mmpretrain's VisionTransformer, BEiTViT or HiViT, or configs/linear/vitb_linear_90e.py with its own "
        'backbone',
    ),
}


def refusal(kind: type[nn.Module], name: str, why: str = '') -> UnsupportedBackbone:
    """The error for a class of backbones whose family lacks ``name``, or that has no family."""
    lack, instead = _LACKS[name]
    able = ' and '.join(known.__name__ for known, family in FAMILIES.items() if family.can(name))
    text = f'{kind.__name__} {lack}' + (f' ({why})' if why else '') + f'; these can: {able}'
    instead = f'{instead[0].upper()}{instead[1:]}'
    if kind in FAMILIES:
        return UnsupportedBackbone(f'{text}. {instead}, or add {name} to {FAMILIES[kind].__name__}')
    near = nearest(kind)
    if name != 'blocks':  # see reader_of
        text += ', and no subclass of them, which may embed, order or attend otherwise without anything noticing'
    return UnsupportedBackbone(
        f'{text}. {instead}, or register an Encoder for it: '
        f'class {kind.__name__}Encoder({near.__name__ if near else "Encoder"}): backbones = ({kind.__name__},)'
    )


def nearest(kind: type[nn.Module]) -> type | None:
    """The family of the nearest class that ``kind`` inherits from, itself included."""
    return next((FAMILIES[parent] for parent in kind.__mro__ if parent in FAMILIES), None)
