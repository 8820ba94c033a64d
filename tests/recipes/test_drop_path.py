"""Stochastic depth: the recipes drop every branch of every block once, as the releases; mmpretrain's BEiT does not."""

import logging
from types import SimpleNamespace

import pytest
import torch
from built_recipes import groups_of, load, meta
from input_tokens import CAE_VIT, DALLE, NECK, RANDOM, views, write_tokenizer
from mmcv.cnn.bricks.drop import DropPath
from mmengine.registry import init_default_scope
from tiny_run import TINY_ARCH

from mim_mm.engine.start.drop_paths import check_drop_paths, dropped_twice
from mim_mm.registry import MODELS

RECIPES = """
    beit/beit_vitb_300e cae/cae_vitb_300e simmim/simmim_vitb_800e simmim/simmim_swinb_800e ibot/ibot_vitb_400e
    data2vec/data2vec_vitb_800e data2vec/data2vec_vitl_800e pixio/pixio_vith_400e
    finetune/vitb_finetune_100e finetune/vitb_finetune_beit_100e finetune/vitb_finetune_bootmae_100e
    finetune/vitb_finetune_cae_100e finetune/vitb_finetune_simmim_100e finetune/vitl_finetune_data2vec_50e
    finetune/vitl_finetune_data2vec2_50e finetune/swinb_finetune_simmim_100e coco/mask_rcnn_vitb_fpn_lsj_100e
    coco/mask_rcnn_swinb_fpn_ms_36e seg/upernet_vitb_160k seg/upernet_vitl_160k seg/upernet_vitb_ibot_160k
""".split()


@pytest.mark.parametrize('name', RECIPES)
def test_each_branch_is_dropped_once(name):
    cfg = load(f'{name}.py')
    init_default_scope(cfg.default_scope)
    settings = {key: value for key, value in cfg.model.backbone.items() if key not in ('init_cfg', 'with_cp')}
    with meta():
        backbone = MODELS.build(settings)
        backbone.train()
        drawn = []
        for module in backbone.modules():
            if isinstance(module, DropPath):
                module.register_forward_hook(lambda module, *_: drawn.append(float(module.drop_prob)))
        size = settings.get('img_size', settings.get('pretrain_img_size', 224))
        images = torch.ones(2, 3, *((size, size) if isinstance(size, int) else size))
        more = (None,) if 'Pretrain' in settings['type'] or 'SimMIM' in settings['type'] else ()
        backbone(images, *more)
        layers = (
            backbone.layers if hasattr(backbone, 'layers') else [b for stage in backbone.stages for b in stage.blocks]
        )
    assert len(drawn) == 2 * len(layers)
    assert max(drawn) == pytest.approx(settings.get('drop_path_rate', 0.0))
    assert not dropped_twice(backbone)


def test_mmpretrains_own_blocks_are_warned_of(caplog):
    """A block of rate p keeps its MLP with (1 - p)^2 as mmpretrain builds it, and with 1 - p as the recipes do."""
    sizes = dict(arch=dict(TINY_ARCH, num_layers=2), img_size=32, patch_size=8, drop_path_rate=0.25)
    runner = SimpleNamespace(logger=logging.getLogger('drop-path'))
    more = load('finetune/vitb_finetune_beit_100e.py').model.backbone.layer_cfgs
    for layer_cfgs, kept, warned in (({}, 0.75**2, True), (more, 0.75, False)):
        runner.model = MODELS.build(dict(sizes, type='mmpretrain.BEiTViT', layer_cfgs=layer_cfgs))
        block = runner.model.layers[-1].train()
        block.attn.forward = lambda x, rel_pos_bias: torch.zeros_like(x)
        torch.manual_seed(0)
        images = torch.randn(4000, 1, runner.model.embed_dims)
        with torch.no_grad():
            share = (block(images, None) != images).any(-1).float().mean().item()
        assert abs(share - kept) < 4 * (kept * (1 - kept) / 4000) ** 0.5
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            check_drop_paths(runner)
        assert ('layers.1 drop the path of their MLP twice' in caplog.text) == warned


def test_caes_neck_drops_paths_as_its_encoder(tmp_path):
    """Regressor and decoder: rates from 0 to the recipe's over their blocks, two draws a block."""
    cfg = load('cae/cae_vitb_300e.py')
    assert cfg.model.neck.drop_path_rate == 0.1
    file = write_tokenizer(tmp_path / 'dalle.pth')
    neck = dict(NECK, regressor_depth=2, decoder_depth=2, drop_path_rate=0.2)
    model = MODELS.build(
        dict(type='CAE', masker=RANDOM, tokenizer=DALLE, tokenizer_checkpoint=file, backbone=CAE_VIT, neck=neck)
    )
    model.train()
    drawn = []
    for module in model.neck.modules():
        if isinstance(module, DropPath):
            module.register_forward_hook(lambda module, *_: drawn.append(module.drop_prob))
    model.loss(views())
    assert sorted(drawn) == pytest.approx([0] * 4 + [0.2] * 4) and not dropped_twice(model.neck)
    cfg.optim_wrapper.optimizer.pop('fused')
    init_default_scope(cfg.default_scope)
    decayed = {name for name, group in groups_of(model, cfg).items() if group['weight_decay']}
    assert 'backbone.cls_token' in decayed  # the releases mean to spare it and do not
    for name, parameter in model.backbone.named_parameters():
        if parameter.requires_grad:
            assert (f'backbone.{name}' in decayed) == (parameter.ndim > 1), name
