"""The probes of MoCo v3, DINO, iBOT, BEiT, BootMAE and CAE: what they state is what was published, and each runs.

Only what a user may set with --cfg-options is changed for the runs: sizes, batch, duration, data roots.
"""

import ast
import json
import re

import pytest
import torch
from built_recipes import CONFIGS, built, load
from downstream import ARCH, IMAGE_OPTIONS, metrics_of, small
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import BEiTViT, VisionTransformer
from mmpretrain.models.selfsup import BEiTPretrainViT, CAEPretrainViT

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.engine.start import guard
from mim_mm.evaluation.probes.layer_norm_l2 import LayerNormL2

# protocols.md 1.1, 1.4 to 1.6. optimizer: type, rate, momentum or None, decay; images a step; epochs, warm-up;
# resizing of train and test images; width of the feature.
SGD = 'SGD'
RECIPES = {
    'vits_mocov3_90e': ((SGD, 12.0, 0.9, 0.0), 1024, (90, 0), ('bilinear', 'bilinear'), 384),
    'vitb_mocov3_90e': ((SGD, 12.0, 0.9, 0.0), 1024, (90, 0), ('bilinear', 'bilinear'), 768),
    'vits_dino_100e': ((SGD, 0.004, 0.9, 0.0), 1024, (100, 0), ('bilinear', 'bicubic'), 1536),
    'vits_msn_100e': ((SGD, 6.4, 0.9, 0.0), 8192, (100, 0), ('bilinear', 'bilinear'), 384),
    'vitb_dino_100e': ((SGD, 0.004, 0.9, 0.0), 1024, (100, 0), ('bilinear', 'bicubic'), 1536),
    'vits_ibot_100e': ((SGD, 4.0, 0.9, 0.0), 1024, (100, 0), ('bilinear', 'bicubic'), 1536),
    'vitb_ibot_100e': ((SGD, 4.0, 0.9, 0.0), 1024, (100, 0), ('bilinear', 'bicubic'), 1536),
    'vitl_ibot_100e': ((SGD, 4.0, 0.9, 0.0), 1024, (100, 0), ('bilinear', 'bicubic'), 2048),
    'vitb_beit_100e': (('AdamW', 0.004, None, 1e-4), 1024, (100, 0), ('bilinear', 'bicubic'), 1536),
    'vitb_bootmae_90e': (('mim_mm.LARS', 6.4, 0.9, 0.0), 16384, (90, 10), ('bicubic', 'bicubic'), 768),
    'vitl_bootmae_50e': (('mim_mm.LARS', 4.48, 0.9, 0.0), 16384, (50, 10), ('bicubic', 'bicubic'), 1024),
    'vitb_cae_linear_90e': (('mim_mm.LARS', 6.4, 0.9, 0.0), 16384, (90, 10), ('bicubic', 'bicubic'), 768),
    'vitl_cae_linear_90e': (('mim_mm.LARS', 6.4, 0.9, 0.0), 16384, (90, 10), ('bicubic', 'bicubic'), 1024),
    'vitb_ijepa_50e': (('mim_mm.LARS', 6.4, 0.9, 0.0), 16384, (50, 10), ('bicubic', 'bicubic'), 768),
    'vitl_ijepa_50e': (('mim_mm.LARS', 6.4, 0.9, 0.0), 16384, (50, 10), ('bicubic', 'bicubic'), 1024),
    'vith_ijepa_50e': (('mim_mm.LARS', 6.4, 0.9, 0.0), 16384, (50, 10), ('bicubic', 'bicubic'), 1280),
    'vitb_cae_attentive_90e': ((SGD, 0.4, 0.9, 0.0), 8192, (90, 10), ('bicubic', 'bicubic'), 768),
    'vitl_cae_attentive_90e': ((SGD, 0.4, 0.9, 0.0), 8192, (90, 10), ('bicubic', 'bicubic'), 1024),
}


def test_every_recipe_is_in_a_table():
    found = {path.stem for path in (CONFIGS / 'linear').glob('*.py')}
    elsewhere = {name for name in found if re.match(r'vit._(linear_|quick_probe)', name)}
    assert found - elsewhere == set(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_as_published(name):
    (kind, lr, momentum, decay), batch, (epochs, warmup), interpolations, width = RECIPES[name]
    cfg, model = built(f'linear/{name}.py')
    guard.check_config(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.get('momentum'), optimizer.weight_decay) == (kind, momentum, decay)
    assert optimizer.lr == pytest.approx(lr)
    assert cfg.auto_scale_lr.base_batch_size == batch == 8 * cfg.train_dataloader.batch_size
    assert cfg.train_cfg.max_epochs == epochs and str(epochs) in name
    schedule = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    kinds = ['mim_mm.WarmupLR', 'mim_mm.HalfCosineLR'] if warmup else ['CosineAnnealingLR']
    kinds = ['mim_mm.HalfCosineLR'] if 'msn' in name else kinds
    assert [s.type for s in schedule] == kinds
    # MAE's family and MSN set the rate every iteration, MoCo's and DINO's once an epoch
    assert all(s.get('convert_to_iter_based', False) == bool(warmup or 'msn' in name) for s in schedule)
    assert optimizer.get('nesterov', False) == ('msn' in name or 'attentive' in name)
    assert not {'end', 'T_max'} & set(schedule[-1]) and all(s.get('by_epoch', True) for s in schedule)
    assert not warmup or schedule[0].end == schedule[1].begin == warmup
    held_out = cfg.val_dataloader.dataset.get('datasets')
    test_sets = [cfg.val_dataloader.dataset, cfg.test_dataloader.dataset] if held_out is None else held_out
    assert cfg.train_dataloader.dataset.pipeline[1].interpolation == interpolations[0]
    assert {data.pipeline[1].interpolation for data in test_sets} == {interpolations[1]}
    one_draw = cfg.train_dataloader.dataset.pipeline[1].type == 'mim_mm.MAERandomResizedCrop'
    assert one_draw == (kind == 'mim_mm.LARS')
    half = 'beit' in name or 'bootmae' in name
    assert cfg.data_preprocessor.mean == ([127.5] * 3 if half else [123.675, 116.28, 103.53])

    trained = {n.split('.')[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == ({'head', 'neck'} if 'attentive' in name or 'msn' in name else {'head'})
    if 'ibot' in name:
        heads = model.head.probes
        assert [p.lr for p in heads] == pytest.approx([f * 10**e for e in range(-4, 1) for f in range(1, 10)])
        assert {(p.blocks, p.pooling) for p in heads} == {(4, 'cls') if 'vits' in name else (1, 'cls_mean')}
        assert {p.numel() for p in model.head.parameters() if p.ndim > 1} == {1000 * width}
    else:
        assert {p.shape[1] for n, p in model.head.named_parameters() if p.ndim > 1} == {width}
    heads = {'vits_mocov3_90e': 12, 'vits_dino_100e': 6, 'vits_ibot_100e': 6, 'vits_msn_100e': 6}.get(
        name, 12 if 'vitb' in name or 'vits' in name else 16
    )
    assert model.backbone.layers[0].attn.num_heads == heads
    depth = {'vitb_bootmae_90e': 10, 'vitl_bootmae_50e': 18, 'vith_ijepa_50e': 32}.get(
        name, 24 if 'vitl' in name else 12
    )
    assert len(model.backbone.layers) == depth


@pytest.mark.parametrize('name', RECIPES)
def test_form(name):
    sheet = ast.get_docstring(ast.parse((CONFIGS / f'linear/{name}.py').read_text()))
    assert f'tools/dist_train.sh configs/linear/{name}.py 8 --cfg-options init=CKPT' in sheet
    assert all(part in sheet for part in ('Published', 'Cost: '))
    hooks = load(f'linear/{name}.py').custom_hooks
    assert hooks[0].type == 'mim_mm.LoadPretrainedHook' and hooks[0].checkpoint is None
    batch_norm = any(word in name for word in ('bootmae', 'cae', 'ijepa'))
    assert any(h.type == 'SyncBuffersHook' for h in hooks) == batch_norm
    assert hooks[0].get('complete', False) == ('bootmae' not in name)  # whose norm after pooling nobody has trained


# ---------------------------------------------------------------- two iterations of each kind


def plain_vit(**options):
    return VisionTransformer(arch=ARCH, img_size=32, patch_size=16, **options)


def no_cls():
    return plain_vit(with_cls_token=False, out_type='raw')


def cae():
    return CAEPretrainViT(arch=ARCH, img_size=32, patch_size=16, layer_scale_init_value=0.1)


def beit():
    return BEiTPretrainViT(arch=ARCH, img_size=32, patch_size=16)


def saved(path, source, rename=lambda name: f'backbone.{name}', container='state_dict'):
    """The encoder with values of its own everywhere, norms, positions and layer scales included."""
    for name, value in source.named_parameters():
        value.data = torch.randn_like(value) * 0.2 + ('ln' in name and 'weight' in name)
    torch.save({container: {rename(k): v for k, v in source.state_dict().items()}}, path)
    return source


def two_iterations(name, tmp_path, width, **options):
    """A run of one epoch on 24 images of three classes, from ``tmp_path/a.pth``."""
    cfg = load(f'linear/{name}.py')
    given = {**IMAGE_OPTIONS, 'init': str(tmp_path / 'a.pth'), 'train_cfg.max_epochs': 1}
    given |= {'model.head.in_channels': width, 'default_hooks.logger.interval': 1}
    scheduled = isinstance(cfg.param_scheduler, list) and len(cfg.param_scheduler) == 2
    given |= {'param_scheduler.0.end': 0.5, 'param_scheduler.1.begin': 0.5} if scheduled else {}
    if not scheduled:
        given = {k: v for k, v in given.items() if not k.startswith('param_scheduler')}
    if 'ibot' in name:
        del given['model.head.in_channels'], given['val_evaluator.topk']
        given = {k: v for k, v in given.items() if not k.startswith('val_dataloader')}
        given |= {f'val_dataloader.dataset.datasets.{i}.pipeline.1.scale': 36 for i in (0, 1)}
        given |= {f'val_dataloader.dataset.datasets.{i}.pipeline.2.crop_size': 32 for i in (0, 1)}
        given['train_dataloader.batch_size'] = 10
    given |= options
    runner = Runner.from_cfg(small(cfg, tmp_path / 'run', **given))
    kept = KeepStart()
    runner.register_hook(kept, 'LOWEST')
    runner.train()
    changed = {k for k, v in runner.model.state_dict().items() if not torch.equal(v, kept.state[k])}
    return runner, changed


class KeepStart(Hook):
    """The weights as they are once the encoder is loaded."""

    def before_train(self, runner):
        self.state = {k: v.clone() for k, v in runner.model.state_dict().items()}


def layer_norm(x, norm):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


@torch.no_grad()
def blocks_of(source, images):
    found = []
    handles = [layer.register_forward_hook(lambda m, a, out: found.append(out)) for layer in source.layers]
    source.eval()
    source(images) if isinstance(source, VisionTransformer) else source(images, None)
    for handle in handles:
        handle.remove()
    return found


NECK = {'model.neck.input_features': 32, 'model.backbone.frozen_stages': 4}
ATTENTIVE = {'model.neck.embed_dims': 32, 'model.neck.num_heads': 2}


@pytest.mark.parametrize(
    'name, make, width, options, feature',
    [
        ('vits_mocov3_90e', plain_vit, 32, {}, lambda s, x: layer_norm(x[3][:, 0], s.ln1)),
        ('vits_dino_100e', plain_vit, 128, {}, lambda s, x: torch.cat([layer_norm(t[:, 0], s.ln1) for t in x], 1)),
        ('vits_msn_100e', plain_vit, 32, {'model.neck.embed_dims': 32}, lambda s, x: x[3][:, 0]),
        ('vitb_dino_100e', plain_vit, 64, {},
         lambda s, x: torch.cat([layer_norm(x[3], s.ln1)[:, 0], layer_norm(x[3], s.ln1)[:, 1:].mean(1)], 1)),
        ('vitb_cae_attentive_90e', cae, 32, ATTENTIVE, lambda s, x: layer_norm(x[3], s.ln1)),
        ('vitb_ijepa_50e', no_cls, 32, {'model.neck.input_features': 32},
         lambda s, x: layer_norm(x[3], s.ln1).mean(1)),
        ('vitb_beit_100e', beit, 64, {'model.blocks': [2]},
         lambda s, x: torch.cat([x[2][:, 0], x[2][:, 1:].mean(1)], 1)),
    ],
)  # fmt: skip
def test_frozen_probes_run(tmp_path, image_folders, name, make, width, options, feature):
    where = 'teacher.' if 'ijepa' in name else 'backbone.'
    source = saved(tmp_path / 'a.pth', make(), lambda key: where + key)
    runner, changed = two_iterations(name, tmp_path, width, **options)
    assert runner.iter == 2 and any('accuracy/top1' in row for row in metrics_of(tmp_path / 'run'))
    neck = any(word in name for word in ('attentive', 'ijepa', 'msn'))  # trained, or with statistics
    assert {n.split('.')[0] for n in changed} == ({'head', 'neck'} if neck else {'head'})
    images = torch.randn(3, 3, 32, 32)
    wanted = feature(source, blocks_of(source, images))
    torch.testing.assert_close(runner.model.features(images), wanted, atol=1e-4, rtol=1e-3)
    report = json.loads((tmp_path / 'run/load_report.json').read_text())
    assert report['fraction'] == 1.0 and not report['by_design']


def test_msns_neck():
    neck, feature = LayerNormL2(5).double(), torch.randn(3, 5, dtype=torch.float64)
    neck.norm.weight.data.copy_(torch.arange(1.0, 6.0))
    found = neck((None, feature))[0].detach().numpy()
    x = feature.numpy()
    x = (x - x.mean(1, keepdims=True)) / (x.var(1, keepdims=True) + 1e-5) ** 0.5 * [1, 2, 3, 4, 5]
    assert abs(found - x / (x**2).sum(1, keepdims=True) ** 0.5).max() < 1e-12


def test_the_rate_is_set_once_an_epoch(tmp_path, image_folders):
    saved(tmp_path / 'a.pth', plain_vit())
    two_iterations('vitb_dino_100e', tmp_path, 64, **{'train_cfg.max_epochs': 2})
    rates = [row['lr'] for row in metrics_of(tmp_path / 'run') if 'loss' in row]
    assert rates == pytest.approx([0.004, 0.004, 0.002, 0.002])  # a cosine of two epochs, two iterations each


@pytest.mark.parametrize('name, make', [('vitb_cae_linear_90e', cae), ('vitb_bootmae_90e', plain_vit)])
def test_probes_of_maes_kind_run(tmp_path, image_folders, name, make):
    source = saved(tmp_path / 'a.pth', make())
    arch = {} if 'cae' in name else {
        'model.backbone.arch': dict(ARCH, num_layers=3, _delete_=True), 'model.backbone.frozen_stages': 3}  # fmt: skip
    runner, changed = two_iterations(name, tmp_path, 32, **{**NECK, **arch})
    assert runner.iter == 2 and {n.split('.')[0] for n in changed} == {'head', 'neck'}
    statistics = {f'neck.bn.{n}' for n in ('running_mean', 'running_var', 'num_batches_tracked')}
    assert {n for n in changed if n.startswith('neck')} == statistics
    images = torch.randn(3, 3, 32, 32)
    x = blocks_of(source, images)
    runner.model.eval()
    (found,) = runner.model.backbone(images)
    if 'cae' in name:
        wanted = layer_norm(x[3][:, 0], source.ln1)
    else:  # the third of four blocks, then a norm that stays at its start
        wanted = torch.nn.functional.layer_norm(x[2][:, 1:].mean(1), (32,), eps=1e-6)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('name, width', [('vits_ibot_100e', 128), ('vitb_ibot_100e', 64)])
def test_ibots_sweep_runs(tmp_path, image_folders, name, width):
    saved(tmp_path / 'a.pth', plain_vit())
    runner, changed = two_iterations(name, tmp_path, None)
    assert runner.iter == 2 and {n.split('.')[0] for n in changed} == {'head'}
    found = json.loads((tmp_path / 'run/probe_heads.json').read_text())
    assert len(found['heads']) == 45 and found['images'] == {'held_out': 3, 'test': 6}
    assert {p.shape[-1] for p in runner.model.head.parameters() if p.ndim > 1} == {width}


# ---------------------------------------------------------------- what may be loaded


def as_released(name):
    """The names of BEiT's and CAE's own files."""
    for ours, theirs in (('patch_embed.projection', 'patch_embed.proj'), ('ffn.layers.0.0', 'mlp.fc1'),
                         ('ffn.layers.1', 'mlp.fc2'), ('layers.', 'blocks.'), ('.ln', '.norm')):  # fmt: skip
        name = name.replace(ours, theirs)
    return re.sub(r'^ln1', 'norm', name)


@pytest.mark.parametrize('make, prefix', [(cae, 'encoder.'), (beit, '')])
def test_released_files_give_the_same_features(tmp_path, make, prefix):
    source = saved(tmp_path / 'a.pth', make(), lambda n: prefix + as_released(n), 'model')
    names = torch.load(tmp_path / 'a.pth')['model']
    assert {f'{prefix}blocks.1.{n}' for n in ('gamma_1', 'attn.q_bias', 'mlp.fc1.weight', 'norm1.bias')} <= set(names)
    if make is cae:
        target = plain_vit(layer_scale_init_value=0.1)
    else:
        target = BEiTViT(arch=ARCH, img_size=32, patch_size=16, use_rel_pos_bias=False, use_shared_rel_pos_bias=True,
                         final_norm=True, out_type='cls_token')  # fmt: skip
    report = load_encoder(target, tmp_path / 'a.pth')
    assert report.fraction == 1.0 and not report.by_design and not report.random
    images = torch.randn(2, 3, 32, 32)
    for wanted, found in zip(blocks_of(source, images), all_blocks(target, images), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_one_table_of_positions_becomes_one_a_block(tmp_path):
    """For fine-tuning, where each block trains its own; mmpretrain's own expansion misses keys with a prefix."""
    source = saved(tmp_path / 'a.pth', beit())
    target = BEiTViT(arch=ARCH, img_size=32, patch_size=16, use_rel_pos_bias=True, final_norm=True, out_type='raw')
    report = load_encoder(target, tmp_path / 'a.pth')
    assert report.fraction == 1.0 and not report.by_design and not report.random
    tables = [layer.attn.relative_position_bias_table for layer in target.layers]
    assert len({t.data_ptr() for t in tables}) == 4
    images = torch.randn(2, 3, 32, 32)
    for wanted, found in zip(blocks_of(source, images), all_blocks(target, images), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def all_blocks(model, images):
    found = []
    for layer in model.layers:
        layer.register_forward_hook(lambda m, a, out: found.append(out))
    model.eval()
    model(images)
    return found


def refused(tmp_path, name, width, match, **options):
    with pytest.raises(LoadError, match=match):
        two_iterations(name, tmp_path, width, **options)


def test_an_encoder_that_is_not_complete_is_refused(tmp_path, image_folders):
    """Each of these passes the 95 % rule, and each would be probed with features nobody trained."""
    saved(tmp_path / 'a.pth', plain_vit())  # no layer scale: CAE's would stay at 0.1
    refused(tmp_path, 'vitb_cae_linear_90e', 32, r'leaves 8 parameters.*gamma', **NECK)
    saved(tmp_path / 'a.pth', plain_vit(final_norm=False))
    refused(tmp_path, 'vits_dino_100e', 128, 'ln1.weight')
    tables = BEiTViT(arch=ARCH, img_size=32, patch_size=16)  # a table a block, as fine-tuned files have
    saved(tmp_path / 'a.pth', tables)
    refused(tmp_path, 'vitb_beit_100e', 64, 'leaves 1 par.*relative_position_bias_table', **{'model.blocks': [2]})


def test_encoders_without_layer_scale_in_the_attentive_probe(tmp_path, image_folders):
    saved(tmp_path / 'a.pth', plain_vit())
    options = {**ATTENTIVE, 'model.backbone.layer_scale_init_value': 0}
    runner, changed = two_iterations('vitb_cae_attentive_90e', tmp_path, 32, **options)
    assert runner.iter == 2 and {n.split('.')[0] for n in changed} == {'head', 'neck'}
