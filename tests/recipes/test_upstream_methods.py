"""What mmpretrain pretrains by masks and we do not: two steps of each, and its encoder goes whole into our loading."""

import copy

import pytest
import torch
from built_recipes import load
from pretrainings import run_two_steps

from mim_mm.checkpoint.load import load_encoder
from mim_mm.engine.start import guard
from mim_mm.registry import MODELS

VIT = dict(arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64))
MIXMIM = dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2]), window_size=[4, 4, 4, 4])
HIVIT = dict(arch=dict(embed_dims=32, depths=[1, 1, 2], num_heads=2), inner_patches=4, rpe=False)
BN = dict(type='SparseBatchNorm2d')
# our recipe, what makes it small, pixels, and the backbone that its encoder goes into
METHODS = {
    'MaskFeat': (
        'maskfeat_vitb_300e',
        dict(backbone=VIT, neck=dict(in_channels=32)), 224, dict(VIT, type='VisionTransformer'),
    ),
    'MixMIM': (
        'mixmim_mixmimb_300e',
        dict(
            backbone=dict(MIXMIM, img_size=128),
            neck=dict(num_patches=16, embed_dim=128, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2),
        ),
        128, dict(MIXMIM, type='MixMIMTransformer', img_size=128),
    ),
    'SparK': (
        'spark_resnet50_800e',
        dict(
            backbone=dict(depth=18, norm_cfg=BN), enc_dec_norm_cfg=BN, enc_dec_norm_dim=512, input_size=64,
            neck=dict(feature_dim=64, norm_cfg=dict(type='BN')),
        ),
        64, dict(type='ResNet', depth=18),
    ),
    'iTPN': (
        'itpn_hivitb_800e',
        dict(
            backbone=dict(HIVIT, img_size=64, drop_path_rate=0.0),
            neck=dict(
                num_patches=16, embed_dim=32, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2, fpn_dim=16,
                fpn_depth=1, mlp_ratio=2.0,
            ),
        ),
        64, dict(HIVIT, type='HiViT', img_size=64, ape=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', METHODS)
def test_two_steps_and_the_encoder_goes_whole_into_transfer(name, image_folder, tmp_path):
    """The recipe as it stands but for sizes, through the Runner and its hooks."""
    recipe, small, side, target = METHODS[name]
    cfg = load(f'upstream/{recipe}.py')
    guard.check_config(cfg)
    assert cfg.model.type == name and cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    _merge(cfg.model, small)
    crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomResizedCrop')
    crop.scale = side
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer)  # fp16 is for GPUs
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0)]
    cfg.merge_from_dict({'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False})
    cfg.train_dataloader.drop_last = True
    model, changed = run_two_steps(cfg, image_folder, tmp_path / 'run', f'{name}-{tmp_path.name}')
    into = MODELS.build(dict(target, _scope_='mmpretrain'))
    report = load_encoder(into, tmp_path / 'run/epoch_2.pth')
    assert report.fraction == 1 and not report.random
    trained = model.backbone.state_dict()
    for key, value in into.state_dict().items():
        if key in report.loaded:
            assert torch.equal(value, trained[key]), key
    assert len([k for k in report.loaded if f'backbone.{k}' in changed]) > len(report.loaded) / 2, 'it has been trained'


def _merge(node, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and key in node and key not in ('arch', 'norm_cfg', 'enc_dec_norm_cfg'):
            _merge(node[key], value)
        else:
            node[key] = copy.deepcopy(value)
