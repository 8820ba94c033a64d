"""The recipes for other sizes, protocols and backbones: what they state is what was published.

Full-size models are built on the meta device: shapes without values.
"""

import ast
import re

import pytest
from built_recipes import CONFIGS, built, groups_of, load

from mim_mm.engine.start import guard

OLD = {'linear/vitb_linear_90e', 'finetune/vitb_finetune_100e', 'coco/mask_rcnn_vitb_fpn_lsj_100e'}
# Other people's files in these folders have tests of their own.
RECIPES = sorted(
    str(path.relative_to(CONFIGS).with_suffix(''))
    for folder, pattern in (
        ('linear', 'vit?_linear_*.py'),
        ('finetune', '*_finetune_*e.py'),
        ('coco', 'mask_rcnn_*.py'),
    )
    for path in (CONFIGS / folder).glob(pattern)
)


# Millions of parameters. ViT: those of Dosovitskiy et al. with a 1000-way head; Mask R-CNN: the tables of ViTDet, Swin
# and ConvNeXt. None: not published.
@pytest.mark.parametrize(
    'name, millions',
    [
        ('finetune/vits_finetune_200e', 22.05),
        ('finetune/vitl_finetune_50e', 304.3),
        ('finetune/vith_finetune_50e', 632.0),
        ('finetune/vits_finetune_mocov3_300e', 22.05),
        ('finetune/vitb_finetune_mocov3_150e', 86.57),
        ('finetune/vitb_finetune_ibot_100e', 86.57),
        ('finetune/vitl_finetune_ibot_50e', 304.3),
        ('finetune/vitb_finetune_beit_100e', 86.53),
        ('finetune/vitb_finetune_bootmae_100e', 86.57),
        ('finetune/vitl_finetune_bootmae_50e', 304.3),
        ('finetune/vitb_finetune_cmae_100e', 86.57),
        ('finetune/vitb_finetune_cmae_long_100e', 86.57),
        ('finetune/vitb_finetune_data2vec_100e', 86.43),
        ('finetune/vitl_finetune_data2vec_50e', 304.16),
        ('finetune/vitb_finetune_data2vec2_100e', 86.57),
        ('finetune/vitl_finetune_data2vec2_50e', 304.3),
        ('finetune/vitl_finetune_beit_50e', 304.43),
        ('finetune/vitb_finetune_cae_100e', 86.68),
        ('finetune/vitl_finetune_cae_50e', None),
        ('finetune/vitb_finetune_simmim_100e', 86.53),
        ('finetune/swinb_finetune_simmim_100e', 87.77),
        ('finetune/resnet50_finetune_spark_300e', 25.56),
        ('finetune/convnextt_finetune_300e', 28.59),
        ('linear/vits_linear_90e', 22.05),
        ('linear/vits_linear_mean_90e', 22.05),
        ('linear/vitb_linear_mean_90e', 86.57),
        ('linear/vitl_linear_50e', 304.3),
        ('linear/vitl_linear_mean_50e', 304.3),
        ('linear/vith_linear_50e', 632.0),
        ('linear/vith_linear_mean_50e', 632.0),
        ('coco/mask_rcnn_vits_fpn_lsj_100e', None),
        ('coco/mask_rcnn_vitl_fpn_lsj_100e', None),
        ('coco/mask_rcnn_vits_simple_lsj_100e', None),
        ('coco/mask_rcnn_vitb_simple_lsj_100e', 111),
        ('coco/mask_rcnn_vitl_simple_lsj_100e', 331),
        ('coco/mask_rcnn_vith_simple_lsj_75e', None),
        ('coco/mask_rcnn_vitb_fpn_lsj_24gb_100e', None),
        ('coco/mask_rcnn_vitb_fpn_ms_12e', None),
        ('coco/mask_rcnn_vitl_fpn_ms_12e', None),
        ('coco/mask_rcnn_swint_fpn_ms_36e', 48),
        ('coco/mask_rcnn_swinb_fpn_ms_36e', 107),
        ('coco/mask_rcnn_convnextt_fpn_ms_36e', 48),
        ('coco/mask_rcnn_hivitb_fpn_ms_36e', None),
    ],
)
def test_size_of_the_model(name, millions):
    cfg, model = built(f'{name}.py')
    guard.check_config(cfg)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    if millions is not None:
        assert count == pytest.approx(millions, abs=0.6 if isinstance(millions, int) else 0.05)
    sizes = {'vits': 384, 'vitb': 768, 'vitl': 1024, 'vith': 1280}
    size = re.search(r'(?:/|_)(vit.)_', name)
    assert size is None or model.backbone.embed_dims == sizes[size[1]]
    if name.startswith('linear'):  # everything is frozen but the head, at every depth
        assert {n.split('.')[0] for n, p in model.named_parameters() if p.requires_grad} == {'head'}
        assert cfg.model.backbone.frozen_stages == len(model.backbone.layers)


def test_every_recipe_is_in_the_table_above():
    table = {mark.args[1][i][0] for mark in test_size_of_the_model.pytestmark for i in range(len(mark.args[1]))}
    assert table == set(RECIPES) - OLD


@pytest.mark.parametrize('name', sorted(set(RECIPES) - OLD))
def test_form(name):
    text = (CONFIGS / f'{name}.py').read_text()
    sheet = ast.get_docstring(ast.parse(text))
    assert f'tools/dist_train.sh configs/{name}.py 8 --cfg-options init=CKPT' in sheet
    assert all(part in sheet for part in ('Published', 'Cost: '))
    cfg = load(f'{name}.py')
    assert cfg.custom_hooks[0].type == 'mim_mm.LoadPretrainedHook' and cfg.custom_hooks[0].checkpoint is None
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size * accumulated
    duration = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters / accumulated
    stated = int(re.search(r'_(\d+)e$', name)[1])
    epochs = duration if 'max_epochs' in cfg.train_cfg else duration * cfg.auto_scale_lr.base_batch_size / 118000
    assert epochs == pytest.approx(stated, rel=0.01)
    assert not {'end', 'T_max'} & set(cfg.param_scheduler[-1]), 'the schedule ends with training, stated once'
    warmup, last = cfg.param_scheduler
    assert last.get('begin', warmup.end) == warmup.end
    if name.startswith('coco'):
        assert last.type == 'MultiStepLR' or 'fpn_lsj' in name
        assert all(step < duration for step in last.get('milestones', ()))


@pytest.mark.parametrize(
    'name, lr, rate, depth, drop_path, epochs, warmup, norm',
    [  # protocols.md 2.2: MAE's rows, and iBOT's for ViT-S
        ('finetune/vits_finetune_200e.py', 4e-3, 0.75, 12, 0.1, 200, 20, 'ln1'),
        ('finetune/vitb_finetune_100e.py', 2e-3, 0.65, 12, 0.1, 100, 5, 'ln2'),
        ('finetune/vitl_finetune_50e.py', 4e-3, 0.75, 24, 0.2, 50, 5, 'ln2'),
        ('finetune/vith_finetune_50e.py', 4e-3, 0.75, 32, 0.3, 50, 5, 'ln2'),
    ],
)
def test_fine_tuning_rates(name, lr, rate, depth, drop_path, epochs, warmup, norm):
    cfg, model = built(name)
    groups = groups_of(model, cfg)
    expected = {
        'backbone.patch_embed.projection.weight': depth + 1,
        'backbone.cls_token': depth + 1,
        'backbone.pos_embed': depth + 1,
        'backbone.layers.0.attn.qkv.weight': depth,
        f'backbone.layers.{depth - 1}.ffn.layers.1.weight': 1,
        f'backbone.{norm}.weight': 0,
        'head.fc.weight': 0,
    }
    for parameter, power in expected.items():
        assert groups[parameter]['lr'] == pytest.approx(lr * rate**power), parameter
    decayed = {n for n, g in groups.items() if g['weight_decay'] == 0.05}
    names = dict(model.named_parameters())
    assert decayed == {n for n, p in names.items() if p.ndim > 1 and not n.endswith(('cls_token', 'pos_embed'))}
    assert {('backbone.ln2.weight' in names), model.backbone.out_type == 'avg_featmap'} == {norm == 'ln2'}
    assert model.backbone.layers[-1].attn.out_drop.drop_prob == pytest.approx(drop_path)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end, cfg.param_scheduler[1].begin) == (
        epochs, warmup, warmup
    )  # fmt: skip
    assert cfg.param_scheduler[1].eta_min_ratio * lr == pytest.approx(1e-6)


@pytest.mark.parametrize(
    'name, lr, rate, powers',
    [
        ('vitb_simple_lsj_100e', 1e-4, 0.7, {'backbone.layers.2.attn.rel_pos_h': 10, 'backbone.pos_embed': 13}),
        ('vitl_simple_lsj_100e', 1e-4, 0.8, {'backbone.layers.23.attn.qkv.weight': 1, 'backbone.pos_embed': 25}),
        ('vith_simple_lsj_75e', 1e-4, 0.9,
         {'backbone.pos_embed': 33, 'backbone.layers.0.attn.rel_pos_h': 32, 'backbone.layers.31.ln2.weight': 1}),
        ('vits_simple_lsj_100e', 1e-4, 0.7, {'backbone.layers.11.attn.rel_pos_w': 1}),
        ('vitb_fpn_ms_12e', 3e-4, 0.75,
         {'backbone.layers.0.ln1.weight': 12, 'backbone.patch_embed.projection.bias': 13}),
        ('vitl_fpn_ms_12e', 2e-4, 0.85, {'backbone.layers.0.ln1.weight': 24, 'backbone.layers.23.ln2.bias': 1}),
        ('vitl_fpn_lsj_100e', 1.6e-4, 1.0, {'backbone.pos_embed': 0}),
        ('swint_fpn_ms_36e', 1e-4, 1.0, {'backbone.patch_embed.projection.weight': 0}),
        ('convnextt_fpn_ms_36e', 1e-4, 0.95,
         {'backbone.downsample_layers.0.0.weight': 7, 'backbone.stages.2.5.gamma': 3, 'backbone.stages.3.2.gamma': 1}),
        ('hivitb_fpn_ms_36e', 1e-4, 0.9,
         {'backbone.patch_embed.proj.weight': 35, 'backbone.pos_embed': 35, 'backbone.blocks.4.reduction.weight': 30,
          'backbone.blocks.33.attn.qkv.weight': 1}),
    ],
)  # fmt: skip
def test_detector_rates(name, lr, rate, powers):
    cfg, model = built(f'coco/mask_rcnn_{name}.py')
    groups = groups_of(model, cfg)
    for parameter, power in powers.items():
        assert groups[parameter]['lr'] == pytest.approx(lr * rate**power), parameter
    above = {n: g['lr'] for n, g in groups.items() if not n.startswith('backbone.')}
    assert {n.split('.')[0] for n in above} == {'neck', 'rpn_head', 'roi_head'} and set(above.values()) == {lr}


def test_vitdet_as_published():
    cfg, model = built('coco/mask_rcnn_vitb_simple_lsj_100e.py')
    groups = groups_of(model, cfg)
    free = {n for n, g in groups.items() if g['weight_decay'] == 0}
    # detectron2 exempts torch's LayerNorm and positions; its channel-first norm of pyramid and heads is no LayerNorm
    assert free == {n for n in groups if n == 'backbone.pos_embed' or re.search(r'^backbone\..*\.?ln\d\.', n)}
    assert {g['weight_decay'] for g in groups.values()} == {0, 0.1}
    backbone = model.backbone
    assert backbone.global_attn_indexes == (2, 5, 8, 11) and backbone.pos_embed.shape == (1, 14 * 14, 768)
    tables = [layer.attn.rel_pos_h.shape[0] for layer in backbone.layers]
    assert tables == [127 if i in (2, 5, 8, 11) else 27 for i in range(12)]
    assert cfg.param_scheduler[1].milestones == [163889, 177546] and cfg.train_cfg.max_iters == 184375
    assert all(type(c.norm).__name__ == 'LayerNorm2d' and c.conv.bias is None for c in model.roi_head.mask_head.convs)
    assert len(model.roi_head.bbox_head.shared_convs) == 4 and len(model.rpn_head.rpn_conv) == 2
    large = built('coco/mask_rcnn_vitl_simple_lsj_100e.py')[1].backbone
    assert large.global_attn_indexes == (5, 11, 17, 23)
    assert large.layers[-1].attn.out_drop.drop_prob == pytest.approx(0.4)


def test_vitdet_h_and_the_variant_for_small_cards():
    cfg, model = built('coco/mask_rcnn_vith_simple_lsj_75e.py')
    assert {g['weight_decay'] for g in groups_of(model, cfg).values()} == {0.1}, 'detectron2 exempts nothing for H'
    assert model.backbone.global_attn_indexes == (7, 15, 23, 31) and model.backbone.with_cp
    assert model.backbone.patch_embed.projection.kernel_size == (16, 16) and cfg.custom_hooks[0].resample_patches
    assert cfg.train_cfg.max_iters == 184375 * 3 // 4
    assert cfg.param_scheduler[1].milestones == [163889 * 3 // 4, 177546 * 3 // 4]
    assert model.backbone.layers[-1].attn.out_drop.drop_prob == pytest.approx(0.5)

    whole, small = (load(f'coco/mask_rcnn_vitb_fpn_lsj_{kind}100e.py') for kind in ('', '24gb_'))
    times = small.optim_wrapper.accumulative_counts
    assert times * small.train_dataloader.batch_size == whole.train_dataloader.batch_size == 8
    assert small.train_cfg.max_iters == times * whole.train_cfg.max_iters
    assert small.train_cfg.val_interval == times * whole.train_cfg.val_interval
    for a, b in zip(small.param_scheduler, whole.param_scheduler):
        assert (a.get('end', 0), a.get('begin', 0)) == (times * b.get('end', 0), times * b.get('begin', 0))
    assert small.model.backbone == dict(whole.model.backbone, with_cp=True)


def test_cae_recipe_as_published():
    cfg, model = built('coco/mask_rcnn_vitb_fpn_ms_12e.py')
    groups = groups_of(model, cfg)
    assert groups['backbone.pos_embed']['lr'] == 0 == groups['backbone.pos_embed']['weight_decay']
    assert model.backbone.pos_embed.shape == (1, 42 * 68, 768)
    assert not any(model.backbone._is_windowed(i) for i in range(12)) and 'rel_pos' not in ' '.join(groups)
    assert not any('norm' in n or '.bn.' in n for n in groups if n.startswith('neck.fpn'))
    assert model.roi_head.bbox_head.reg_decoded_bbox and model.roi_head.bbox_head.loss_bbox.loss_weight == 10
    scales = cfg.train_pipeline[3].transforms[0][0].scales
    assert [min(s) for s in scales] == [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert {max(s) for s in scales} == {1333} and len(cfg.train_pipeline[3].transforms[1]) == 3
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (1333, 800)
