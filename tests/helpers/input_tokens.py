"""Small models whose mask tokens are inputs of the encoder: SimMIM, BEiT, CAE and data2vec on 32-px images."""

import copy

import torch
from tiny import images

from mim_mm.registry import MODELS

SWIN = dict(
    type='mmpretrain.SimMIMSwinTransformer',
    arch=dict(embed_dims=16, depths=[1, 2], num_heads=[2, 2]),
    img_size=32,
    drop_path_rate=0.0,
    out_indices=(1,),
    stage_cfgs=dict(block_cfgs=dict(window_size=4)),
)
ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
VIT = dict(type='mmpretrain.BEiTPretrainViT', arch=ARCH, img_size=32, patch_size=8)
CAE_VIT = dict(type='mmpretrain.CAEPretrainViT', arch=ARCH, img_size=32, patch_size=8, layer_scale_init_value=0.1)
RANDOM = dict(type='RandomMasking', ratio=0.6)
DALLE = dict(type='mmpretrain.DALL-E', n_hid=8, n_blk_per_group=1, vocab_size=11)
NECK = dict(num_classes=11, num_heads=2, regressor_depth=1, decoder_depth=1)


def initialised(model):
    """As the Runner starts it, but with mask tokens and biases far from zero, so that they matter."""
    model.init_weights()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if 'mask_token' in name or 'relative_position_bias_table' in name:
                param.normal_()
    return model


def simmim(backbone=SWIN, masker=RANDOM, mask_unit=8):
    model = MODELS.build(copy.deepcopy(dict(type='SimMIM', backbone=backbone, masker=masker, mask_unit=mask_unit)))
    return initialised(model)


def data2vec(masker=RANDOM, backbone=VIT, **options):
    cfg = dict(type='data2vec', backbone=backbone, masker=masker, target_blocks=[0, 1], **options)
    return initialised(MODELS.build(copy.deepcopy(cfg)))


def write_tokenizer(path):
    torch.save({'state_dict': MODELS.build(copy.deepcopy(DALLE)).state_dict()}, path)
    return str(path)


def with_tokens(kind, file, masker=RANDOM, tokenizer=DALLE):
    cfg = dict(type=kind, masker=masker, tokenizer=tokenizer, tokenizer_checkpoint=file)
    cfg |= dict(backbone=VIT, vocabulary=11) if kind == 'BEiT' else dict(backbone=CAE_VIT, neck=NECK)
    return initialised(MODELS.build(copy.deepcopy(cfg)))


def views():
    return [images(), images(seed=9)]
