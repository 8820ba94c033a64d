"""The recipes of I-JEPA, data2vec and data2vec 2.0 state what the releases' files state, and build at full size."""

import ast
from pathlib import Path

import built_recipes
import pytest
import torch
from built_recipes import groups_of, load
from input_tokens import data2vec
from mmengine.config import Config

from mim_mm.checkpoint.load import load_encoder
from mim_mm.engine.start import guard
from mim_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
# width, depth, patches; epochs, warm-up, blocks of the predictor. H and g: the release's yaml files.
IJEPA = {
    'ijepa_vith_300e': (1280, 32, 256, 300, 40, 12),
    'ijepa_vith_448px_300e': (1280, 32, 784, 300, 40, 12),
    'ijepa_vith_in22k_66e': (1280, 32, 256, 66, 3, 12),
    'ijepa_vitg_in22k_44e': (1408, 40, 196, 44, 3, 16),
    'ijepa_vitb_600e': (768, 12, 196, 600, 40, 6),
    'ijepa_vitl_600e': (1024, 24, 196, 600, 40, 12),
}
# width, depth; lr, images a step, warm-up, momentum; drop path, dropout of attention, layer scale: its commands.
DATA2VEC = {
    'data2vec_vitb_800e': (768, 12, 2e-3, 2048, 10, 0.9998, 0.25, 0.05, 1e-4),
    'data2vec_vitl_800e': (1024, 24, 1e-3, 4096, 80, 0.9998, 0.2, 0.15, 1e-5),
    'data2vec_vitl_1600e': (1024, 24, 1e-3, 4096, 40, 0.9999, 0.2, 0.15, 1e-5),
}
# width, depth; lr, images a step, epochs, warm-up; steps of the momentum; visible patches, squares; target blocks;
# layers and kernel of the decoder, copies on a GPU: its yaml files, with 512 images and 64 GPUs for ViT-L.
DATA2VEC2 = {
    'data2vec2_vitb_75e': (768, 12, 1e-3, 256, 75, 10, 100_000, 39, 5, 10, 6, 3, 16 * 16),
    'data2vec2_vitl_150e': (1024, 24, 4e-4, 512, 150, 20, 150_000, 49, 7, 18, 3, 5, 8 * 16),
}
IMAGENET = 1_281_167
EVERY = [('ijepa', name) for name in IJEPA] + [('data2vec', name) for name in (*DATA2VEC, *DATA2VEC2)]


def built(folder, name):
    cfg = load(ROOT / f'configs/{folder}/{name}.py')
    guard.check_config(cfg)
    with torch.device('meta'):
        return cfg, MODELS.build(cfg.model)


def test_every_recipe_is_in_a_table():
    for folder, table in (('ijepa', IJEPA), ('data2vec', {**DATA2VEC, **DATA2VEC2})):
        assert {path.stem for path in (ROOT / 'configs' / folder).glob('*.py')} == set(table)


@pytest.mark.parametrize('name', IJEPA)
def test_ijepa(name):
    width, depth, patches, epochs, warm, blocks = IJEPA[name]
    cfg, model = built('ijepa', name)
    grid = model.grid
    assert (grid.embed_dims, len(model.backbone.layers), grid.num_patches, grid.num_prefix) == (
        width,
        depth,
        patches,
        0,
    )
    assert model.backbone.layers[0].ffn.layers[0][0].out_features == (6144 if width == 1408 else 4 * width)
    predictor = model.predictor
    heads = 12 if width == 768 else 16
    assert {layer.attn.num_heads for layer in (*model.backbone.layers, *predictor.predictor_blocks)} == {heads}
    assert len(predictor.predictor_blocks) == blocks and predictor.predictor_embed.out_features == 384
    assert cfg.train_cfg.max_epochs == epochs and cfg.auto_scale_lr.base_batch_size == 2048
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.betas) == (1e-3, 0.04, (0.9, 0.999))
    assert 'clip_grad' not in cfg.optim_wrapper
    first, rest, decay = cfg.param_scheduler
    assert (first.end, rest.begin, first.start_factor, rest.eta_min, decay.eta_min) == (warm, warm, 0.2, 1e-6, 0.4)
    masker = model.masker
    assert (masker.num_targets, masker.min_keep, masker.target_scale) == (4, 10, (0.15, 0.2))
    assert (masker.target_aspect, masker.context_scale) == ((0.75, 1.5), (0.85, 1.0))
    assert dict(cfg.model.momentum) == dict(start=0.996, end=1.0, shape='linear')
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert (crop.scale, crop.crop_ratio_range, crop.interpolation) == (
        patches**0.5 * grid.patch_size,
        (0.3, 1),
        'bilinear',
    )
    assert not [t for t in cfg.train_dataloader.dataset.pipeline if 'Flip' in t.type or 'Jitter' in t.type]


@pytest.mark.parametrize('name', DATA2VEC)
def test_data2vec(name):
    width, depth, lr, batch, warm, momentum, drop_path, dropout, scale = DATA2VEC[name]
    cfg, model = built('data2vec', name)
    layers = model.backbone.layers
    assert (model.grid.embed_dims, len(layers), model.grid.num_patches) == (width, depth, 196)
    assert model.target_blocks == list(range(depth - 6, depth)) and model.beta == 2.0
    assert model.backbone.pos_embed is None and model.backbone.rel_pos_bias is not None
    assert {layer.attn.attn_drop.p for layer in layers} == {dropout}
    assert layers[-1].drop_path.drop_prob == pytest.approx(drop_path) and layers[0].drop_path.drop_prob == 0
    assert cfg.model.backbone.layer_scale_init_value == scale
    assert cfg.model.momentum == momentum and model.teachers[0].mode == 'eval'
    assert cfg.optim_wrapper.optimizer.lr == lr and cfg.optim_wrapper.clip_grad == dict(max_norm=3.0)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05 and cfg.optim_wrapper.paramwise_cfg.no_decay == [
        'cls_token', 'pos_embed'
    ]  # fmt: skip
    assert cfg.auto_scale_lr.base_batch_size == batch == 8 * cfg.train_dataloader.batch_size
    assert [s.get('end', s.get('begin')) for s in cfg.param_scheduler] == [warm, warm]
    assert cfg.param_scheduler[1].eta_min == 1e-5 and cfg.train_cfg.max_epochs == 800
    assert dict(cfg.model.masker) == dict(type='BlockMasking', ratio=120 / 196, fill='none')


@pytest.mark.parametrize('name', DATA2VEC2)
def test_data2vec2(name):
    width, depth, lr, batch, epochs, warm, steps, shown, squares, targets, layers, kernel, copies = DATA2VEC2[name]
    cfg, model = built_recipes.built(f'data2vec/{name}.py')
    assert (model.grid.embed_dims, len(model.backbone.layers), model.grid.num_patches) == (width, depth, 196)
    assert model.target_blocks == list(range(depth - targets, depth))
    assert not model.backbone.final_norm and model.backbone.layers[-1].ffn.dropout_layer.drop_prob == 0
    assert model.backbone.patch_embed.projection.bias is not None and not model.backbone.pos_embed.requires_grad
    decoder = model.decoder
    assert [(c.kernel_size[0], c.groups, c.out_channels) for c in decoder.decoder_blocks] == [
        (kernel, 16, width)
    ] * layers
    assert model.cls_weight == pytest.approx(0.01 * copies) and model.noise_std == 0.01
    assert dict(cfg.model.momentum) == dict(start=0.9998, end=0.99999, steps=steps)
    masker = model.masker
    assert (masker.num_parts, masker.block, masker.num_squares(196)) == (16, 3, squares)
    assert masker.counts(196) == [(shown, 196 - shown, 0)] * 16
    assert cfg.auto_scale_lr.base_batch_size == batch == 8 * cfg.train_dataloader.batch_size
    assert [s.get('end', s.get('begin')) for s in cfg.param_scheduler] == [warm, warm]
    assert cfg.train_cfg.max_epochs == epochs
    # 375,300 steps, 50,040 of them warm-up
    assert (IMAGENET // batch) * epochs == 375_300 and (IMAGENET // batch) * warm == 50_040
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (lr, (0.9, 0.95), 0.05)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=4.0)
    assert {group['weight_decay'] for group in groups_of(model, cfg).values()} == {0.05}, 'nothing is exempt'
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert (crop.scale, crop.crop_ratio_range, crop.interpolation) == (224, (0.2, 1.0), 'bicubic')


@pytest.mark.parametrize(
    'name, width, depth, lr, decay, drop_path, floor, epochs',
    [
        ('vitb_finetune_data2vec2_100e', 768, 12, 1e-3, 0.65, 0.1, 1e-6, 100),
        ('vitl_finetune_data2vec2_50e', 1024, 24, 5e-4, 0.75, 0.2, 1e-7, 50),
    ],
)
def test_data2vec2_is_tuned_as_released(name, width, depth, lr, decay, drop_path, floor, epochs):
    cfg, model = built_recipes.built(f'finetune/{name}.py')
    backbone = model.backbone
    assert (backbone.embed_dims, len(backbone.layers), backbone.out_type) == (width, depth, 'avg_featmap')
    assert type(backbone).__name__ == 'PostNormViT' and backbone.ln2.eps == 1e-6 and not backbone.final_norm
    assert backbone.layers[-1].ffn.dropout_layer.drop_prob == pytest.approx(drop_path)
    found = groups_of(model, cfg)
    assert 'backbone.pos_embed' not in found and {g['weight_decay'] for g in found.values()} == {0.05}
    for key, group in found.items():
        # blocks alone, the last one once decayed
        above = depth - int(key.split('.')[2]) if key.startswith('backbone.layers.') else 0
        assert group['lr'] == pytest.approx(lr * decay**above), key
    first, rest = cfg.param_scheduler
    steps = IMAGENET // 512
    assert cfg.auto_scale_lr.base_batch_size == 512 and steps * epochs == {100: 250_200, 50: 125_100}[epochs]
    assert int(first.end * steps) == int(rest.begin * steps) == 16_000
    assert rest.eta_min == floor == pytest.approx(first.start_factor * lr) and cfg.train_cfg.max_epochs == epochs
    assert cfg.optim_wrapper.optimizer.betas == (0.9, 0.95)
    assert cfg.optim_wrapper.get('clip_grad') == (dict(max_norm=4.0) if depth == 24 else None)
    augments = cfg.model.train_cfg
    assert [a.alpha for a in augments.augments] == [0.7, 1.0] and augments.probs == [0.45, 0.45]


def test_the_second_run_of_data2vec_takes_the_student_alone(tmp_path):
    torch.manual_seed(0)
    first, second = data2vec(), data2vec()
    with torch.no_grad():
        for parameter in first.teacher.parameters():
            parameter.add_(1.0)
    torch.save({'state_dict': first.state_dict()}, tmp_path / 'epoch_800.pth')
    hook = load(ROOT / 'configs/data2vec/data2vec_vitl_1600e.py').custom_hooks[0]
    target = second.get_submodule(hook.target)
    report = load_encoder(target, tmp_path / 'epoch_800.pth', hook.prefix, hook.min_loaded, hook.skip)
    assert target is second and all(name.startswith('teacher.') for name in report.random)
    for name, value in second.state_dict().items():
        if not name.startswith('teacher.'):
            assert torch.equal(value, first.state_dict()[name]), name
    assert not second.teachers[0].settled, 'it is renewed before the first step'


@pytest.mark.parametrize('folder, name', EVERY)
def test_run_sheet(folder, name):
    sheet = ast.get_docstring(ast.parse((ROOT / f'configs/{folder}/{name}.py').read_text()))
    assert f'tools/dist_train.sh configs/{folder}/{name}.py 8' in sheet
    for line in ('Published: ', 'Cost: '):
        assert line in sheet, line
    assert ('A config of ours' in sheet) == (name in ('ijepa_vitb_600e', 'ijepa_vitl_600e'))


@pytest.mark.parametrize('name', ['ijepa_vith_300e', 'ijepa_vitb_600e', 'data2vec_vitb_800e', 'data2vec2_vitb_75e'])
def test_chains_name_existing_recipes(name):
    chain = Config.fromfile(ROOT / f'configs/chains/{name}.py')
    assert chain.name == name and chain.work_dir == f'work_dirs/{name}'
    stages = [stage for stage in chain.stages.values() if stage.kind != 'report']
    assert all((ROOT / stage.config).is_file() for stage in stages)
    folder = 'data2vec' if name.startswith('data2vec') else name.split('_')[0]
    assert f'configs/{folder}/{name}.py' in [stage.config for stage in stages]
