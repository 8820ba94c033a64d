"""Encoders of other projects with random weights, and their files as each release lays them out.

The models are timm's, whose blocks the releases share (docs/parity.md compares some with the releases themselves); only
names and structure of a release are made here, from the code that saves it.
"""

import argparse
import re

import pytest
import torch
from torch import nn

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIZES = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def scattered(model):
    """Every parameter random, so that none is without effect, and the first digits that count are many."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    model.double().eval()  # eval() of mmpretrain's returns None
    return model


def vit(**options):
    models = pytest.importorskip('timm.models.vision_transformer')
    return scattered(models.VisionTransformer(**{**SIZES, 'global_pool': 'token', **options}))


def beit(**options):
    models = pytest.importorskip('timm.models.beit')
    return scattered(models.Beit(**{**SIZES, 'global_pool': 'token', 'use_abs_pos_emb': False, **options}))


def swin():
    models = pytest.importorskip('timm.models.swin_transformer')
    options = dict(img_size=64, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4)
    return scattered(models.SwinTransformer(**options, num_classes=0))


SHARED = dict(use_shared_rel_pos_bias=True)
# Models of one kind, by what their files are called here.
MODELS = {
    'mae': vit, 'mae with decoder': vit, 'dino': vit, 'dino backbone': vit, 'ibot': vit, 'attmask backbone': vit,
    'mocov3': vit, 'mocov3 momentum': vit, 'msn': vit, 'timm': vit,
    'timm layer scale': lambda: vit(init_values=0.1),
    'timm without class position': lambda: vit(no_embed_class=True),
    'timm without qkv bias': lambda: vit(qkv_bias=False),
    'timm pooled norm': lambda: vit(global_pool='avg'),
    'clip': lambda: vit(pre_norm=True, act_layer='quick_gelu'),
    'ijepa': lambda: vit(class_token=False, global_pool='avg', fc_norm=False),
    'dinov2': lambda: vit(init_values=0.1),
    'dinov2 training': lambda: vit(init_values=0.1),
    'dinov2 registers': lambda: vit(init_values=0.1, reg_tokens=4, no_embed_class=True),
    'timm registers': lambda: vit(reg_tokens=4, no_embed_class=True),
    'timm registers with positions': lambda: vit(reg_tokens=3),
    'bootmae backbone': lambda: beit(use_abs_pos_emb=True),
    'cae': lambda: beit(use_abs_pos_emb=True, init_values=0.1),
    'beit': lambda: beit(**SHARED, init_values=0.1),
    'beit fine-tuned': lambda: beit(use_rel_pos_bias=True, init_values=0.1, global_pool='avg'),
    'data2vec': lambda: beit(**SHARED, init_values=1e-2),
    'simmim': lambda: beit(**SHARED, init_values=0.1),
    'simmim swin': swin,
    'cmae': vit,
}  # fmt: skip
# What nothing but the user says of them: their sizes are none of the published ones.
SAID = {'clip': dict(activation='quick_gelu')}


def features(kind, model, images=IMAGES):
    """Tokens (B, P+N, D) after the final norm; means where the model normalises them instead."""
    with torch.no_grad():
        tokens = model.forward_features(images)
        pooled = kind in ('timm pooled norm', 'beit fine-tuned')
        return model.forward_head(tokens, pre_logits=True) if pooled else tokens


def images_of(kind):
    return torch.randn(2, 3, 64, 64, dtype=torch.float64) if 'swin' in kind else IMAGES


def under(prefix, state, plus=0.0):
    return {f'{prefix}{name}': value + plus if plus else value for name, value in state.items()}


def content(kind, model):
    """What the file of a release holds, for one of :data:`MODELS`."""
    state, one = {n: v for n, v in model.state_dict().items() if not n.startswith('head')}, torch.zeros(1)
    head = {f'head.{n}': one for n in ('mlp.0.weight', 'last_layer.weight_g')}
    training = dict(optimizer=dict(state={0: dict(exp_avg=one)}), args=argparse.Namespace(epochs=1), epoch=1)
    if kind == 'mae with decoder':
        return dict(model={**state, **_mae_decoder()}, **training)
    if kind in ('mae', 'attmask backbone', 'bootmae backbone', 'beit fine-tuned'):
        return {'state_dict' if 'attmask' in kind else 'model': state}
    if kind in ('dino', 'ibot'):
        teacher = {**under('backbone.', state), **head}
        student = {**under('module.backbone.', state, 1.0), **under('module.', head)}
        if kind == 'ibot':
            student['module.backbone.masked_embed'] = torch.zeros(1, 32)
        return dict(student=student, teacher=teacher, **{f'{kind}_loss': dict(center=one)}, **training)
    if kind.startswith('mocov3'):
        kept, other = ('momentum', 'base') if 'momentum' in kind else ('base', 'momentum')
        both = {**under(f'module.{kept}_encoder.', {**state, **head}), **under(f'module.{other}_encoder.', state, 1.0)}
        return dict(state_dict={**both, 'module.predictor.0.weight': one}, arch='vit_small', **training)
    if kind in ('msn', 'ijepa'):
        fc = {'fc.fc1.weight': one} if kind == 'msn' else {}
        beside = dict(prototypes=one) if kind == 'msn' else dict(predictor={'module.mask_token': one})
        wrapped = dict(encoder=under('module.', {**state, **fc}, 1.0), target_encoder=under('module.', {**state, **fc}))
        return {**wrapped, **beside, 'opt': dict(state={}), 'epoch': 1}
    if kind in ('dinov2', 'dinov2 registers'):
        return {**_dinov2_positions(state), 'mask_token': torch.zeros(1, 32)}
    if kind == 'dinov2 training':
        chunks = {re.sub(r'^blocks\.(\d+)\.', r'blocks.0.\1.', n): v for n, v in _dinov2_positions(state).items()}
        beside = {'dino_head.last_layer.weight_g': one, 'ibot_head.mlp.0.weight': one}
        return dict(teacher={**under('backbone.', {**chunks, 'mask_token': torch.zeros(1, 32)}), **beside})
    if kind == 'cae':
        neck = {'pretext_neck.regressor_blocks.0.norm1_q.weight': one, 'mask_token': torch.zeros(1, 1, 32)}
        return dict(model={**under('encoder.', state), **neck}, **training)
    if kind in ('beit', 'data2vec'):
        words = {'mask_token': torch.zeros(1, 1, 32), 'lm_head.weight': torch.zeros(64 if kind == 'beit' else 32, 32)}
        index = {'rel_pos_bias.relative_position_index': torch.zeros(17, 17, dtype=torch.long)}
        return dict(model={**state, **words, **index}, **training)
    if kind.startswith('simmim'):
        encoder = _swin_release(state) if 'swin' in kind else state
        more = {'encoder.mask_token': torch.zeros(1, 1, 32), 'decoder.0.weight': one, 'decoder.0.bias': one}
        return dict(model={**under('encoder.', encoder), **more}, **training)
    if kind == 'cmae':
        ours = _openmmlab(state)
        more = {n: one for n in ('pixel_decoder.mask_token', 'feature_decoder.mask_token', 'projector.0.weight')}
        return dict(state_dict={**under('backbone.', ours), **under('target_backbone.', ours, 1.0), **more}, meta={})
    return state  # timm, a bare backbone


def _mae_decoder():
    from mae_restated import PlainMAE

    return {n: v for n, v in PlainMAE().state_dict().items() if n.startswith(('decoder', 'mask'))}


def _dinov2_positions(state):
    """DINOv2's table has a row for the class token, which timm adds to the token itself; registers have none."""
    if 'reg_token' not in state:
        return state
    row = torch.randn(1, 1, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    out = {n: v for n, v in state.items() if n != 'reg_token'}
    first = dict(cls_token=state['cls_token'] - row, pos_embed=torch.cat((row, state['pos_embed']), dim=1))
    return {**out, **first, 'register_tokens': state['reg_token']}


def _swin_release(state):
    """timm merges patches at the start of a stage, the release at the end of the one before."""
    return {re.sub(r'^layers\.(\d+)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', n): v
            for n, v in state.items()}  # fmt: skip


def _openmmlab(state):
    rename = (
        ('patch_embed.proj', 'patch_embed.projection'), ('blocks.', 'layers.'), ('.norm1', '.ln1'), ('.norm2', '.ln2'),
        ('mlp.fc1', 'ffn.layers.0.0'), ('mlp.fc2', 'ffn.layers.1'),
    )  # fmt: skip
    out = {}
    for name, value in state.items():
        for old, new in rename:
            name = name.replace(old, new)
        out[re.sub('^norm', 'ln1', name)] = value
    return out
