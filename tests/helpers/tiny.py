"""Small models and images that the tests share."""

import copy

import torch

from mim_mm.registry import MODELS

VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128),
    img_size=32,
    patch_size=8,
    out_type='raw',
)
HIVIT = dict(
    type='mmpretrain.HiViT',
    arch=dict(embed_dims=32, depths=[1, 1, 2], num_heads=2),
    img_size=32,
    patch_size=8,
    inner_patches=4,
    ape=True,
    rpe=False,
)
BEIT = dict(
    VIT, type='mmpretrain.BEiTViT', final_norm=True, use_abs_pos_emb=True, use_rel_pos_bias=False,
    layer_scale_init_value=0,
)  # fmt: skip
POST_NORM_VIT = dict(VIT, type='PostNormViT')
DECODER = dict(type='MAEDecoder', embed_dims=24, depth=1, num_heads=2)


def build(kind='EMAE', masker=None, backbone=VIT, **options):
    """A tiny MAE or EMAE on 32-px images: 16 patches of 8 px, width 32."""
    masker = masker or (dict(type='ParallelMasking', num_parts=4) if kind == 'EMAE' else dict(type='RandomMasking'))
    decoder = dict(DECODER, input_norm='HiViT' in backbone['type'], **options.pop('decoder', {}))
    return MODELS.build(copy.deepcopy(dict(type=kind, backbone=backbone, masker=masker, decoder=decoder, **options)))


def bootmae(masker=None, backbone=BEIT, **options):
    """A tiny BootMAE on the same images, initialised; 3 heads would not divide its decoder's 25."""
    masker = masker or dict(type='BlockMasking', ratio=0.75, block_ratio=0.5, max_block=6, fill='blocks', roll=3)
    cfg = dict(type='BootMAE', backbone=backbone, masker=masker, decoder_dims=20, decoder_depth=1, feature_ramp=0)
    model = MODELS.build(copy.deepcopy({**cfg, **options}))
    model.init_weights()
    return model


def ijepa(masker=None, backbone=VIT, **options):
    """A tiny I-JEPA on the same images, initialised."""
    masker = masker or dict(type='MultiBlockMasking', num_targets=2, target_scale=(0.2, 0.3), min_keep=1)
    predictor = {**dict(embed_dims=24, depth=1), **options.pop('predictor', {})}
    cfg = dict(type='IJEPA', backbone=backbone, masker=masker, predictor=predictor, **options)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def data2vec2(masker=None, backbone=POST_NORM_VIT, **options):
    """A tiny data2vec 2.0 on the same images, initialised: three copies of an image, squares of 2 x 2 patches."""
    masker = masker or dict(type='InverseBlockMasking', ratio=0.7, num_parts=3, block=2, adjust=0.1)
    decoder = {**dict(depth=2, groups=4), **options.pop('decoder', {})}
    cfg = dict(type='data2vec2', backbone=backbone, masker=masker, decoder=decoder, target_blocks=[0, 1], **options)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def build_cmae(masker=None, **options):
    """A tiny CMAE on the same images, single patches hidden unless ``mask_unit`` says otherwise."""
    feature = dict(DECODER, embed_dims=16)
    sizes = dict(feature_decoder=feature, hidden_dims=24, out_dims=16)
    return build('CMAE', masker or dict(type='RandomMasking'), **{**sizes, **options})


def images(batch=3, size=32, seed=0):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def total_loss(out):
    return sum(value for key, value in out.items() if 'loss' in key)
