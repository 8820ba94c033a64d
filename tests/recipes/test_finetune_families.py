"""The fine-tuning families as published, and our own pretrainings of each loaded into them."""

import ast

import pytest
import torch
from built_recipes import CONFIGS, built, groups_of, load
from pretrainings import TINY_SWIN, run_two_steps, shrunken
from tiny_run import SHRINK, TINY_ARCH

from mim_mm.checkpoint.load import load_encoder
from mim_mm.engine.start import guard
from mim_mm.registry import MODELS


@pytest.mark.parametrize(
    'name, batch, lr, rate, depth, drop_path, epochs, warmup, floor, last, clip',
    [  # protocols of the releases: batch, lr for it, layer decay, blocks, ..., the norm that the head sees, clipping
        ('vitb_finetune_ibot_100e', 1024, 4e-3, 0.65, 12, 0.2, 100, 20, 1e-6, 'ln1', None),
        ('vitl_finetune_ibot_50e', 1024, 4e-3, 0.75, 24, 0.4, 50, 5, 1e-6, 'ln1', None),
        ('vitb_finetune_beit_100e', 1024, 4e-3, 0.65, 12, 0.1, 100, 20, 1e-6, 'ln2', None),
        ('vitl_finetune_beit_50e', 1024, 1e-3, 0.75, 24, 0.2, 50, 5, 1e-6, 'ln2', None),
        ('vitb_finetune_cae_100e', 4096, 8e-3, 0.65, 12, 0.1, 100, 5, 1e-6, 'ln2', None),
        ('vitl_finetune_cae_50e', 4096, 2e-3, 0.75, 24, 0.2, 50, 5, 1e-6, 'ln2', None),
        ('vitb_finetune_cmae_100e', 1024, 2e-3, 0.65, 12, 0.1, 100, 5, 1e-6, 'ln2', None),
        ('vitb_finetune_cmae_long_100e', 1024, 1e-3, 0.65, 12, 0.1, 100, 5, 1e-6, 'ln2', None),
        ('vitb_finetune_simmim_100e', 2048, 5e-3, 0.65, 12, 0.1, 100, 20, 1e-6, 'ln2', 5.0),
        ('swinb_finetune_simmim_100e', 2048, 5e-3, 0.8, 24, 0.1, 100, 20, 1e-6, 'norm3', 5.0),
        ('vitb_finetune_mocov3_150e', 1024, 1e-3, 1.0, 12, 0.1, 150, 5, 1e-5, 'ln1', None),
        ('vits_finetune_mocov3_300e', 1024, 1e-3, 1.0, 12, 0.1, 300, 5, 1e-5, 'ln1', None),
        ('vits_scratch_300e', 1024, 1e-3, 1.0, 12, 0.1, 300, 5, 1e-5, 'ln1', None),
        ('vitb_scratch_300e', 4096, 1.6e-3, 1.0, 12, 0.1, 300, 20, 0.0, 'ln1', None),
        ('vitl_scratch_200e', 4096, 1.6e-3, 1.0, 24, 0.2, 200, 20, 0.0, 'ln1', None),
        ('vitb_lowshot_1pct', 1024, 1e-5, 1.0, 12, 0.1, 1000, 5, 1e-5, 'ln1', None),
        ('vitb_lowshot_10pct', 1024, 1e-5, 1.0, 12, 0.1, 1000, 5, 1e-5, 'ln1', None),
    ],
)
def test_as_published(name, batch, lr, rate, depth, drop_path, epochs, warmup, floor, last, clip):
    cfg, model = built(f'finetune/{name}.py')
    guard.check_config(cfg)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == batch
    assert cfg.train_cfg.max_epochs == epochs
    warm, cosine = cfg.param_scheduler
    assert (warm.end, cosine.begin) == (warmup, warmup) and 'end' not in cosine
    assert cosine.get('eta_min_ratio', 0) * lr + cosine.get('eta_min', 0) == pytest.approx(floor)
    assert (cfg.optim_wrapper.get('clip_grad') or {}).get('max_norm') == clip
    groups = groups_of(model, cfg)
    swin = last == 'norm3'
    first = 'backbone.stages.0.blocks.0.ffn.layers.1.weight' if swin else 'backbone.layers.0.ffn.layers.1.weight'
    top = 'backbone.stages.3.blocks.1.norm2.weight' if swin else f'backbone.layers.{depth - 1}.ln2.weight'
    expected = {'backbone.patch_embed.projection.weight': depth + 1, first: depth, top: 1,
                f'backbone.{last}.weight': 0, 'head.fc.weight': 0}  # fmt: skip
    for parameter, power in expected.items():
        assert groups[parameter]['lr'] == pytest.approx(lr * rate**power), parameter
    block = model.backbone.stages[3].blocks[1] if swin else model.backbone.layers[-1]
    drop = getattr(block, 'drop_path', block.ffn.dropout_layer)  # BEiT's blocks have one for both branches
    assert drop.drop_prob == pytest.approx(drop_path)
    sheet = ast.get_docstring(ast.parse((CONFIGS / f'finetune/{name}.py').read_text()))
    for part in (f'tools/dist_train.sh configs/finetune/{name}.py 8', 'Published: ', 'Cost: '):
        assert part in sheet, part


@pytest.mark.parametrize(
    'name, batch, lr, drop_path, warmup, powers',
    [  # layers above a parameter, of the eight that the rate is decayed over
        ('resnet50_finetune_spark_300e', 2048, 0.016, 0.05, 5, {
            'backbone.conv1.weight': 7, 'backbone.layer1.2.conv3.weight': 6, 'backbone.layer2.1.conv1.weight': 5,
            'backbone.layer2.2.conv1.weight': 4, 'backbone.layer3.2.bn1.weight': 3, 'backbone.layer3.3.conv1.weight': 2,
            'backbone.layer4.0.conv1.weight': 1, 'head.fc.weight': 0}),
        ('convnextt_finetune_300e', 1024, 3.2e-3, 0.2, 40, {
            'backbone.downsample_layers.0.0.weight': 7, 'backbone.stages.0.2.depthwise_conv.weight': 6,
            'backbone.stages.1.0.depthwise_conv.weight': 5, 'backbone.stages.2.2.pointwise_conv1.weight': 4,
            'backbone.stages.2.3.gamma': 3, 'backbone.stages.2.8.norm.weight': 2,
            'backbone.stages.3.0.pointwise_conv2.bias': 1, 'backbone.norm3.weight': 0, 'head.fc.bias': 0}),
    ],
)  # fmt: skip
def test_convolutional_networks(name, batch, lr, drop_path, warmup, powers):
    cfg, model = built(f'finetune/{name}.py')
    guard.check_config(cfg)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == batch
    assert cfg.train_cfg.max_epochs == 300
    warm, cosine = cfg.param_scheduler
    assert warm.end == cosine.begin == warmup and cosine.eta_min_ratio * lr == pytest.approx(1e-6)
    groups, shapes = groups_of(model, cfg), {n: p.ndim for n, p in model.named_parameters()}
    for parameter, power in powers.items():
        assert groups[parameter]['lr'] == pytest.approx(lr * 0.7**power), parameter
    assert {n for n, g in groups.items() if g['weight_decay'] == 0} == {n for n, ndim in shapes.items() if ndim == 1}
    drops = [m.drop_prob for m in model.backbone.modules() if type(m).__name__ == 'DropPath']
    assert max(drops) == pytest.approx(drop_path)
    augment = [step['type'] for step in cfg.train_dataloader.dataset.pipeline]
    trivial = ['NumpyToPIL', 'torchvision/TrivialAugmentWide', 'PILToNumpy']
    assert augment[3:-2] == (trivial if 'spark' in name else ['RandAugment'])
    assert augment[-2:] == ['mim_mm.RandomErasingBox', 'PackInputs']
    sheet = ast.get_docstring(ast.parse((CONFIGS / f'finetune/{name}.py').read_text()))
    assert f'tools/dist_train.sh configs/finetune/{name}.py 8' in sheet and 'Published: ' in sheet


def test_depths_of_swin_by_hand():
    """Swin-B: 2, 2, 18, 2 blocks, 24 in all; a merge of patches belongs to the last block before it."""
    cfg, model = built('finetune/swinb_finetune_simmim_100e.py')
    groups = groups_of(model, cfg)
    powers = {
        'stages.0.blocks.1.attn.w_msa.qkv.weight': 23,
        'stages.0.downsample.reduction.weight': 23,
        'stages.1.blocks.0.norm1.weight': 22,
        'stages.1.downsample.norm.bias': 21,
        'stages.2.blocks.0.attn.w_msa.relative_position_bias_table': 20,
        'stages.2.blocks.17.attn.w_msa.proj.weight': 3,
        'stages.3.blocks.0.attn.w_msa.proj.weight': 2,
    }
    for name, power in powers.items():
        assert groups[f'backbone.{name}']['lr'] == pytest.approx(5e-3 * 0.8**power), name
    spared = {n for n, g in groups.items() if g['weight_decay'] == 0}
    parameters = dict(model.named_parameters())
    assert spared == {n for n, p in parameters.items() if p.ndim == 1 or n.endswith('relative_position_bias_table')}


def test_depths_and_decay_of_beit_by_hand():
    cfg, model = built('finetune/vitb_finetune_beit_100e.py')
    groups = groups_of(model, cfg)
    powers = {'cls_token': 13, 'layers.0.gamma_1': 12, 'layers.0.attn.relative_position_bias_table': 12,
              'layers.5.attn.q_bias': 7, 'layers.11.attn.v_bias': 1, 'ln2.weight': 0}  # fmt: skip
    for name, power in powers.items():
        assert groups[f'backbone.{name}']['lr'] == pytest.approx(4e-3 * 0.65**power), name
    decayed = {n for n, g in groups.items() if g['weight_decay'] == 0.05}
    # BEiT decays its tables; layer scale and split biases have one dimension
    assert decayed == {n for n, p in model.named_parameters() if p.ndim > 1 and not n.endswith('cls_token')}
    assert {g['weight_decay'] for g in groups.values()} == {0, 0.05}
    head = MODELS.build(dict(cfg.model.head, type='mmpretrain.LinearClsHead'))
    head.init_weights()
    assert head.fc.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.05)


@pytest.mark.parametrize('name, mean, std, third', [
    ('vitb_finetune_beit_100e', 127.5, 127.5, 'RandAugment'), ('vitl_finetune_beit_50e', 127.5, 127.5, 'RandAugment'),
    ('vitb_finetune_cae_100e', 123.675, 58.395, 'RandAugment'),
    ('vitl_finetune_cae_50e', 123.675, 58.395, 'RandAugment'),
    ('vitb_finetune_simmim_100e', 123.675, 58.395, 'RandAugment'),
])  # fmt: skip
def test_colours(name, mean, std, third):
    cfg = load(f'finetune/{name}.py')
    assert (cfg.data_preprocessor.mean[0], cfg.data_preprocessor.std[0]) == (mean, std)
    pipeline = cfg.train_dataloader.dataset.pipeline
    kinds = [step.type for step in pipeline]
    ours = ['mim_mm.LazyLoadImageFromFile', 'mim_mm.FastRandomResizedCrop', 'mim_mm.FastRandomFlip']
    assert kinds == [*ours, third, 'mim_mm.RandomErasingBox', 'PackInputs']
    erasing = pipeline[4]
    assert (erasing.erase_prob, erasing.min_area_ratio, erasing.max_area_ratio) == (0.25, 0.02, 1 / 3)
    assert 'erase_box' in pipeline[5].meta_keys and cfg.data_preprocessor.type == 'mim_mm.LabelledPreprocessor'
    assert cfg.train_dataloader.collate_fn.type == 'mim_mm.collate_labelled'
    assert pipeline[1].interpolation == 'bicubic'


@pytest.mark.parametrize('name, rate', [
    ('vitb_finetune_data2vec_100e', 4e-3), ('vitl_finetune_data2vec_50e', 5e-3),
])  # fmt: skip
def test_data2vec_trains_one_table_at_the_heads_rate(name, rate):
    cfg, model = built(f'finetune/{name}.py')
    groups = groups_of(model, cfg)
    tables = [parameter for parameter in groups if parameter.endswith('relative_position_bias_table')]
    assert tables == ['backbone.rel_pos_bias.relative_position_bias_table']
    assert groups[tables[0]]['lr'] == pytest.approx(rate) == groups['head.fc.weight']['lr']


@pytest.mark.parametrize('name, momentum', [
    ('vits_finetune_mocov3_300e', None), ('vitb_finetune_mocov3_150e', None), ('vits_scratch_300e', None),
    ('vitb_lowshot_1pct', None), ('vitb_scratch_300e', 1 - 0.9999), ('vitl_scratch_200e', 1 - 0.9999),
])  # fmt: skip
def test_average_of_the_weights(name, momentum):
    """MAE's runs from scratch measure the average; DeiT's code, and what follows it, the trained weights."""
    cfg, model = built(f'finetune/{name}.py')
    found = [h.momentum for h in cfg.custom_hooks if h.type == 'EMAHook']
    assert found == ([] if momentum is None else [pytest.approx(momentum)])
    assert (cfg.train_dataloader.sampler.type == 'RepeatAugSampler') == (momentum is None)
    assert cfg.optim_wrapper.optimizer.weight_decay == (0.05 if momentum is None else 0.3)
    if 'vits' in name:
        assert model.backbone.layers[0].attn.num_heads == (6 if 'scratch' in name else 12)


@pytest.mark.parametrize('name, size', [
    ('vitb_finetune_ibot_100e', 'bilinear'), ('vitl_finetune_ibot_50e', 'bilinear'), ('vits_finetune_200e', 'bilinear'),
    ('vitb_finetune_100e', 'bicubic'), ('vitb_finetune_beit_100e', 'bicubic'), ('vitb_lowshot_1pct', 'bicubic'),
])  # fmt: skip
def test_how_test_images_are_resized(name, size):
    cfg = load(f'finetune/{name}.py')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resize, crop = loader.dataset.pipeline[1:3]
        assert (resize.type, resize.scale, resize.edge, resize.backend) == ('ResizeEdge', 256, 'short', 'pillow')
        assert resize.interpolation == size and crop.crop_size == 224


def test_supervised_vit_small_is_deits():
    """Six heads, three views of an image, weight decay 0.05; what is measured are the trained weights, no average."""
    cfg, model = built('finetune/vits_scratch_300e.py')
    assert model.backbone.layers[0].attn.num_heads == 6 and model.backbone.embed_dims == 384
    sampler = cfg.train_dataloader.sampler
    assert (sampler.type, sampler.num_repeats) == ('RepeatAugSampler', 3)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05 and cfg.optim_wrapper.optimizer.betas == (0.9, 0.999)
    assert not [hook for hook in cfg.custom_hooks if hook.type == 'EMAHook']


# ---------------------------------------------------------------- our pretrainings, two steps each, then loaded


def pretrained(method, image_folder, tmp_path):
    """The last checkpoint of two steps of configs/{beit,cae,simmim} at test size, and its trained backbone."""
    if method.startswith('simmim'):
        cfg = shrunken(CONFIGS / f'simmim/{method}b_800e.py')
    else:
        cfg = load(f'{method}/{method}_vitb_300e.py')
        dalle = dict(n_hid=8, n_blk_per_group=1, vocab_size=11)
        torch.save(MODELS.build(dict(dalle, type='mmpretrain.DALL-E')).state_dict(), tmp_path / 'dalle.pth')
        options = {k: v for k, v in SHRINK.items() if not k.startswith('model.decoder') and 'pipeline' not in k}
        options |= {'model.tokenizer_checkpoint': str(tmp_path / 'dalle.pth')}
        options |= {f'model.tokenizer.{key}': value for key, value in dalle.items()}
        cae = {'model.neck.num_classes': 11, 'model.neck.num_heads': 2}
        cfg.merge_from_dict(options | (cae if method == 'cae' else {'model.vocabulary': 11}))
        cfg.model.backbone.arch = dict(TINY_ARCH)
        crop = next(t for t in cfg.train_dataloader.dataset.pipeline if 'second_scale' in t)
        crop['scale'] = crop['second_scale'] = 32
    model, _ = run_two_steps(cfg, image_folder, tmp_path / 'run', f'{method}-{tmp_path.name}')
    return tmp_path / 'run' / 'epoch_2.pth', model.backbone


def downstream(recipe, **options):
    """The recipe's backbone at test size, and the options of its loading hook."""
    cfg = load(recipe)
    hook = cfg.custom_hooks[0]
    backbone = cfg.model.backbone
    if 'stages' not in options:
        backbone.update(arch=dict(TINY_ARCH), patch_size=8)
    backbone.update(img_size=options.pop('img_size', 32), **options.pop('stages', {}), **options)
    if '.' not in backbone.type:
        backbone.type = f'mmpretrain.{backbone.type}'
    module = MODELS.build(backbone)
    module.init_weights()
    return module, {k: hook[k] for k in ('rename', 'min_loaded') if k in hook}


@pytest.mark.parametrize('method, recipe, size', [
    ('beit', 'finetune/vitb_finetune_beit_100e.py', 32),
    ('simmim_vit', 'finetune/vitb_finetune_simmim_100e.py', 32),
    ('simmim_vit', 'finetune/vitb_finetune_simmim_100e.py', 48),
])  # fmt: skip
def test_shared_positions_of_our_pretraining_reach_each_block(method, recipe, size, image_folder, tmp_path):
    path, trained = pretrained(method, image_folder, tmp_path)
    target, options = downstream(recipe, img_size=size)
    report = load_encoder(target, path, **options)
    assert report.fraction == 1 and not report.random and set(report.by_design) == {'ln2.weight', 'ln2.bias'}
    tables = {f'layers.{i}.attn.relative_position_bias_table' for i in range(2)}
    assert (set(report.moved) if size == 32 else set(report.resized)) == tables
    assert {n.removeprefix('backbone.') for n in report.unused if 'backbone' in n or '.' not in n} <= {'mask_token'}
    if size == 32:
        images, features = torch.rand(2, 3, 32, 32), []
        trained.train(False), target.train(False)
        for block in (trained.layers[-1], target.layers[-1]):
            block.register_forward_hook(lambda module, args, out: features.append(out))
        trained(images, None), target(images)
        torch.testing.assert_close(features[0], features[1])


def test_cae_keeps_its_norm_and_fixed_positions(image_folder, tmp_path):
    path, trained = pretrained('cae', image_folder, tmp_path)
    target, options = downstream('finetune/vitb_finetune_cae_100e.py')
    report = load_encoder(target, path, **options)
    assert report.fraction == 1 and not report.random and set(report.moved) == {'ln2.weight', 'ln2.bias'}
    assert set(report.by_design) == {f'layers.{i}.attn.relative_position_bias_table' for i in range(2)}
    assert torch.equal(target.pos_embed, trained.pos_embed) and torch.equal(target.ln2.bias, trained.ln1.bias)
    trained.train(False), target.train(False)
    images = torch.rand(2, 3, 32, 32)
    tokens = trained(images, None) if not isinstance(trained(images, None), tuple) else trained(images, None)[0]
    # CAE's encoder ends with its norm; here the norm comes after the mean of the tokens
    (feature,) = target(images)
    assert tokens.shape == (2, 17, 32) and feature.shape == (2, 32)
    cfg, model = built('finetune/vitb_finetune_cae_100e.py')
    groups = groups_of(model, cfg)
    assert groups['backbone.pos_embed']['lr'] == 0 == groups['backbone.pos_embed']['weight_decay']


def test_simmim_swin_loads_with_another_window(image_folder, tmp_path):
    path, trained = pretrained('simmim_swin', image_folder, tmp_path)  # windows of 2 at 64 px
    target, options = downstream(
        'finetune/swinb_finetune_simmim_100e.py', img_size=96, stages=dict(arch=TINY_SWIN, window_size=3)
    )
    report = load_encoder(target, path, **options)
    tables = [n for n, _ in target.named_parameters() if n.endswith('relative_position_bias_table')]
    assert len(tables) == 4 and set(report.resized) == set(tables)
    assert report.fraction == 1 and not report.random and not report.by_design
    own, given = target.state_dict(), trained.state_dict()
    for name in tables:  # offset 0 stays, the farthest offset of 3 x 3 windows is that of 2 x 2
        assert torch.allclose(own[name][12], given[name][4], atol=1e-6)
        assert own[name].shape[0] == 25
    (out,) = target(torch.rand(1, 3, 96, 96))
    assert out.isfinite().all()
