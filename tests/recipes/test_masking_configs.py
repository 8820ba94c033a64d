"""Recipes of masking strategies and mask-token methods: built at full size, and two steps of each at test size."""

import ast
import json
import math
from pathlib import Path

import pytest
import torch
from built_recipes import load
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from pretrainings import parts_of_name, run_two_steps, shrunken
from tiny_run import SHRINK, TINY_ARCH

from mim_mm.engine.start import guard
from mim_mm.registry import MODELS, PARAM_SCHEDULERS

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [
    path
    for folder in ('sbam', 'amr', 'simmim', 'bootmae', 'cmae')
    for path in sorted((ROOT / 'configs' / folder).glob('*.py'))
    if not {'ibot', 'msn'} & set(path.stem.split('_'))  # of several views: tests/algorithms
]
WITH_TOKENIZER = [ROOT / 'configs/beit/beit_vitb_300e.py', ROOT / 'configs/cae/cae_vitb_300e.py']
EVERY = pytest.mark.parametrize('path', RECIPES, ids=lambda p: p.stem)
EXPECTED = {
    'sbam': {'mae_vitb_400e', 'mae_vitb_800e', 'mae_vitl_400e', 'mae_vitl_800e', 'simmim_swinb_800e',
             'simmim_vitb_800e', 'emae_vitb_300e', 'emae_vitb_800e', 'bootmae_vitb_800e', 'cmae_vitb_300e',
             'ibot_vitb_400e', 'msn_vits_800e'},
    'simmim': {'swinb_800e', 'vitb_800e'},
    'bootmae': {'vitb_800e', 'vitl_800e'},
}  # fmt: skip
EXPECTED['amr'] = EXPECTED['sbam']


def test_the_recipes_of_the_paper_and_their_relatives_are_there():
    for folder, names in EXPECTED.items():
        assert {p.stem for p in (ROOT / 'configs' / folder).glob('*.py')} == {f'{folder}_{name}' for name in names}


def check_bootmae(cfg, family, large):
    """What the scripts of the release state."""
    points = [(0, 0.999), (100, 0.9999)] + ([] if large else [(400, 0.99999)])
    assert [tuple(point) for point in cfg.model.momentum] == points
    assert cfg.optim_wrapper.optimizer.betas == (0.9, 0.95) and 'clip_grad' not in cfg.optim_wrapper
    warm, cosine = cfg.param_scheduler
    assert (warm.end, warm.like, cosine.like, cosine.eta_min) == (40, 'beit', 'beit', 1e-5 if large else 1e-4)
    assert cfg.model.data_preprocessor.mean == cfg.model.data_preprocessor.std == [127.5] * 3
    if family is None:
        assert dict(cfg.model.masker) == dict(
            type='BlockMasking', ratio=147 / 196, block_ratio=120 / 196, max_block=60, fill='blocks', roll=3
        )


@EVERY
def test_the_config_is_what_its_name_says(path):
    cfg = load(path)
    guard.check_config(cfg)
    family, method, _, _, epochs = parts_of_name(path)
    kinds = {'mae': 'MAE', 'emae': 'EMAE', 'cmae': 'CMAE', 'simmim': 'SimMIM', 'bootmae': 'BootMAE'}
    assert cfg.model.type == kinds[method]
    assert cfg.train_cfg.max_epochs == epochs + (method == 'bootmae')  # the release has 801
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size * accumulated
    if method == 'simmim':
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * 2048 / 512)
        assert cfg.optim_wrapper.optimizer.betas == (0.9, 0.999) and cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
        assert cfg.param_scheduler[1].milestones == [epochs * 7 // 8]
    else:
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
    masker = cfg.model.masker
    if method == 'bootmae':
        check_bootmae(cfg, family, large='vitl' in path.stem)
    if family is None:
        if method != 'bootmae':
            assert masker == dict(type='RandomMasking', ratio=0.65 if method == 'cmae' else 0.6)
        return
    assert masker.type == ('SalienceParallelMasking' if method == 'emae' else 'SalienceMasking')
    assert masker.random_epochs == 100
    hooks = [hook.type for hook in cfg.custom_hooks]
    watch = ['AgreementWatchHook'] if method == 'emae' else []
    assert hooks == ['MaskDiagnosticsHook', *watch] and cfg.default_hooks.finite == dict(type='mim_mm.FiniteHook')
    assert cfg.default_hooks.clock == dict(type='mim_mm.ClockHook')
    base = {'simmim': 0.6, 'cmae': 128 / 196}.get(method, 0.75)
    if family == 'amr':
        wanted = dict(type='AdaptiveRatio', base=base, delta_r=0.1, threshold=0.5, scope='per_image')
        if method == 'bootmae':  # one length for all images; less peaked salience
            wanted.update(threshold=0.3, scope='per_batch')
        assert masker.ratio == wanted
    elif method == 'emae':
        assert masker.num_parts == 4 and masker.mode == 'balanced' and 'ratio' not in masker
    else:
        assert masker.ratio == base and masker.noise == 0.5


@EVERY
def test_the_model_builds_at_full_size(path):
    cfg = load(path)
    _, method, backbone, size, _ = parts_of_name(path)
    # Shapes are what matters; Swin reads values while it is built.
    with torch.device('cpu' if backbone == 'swin' else 'meta'):
        model = MODELS.build(cfg.model)
    grid = model.grid
    pixels = 192 if backbone == 'swin' else 224
    assert (grid.height * grid.patch_size, grid.width * grid.patch_size) == (pixels, pixels)
    assert cfg.train_dataloader.dataset.pipeline[1].scale == (256 if method == 'cmae' else pixels)
    assert grid.embed_dims == {'vitb': 768, 'vitl': 1024, 'swinb': 128}[backbone + size]
    count = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    assert count == pytest.approx({'vitb': 85.7, 'vitl': 303.3, 'swinb': 86.7}[backbone + size], abs=0.2)
    if method == 'simmim':
        assert grid.num_patches == (36 if backbone == 'swin' else 49)
        plan = MODELS.build(dict(type='RandomMasking', ratio=0.6))(torch.zeros(1, grid.num_patches, 1))
        assert plan.mask.sum() == (22 if backbone == 'swin' else 30)  # the published counts
        stride = 32 if backbone == 'swin' else 16
        assert model.neck.decoder[0].out_channels == 3 * stride**2
    else:
        assert grid.num_patches == 196


@EVERY
def test_run_sheet(path):
    sheet = ast.get_docstring(ast.parse(path.read_text()))
    assert f'tools/dist_train.sh configs/{path.parent.name}/{path.name} 8' in sheet
    for line in ('Published: ', 'Cost: '):
        assert line in sheet, line
    if path.parent.name == 'amr':
        assert 'Values: nobody published any' in sheet


@pytest.mark.parametrize('backbone, exempt', [
    ('swin', {'mask_token'}),
    ('vit', {'cls_token'}),
])  # fmt: skip
def test_weight_decay_spares_what_the_release_spares(backbone, exempt):
    cfg = shrunken(ROOT / f'configs/simmim/simmim_{backbone}b_800e.py')
    model = MODELS.build(cfg.model)
    cfg.optim_wrapper.optimizer.pop('fused')
    init_default_scope('mim_mm')
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    spared = {name for name, p in model.named_parameters() if p.requires_grad and decay[id(p)] == 0}
    assert {name.split('.')[-1] for name in spared if model.get_parameter(name).ndim > 1} == exempt
    assert all(name in spared for name, p in model.named_parameters() if p.ndim <= 1)


def test_simmim_drops_its_rate_at_epoch_700():
    """An epoch is one step here, and each rate that of the step before: timm's schedulers run after the optimizer."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = []
    for options in load('simmim/simmim_vitb_800e.py').param_scheduler:
        built = PARAM_SCHEDULERS.build(dict(options, end=options.get('end', 800)), default_args=dict(
            optimizer=optimizer, epoch_length=1
        ))  # fmt: skip
        schedulers.append(built)
    rates = []
    for _ in range(800):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    assert rates[:2] == pytest.approx([0.005] * 2) and rates[6] == pytest.approx(0.005 + 0.995 * 5 / 10)
    assert rates[11:701] == pytest.approx([1.0] * 690) and rates[701:] == pytest.approx([0.1] * 99)


@EVERY
def test_two_steps_train(path, image_folder, tmp_path):
    """One epoch of random masks and one guided."""
    model, changed = run_two_steps(shrunken(path), image_folder, tmp_path, path.stem)
    assert any(name.startswith('backbone.') for name in changed)
    if parts_of_name(path)[0]:
        assert model.masker.clock.epoch == 1 and not model.masker.warming_up
        looks = [json.loads(line) for line in (tmp_path / 'mask_diagnostics.jsonl').read_text().splitlines()]
        assert [look['iter'] for look in looks] == [1, 2] and all(math.isfinite(look['mask_ratio']) for look in looks)


@pytest.mark.parametrize('path', WITH_TOKENIZER, ids=lambda p: p.stem)
def test_recipes_with_a_tokenizer_train_and_want_its_weights(path, image_folder, tmp_path):
    """With a small random tokenizer: 4 x 4 tokens of 32-px views beside 4 x 4 patches of 32-px images."""
    cfg = load(path)
    guard.check_config(cfg)
    with pytest.raises(ValueError, match='tokenizer_checkpoint'), torch.device('meta'):
        MODELS.build(cfg.model)
    dalle = dict(n_hid=8, n_blk_per_group=1, vocab_size=11)
    torch.save(MODELS.build(dict(dalle, type='mmpretrain.DALL-E')).state_dict(), tmp_path / 'dalle.pth')
    options = {k: v for k, v in SHRINK.items() if not k.startswith('model.decoder') and 'pipeline' not in k}
    options |= {'model.tokenizer_checkpoint': str(tmp_path / 'dalle.pth')}
    options |= {f'model.tokenizer.{key}': value for key, value in dalle.items()}
    if cfg.model.type == 'CAE':
        options |= {'model.neck.num_classes': 11, 'model.neck.num_heads': 2}
    else:
        options |= {'model.vocabulary': 11}
    cfg.merge_from_dict(options)
    cfg.model.backbone.arch = dict(TINY_ARCH)
    crop = next(t for t in cfg.train_dataloader.dataset.pipeline if 'second_scale' in t)
    assert (crop['scale'], crop['second_scale']) == (224, 112)
    crop['scale'] = crop['second_scale'] = 32
    model, changed = run_two_steps(cfg, image_folder, tmp_path / 'run', path.stem)
    assert any(name.startswith('backbone.') for name in changed)
    assert not any(name.startswith('tokenizer.') for name in changed)
    sheet = ast.get_docstring(ast.parse(path.read_text()))
    for line in (f'configs/{path.parent.name}/{path.name} 8', 'Published: ', 'Cost: '):
        assert line in sheet, line


@pytest.mark.parametrize(
    'name', ['sbam_mae_vitb_400e', 'sbam_emae_vitb_300e', 'sbam_bootmae_vitb_800e', 'bootmae_vitb_800e']
)
def test_chains_name_existing_recipes(name):
    chain = Config.fromfile(ROOT / f'configs/chains/{name}.py')
    assert chain.name == name and chain.work_dir == f'work_dirs/{name}'
    for stage in chain.stages.values():
        assert stage.kind == 'report' or (ROOT / stage.config).is_file()
    folder = 'sbam' if name.startswith('sbam') else 'bootmae'
    pretrained = [stage.config for stage in chain.stages.values() if stage.kind == 'pretrain']
    assert f'configs/{folder}/{name}.py' in pretrained
