"""What every parameter starts as: spread and bound, derived here from the rules of the releases."""

import math
import re

import pytest
import torch
from mmengine.model import weight_init
from mmengine.registry import WEIGHT_INITIALIZERS
from recipe_table import CONFIGS, build, load, narrow
from tiny import HIVIT
from tiny import build as tiny_model
from torch import nn

from mim_mm.compat.initializers import trunc_normal_
from mim_mm.registry import MODELS

SIGMA = 0.02
ELSEWHERE = 'tested elsewhere'
PHI, INSIDE = math.exp(-0.5) / math.sqrt(2 * math.pi), math.erf(1 / math.sqrt(2))


def cut(sigma=SIGMA):
    """``trunc_normal_(std=s, a=-s, b=s)``: the variance of a normal distribution between -1 and 1 is 1 - 2 phi / P."""
    return sigma * math.sqrt(1 - 2 * PHI / INSIDE), sigma


def normal(sigma=SIGMA):
    """N(0, s^2), or timm's ``trunc_normal_(std=s)``, whose cut at +-2 it never meets: no draw beyond six of s."""
    return sigma, 6 * sigma


def xavier(p):
    fan_out, fan_in = p.shape[0], p[0].numel()
    return math.sqrt(2 / (fan_in + fan_out)), math.sqrt(6 / (fan_in + fan_out))


def torch_default(p, fan_in=None):
    bound = 1 / math.sqrt(fan_in or p[0].numel())
    return bound / math.sqrt(3), bound


def constant(value):
    return value, value  # a spread of zero around it, see check()


def rescaled(rule, name):
    """Divided by sqrt(2 i), blocks counted from 1."""
    factor = math.sqrt(2 * (int(re.search(r'layers\.(\d+)\.', name)[1]) + 1))
    return tuple(value / factor for value in rule)


def check(module, rules):
    """Each parameter against the first rule whose pattern its name matches; a name without a rule fails."""
    wrong = []
    for name, p in module.named_parameters():
        rule = next((rule for pattern, rule in rules if re.search(pattern, name)), None)
        assert rule is not None, f'{name} has no rule'
        rule = rule(name, p) if callable(rule) else rule
        if rule is ELSEWHERE:
            continue
        std, bound = rule
        if std == bound:
            good = bool((p == std).all())
        else:
            error = 5 / math.sqrt(2 * p.numel())  # five standard errors of a standard deviation
            root = float(p.detach().square().mean().sqrt())
            good = abs(root / std - 1) < error and float(p.detach().abs().max()) <= bound * (1 + 1e-6)
        if not good:
            wrong.append((name, tuple(p.shape), float(p.detach().std()), float(p.detach().abs().max()), rule))
    assert not wrong, wrong


FIXED = r'pos_embed$'  # sine-cosine
NORMS = [(r'(ln\d|norm\w*|bn)\.weight$', constant(1.0)), (r'(ln\d|norm\w*|bn)\.bias$', constant(0.0))]
LINEAR_BIAS = (r'bias$', constant(0.0))
WIDE = dict(embed_dims=96, num_layers=4, num_heads=4, feedforward_channels=384)


def shrunken(name, **options):
    cfg = load(name)
    cfg.model.backbone.arch = dict(WIDE)
    cfg.merge_from_dict(options)
    return build(cfg)


BEIT_ENCODER = [
    (r'gamma_[12]$', constant(0.1)),
    (r'(cls|mask)_token$', cut()),
    (r'relative_position_bias_table$', constant(0.0)),
    (r'layers\.\d+\.(attn\.proj|ffn\.layers\.1)\.weight$', lambda name, p: rescaled(cut(), name)),
    *NORMS,
    LINEAR_BIAS,
    (r'\.weight$', cut()),
]


@pytest.fixture
def dalle(tmp_path):
    options = dict(n_hid=8, n_blk_per_group=1, vocab_size=300)
    torch.save(MODELS.build(dict(options, type='mmpretrain.DALL-E')).state_dict(), tmp_path / 'dalle.pth')
    found = {f'model.tokenizer.{key}': value for key, value in options.items()}
    return found | {'model.tokenizer_checkpoint': str(tmp_path / 'dalle.pth')}


@pytest.mark.parametrize('name', ['mae/mae_vitb_800e', 'emae/emae_vitb_300e'])
def test_mae_and_emae(name):
    model = shrunken(name)
    check(model, [
        (FIXED, ELSEWHERE), (r'(cls|mask)_token$', normal()), *NORMS,
        (r'patch_embed.projection.bias$', lambda name, p: torch_default(p, 3 * 16 * 16)),
        LINEAR_BIAS,
        (r'patch_embed.projection.weight$', lambda name, p: xavier(p)),
        (r'\.weight$', lambda name, p: xavier(p)),
    ])  # fmt: skip


def test_mocov3():
    model = shrunken('mocov3/mocov3_vitb_300e', **{'model.hidden_dims': 128, 'model.out_dims': 64})
    separate = (math.sqrt(2 / (96 + 96)), math.sqrt(6 / (96 + 96)))  # queries, keys and values are three matrices
    check(model.backbone, [
        (FIXED, ELSEWHERE), (r'cls_token$', normal(1e-6)), *NORMS, LINEAR_BIAS, (r'qkv\.weight$', separate),
        (r'\.weight$', lambda name, p: xavier(p)),
    ])  # fmt: skip
    table = model.backbone.pos_embed.detach()[0]
    assert not table[0].any() and float(table[1 + 14 + 2, 0]) == pytest.approx(math.sin(1))  # the row is 1
    assert float(table[1 + 14 + 2, 48]) == pytest.approx(math.sin(2))  # and the column 2
    for part in (model.projector, model.predictor):
        check(part, [*NORMS, (r'bn\d\.weight$', constant(1.0)), (r'bn\d\.bias$', constant(0.0)),
                     (r'weight$', lambda name, p: torch_default(p))])  # fmt: skip


def test_msn():
    model = shrunken('msn/msn_vits_800e', **{'model.hidden_dims': 128, 'model.out_dims': 64})
    he = math.sqrt(2 / (3 * 16 * 16))
    check(model.backbone, [
        (r'(pos_embed|cls_token)$', normal()), *NORMS, LINEAR_BIAS, (r'projection\.weight$', normal(he)),
        (r'\.weight$', normal()),
    ])  # fmt: skip
    check(model.head, [(r'bn\d\.weight$', constant(1.0)), LINEAR_BIAS, (r'weight$', normal())])
    found = model.prototypes.detach()
    assert float(found.abs().max()) <= 1 / 8 and abs(float(found.std()) * 8 * math.sqrt(3) - 1) < 0.02


def test_mae_on_hivit_and_with_learned_positions():
    model = tiny_model('MAE', backbone=HIVIT, pos_embed='learned')
    model.init_weights()
    found = model.backbone.pos_embed.detach()
    assert 0.015 < float(found.std()) < 0.025 and float(found.abs().max()) < 0.12
    qkv = model.backbone.blocks[-1].attn.qkv.weight.detach()
    assert float(qkv.abs().max()) <= xavier(qkv)[1]


def test_simmim_vit():
    model = shrunken('simmim/simmim_vitb_800e')
    check(model.backbone, BEIT_ENCODER)
    check(model.neck, [(r'weight$', lambda n, p: torch_default(p)), (r'bias$', lambda n, p: torch_default(p, 96))])


def test_beit(dalle):
    model = shrunken('beit/beit_vitb_300e', **dalle, **{'model.vocabulary': 300})
    check(model.backbone, BEIT_ENCODER)
    check(model.head, [LINEAR_BIAS, (r'weight$', cut())])


def test_cae(dalle):
    model = shrunken('cae/cae_vitb_300e', **dalle, **{'model.neck.num_classes': 300, 'model.neck.num_heads': 4})
    common = [(r'gamma', constant(0.1)), (FIXED, ELSEWHERE), (r'(cls|mask)_token$', cut()), *NORMS, LINEAR_BIAS]
    encoder = [*common, (r'patch_embed.projection.weight$', cut()), (r'\.weight$', lambda name, p: xavier(p))]
    check(model.backbone, encoder)
    check(model.neck, [*common, (r'\.weight$', lambda name, p: xavier(p))])
    for own, copied in zip(model.backbone.parameters(), model.teacher.parameters(), strict=True):
        assert torch.equal(own, copied)


def test_simmim_swin():
    cfg = load('simmim/simmim_swinb_800e')
    cfg.model.backbone.arch = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    check(build(cfg).backbone, [
        (r'mask_token$|relative_position_bias_table$', normal()), *NORMS,
        (r'patch_embed.projection.weight$', lambda name, p: torch_default(p)),
        (r'patch_embed.projection.bias$', lambda name, p: torch_default(p, 3 * 4 * 4)),
        LINEAR_BIAS, (r'\.weight$', normal()),
    ])  # fmt: skip


def test_a_backbone_with_a_start_of_its_own_keeps_it():
    cfg = load('simmim/simmim_vitb_800e')
    cfg.model.backbone.update(arch=dict(WIDE), init_cfg=dict(type='Constant', val=0.5, layer='Conv2d'))
    assert (build(cfg).backbone.patch_embed.projection.weight == 0.5).all()


@pytest.mark.parametrize('name', ['vits_scratch_300e', 'vitb_scratch_300e', 'vitl_scratch_200e'])
def test_scratch_is_mmpretrains_recipe(name):
    cfg = load(f'finetune/{name}')
    cfg.model.backbone.arch = dict(WIDE)
    cfg.model.head.in_channels = 96
    check(build(cfg), [
        (r'cls_token$', constant(0.0)), (r'pos_embed$', normal()), *NORMS,
        (r'projection', ELSEWHERE), (r'ffn.*bias$', normal(1e-6)), LINEAR_BIAS,
        (r'ffn.*weight$', lambda name, p: xavier(p)), (r'weight$', normal()),
    ])  # fmt: skip


HEADS = {  # std of the classifier, and of the release that says so
    'finetune/vitb_finetune_100e': 2e-5,  # MAE: trunc_normal_(std=2e-5)
    'finetune/vitl_finetune_50e': 2e-5,
    'finetune/vith_finetune_50e': 2e-5,
    'finetune/vits_finetune_200e': 0.02 * 0.001,  # iBOT, BEiT, CAE, SimMIM: std 0.02, times init_scale 0.001
    'finetune/vitb_finetune_ibot_100e': 0.02 * 0.001,
    'finetune/vitb_finetune_beit_100e': 0.02 * 0.001,
    'finetune/vitb_finetune_bootmae_100e': 0.02 * 0.001,
    'finetune/vitb_finetune_cae_100e': 0.02 * 0.001,
    'finetune/vitb_finetune_simmim_100e': 0.02 * 0.001,
    'finetune/swinb_finetune_simmim_100e': 0.02,  # Swin has no init_scale
    'finetune/resnet50_finetune_spark_300e': 0.01,  # mmpretrain's recipe of it: LinearClsHead's own
    'finetune/convnextt_finetune_300e': 0.02,
    'finetune/vitb_finetune_mocov3_150e': 0.02,  # DeiT
    'finetune/vitb_finetune_data2vec2_100e': 0.02,  # fairseq: trunc_normal_(std=0.02)
    'finetune/vitb_lowshot_1pct': 0.02,
    'linear/vitb_linear_90e': 0.01,  # MAE: trunc_normal_(std=0.01); the others N(0, 0.01)
    'linear/vitb_linear_mean_90e': 0.01,
    'linear/vitb_cae_linear_90e': 0.01,
    'linear/vitb_bootmae_90e': 0.01,
    'linear/vitb_cae_attentive_90e': 0.01,
    'linear/vitb_dino_100e': 0.01,
    'linear/vitb_mocov3_90e': 0.01,
    'linear/vitb_beit_100e': 0.01,
    'linear/vitb_ibot_100e': 0.01,
    'linear/vitb_ijepa_50e': 0.01,
    'linear/vitb_quick_probe': 0.01,
}


@pytest.mark.parametrize('name, std', HEADS.items(), ids=HEADS)
def test_heads(name, std):
    model = build(narrow(load(name)))
    check(model.head, [LINEAR_BIAS, (r'weight$', normal(std))])
    if 'attentive' in name:  # CAE's class for probing: std 0.02, query zero
        check(model.neck, [(r'query$', constant(0.0)), *NORMS, LINEAR_BIAS, (r'weight$', normal())])
    for attribute in ('ln2', 'fc_norm'):
        fresh = getattr(model.backbone, attribute, None)
        assert fresh is None or ((fresh.weight == 1).all() and (fresh.bias == 0).all())


def test_every_head_recipe_stands_here_or_inherits_from_one():
    names = {f'{f}/{p.stem}' for f in ('linear', 'finetune') for p in (CONFIGS / f).glob('*.py')}
    missing = {name for name in names - set(HEADS) if 'scratch' not in name}
    for name in missing:  # another size, or another mode of running: no start of its own
        text = (CONFIGS / f'{name}.py').read_text()
        assert 'init_cfg' not in text and "_base_ = ['./" in text, name


# ---------------------------------------------------------------- mmengine's truncated normal


@pytest.fixture
def worst_draw(monkeypatch):
    """``uniform_`` whose first number is the lower end of its range, which it may be (once in 2 ** 24)."""
    plain = torch.Tensor.uniform_

    def uniform_(self, low=0.0, high=1.0, *, generator=None):
        plain(self, low, high, generator=generator)
        self.view(-1)[0] = low
        return self

    monkeypatch.setattr(torch.Tensor, 'uniform_', uniform_)


def old_formula(tensor, mean, std, a, b, generator=None):
    """Of mmengine, and of torch before it drew by rejection."""
    low, high = (0.5 * (1 + math.erf((x - mean) / std / math.sqrt(2))) for x in (a, b))
    with torch.no_grad():
        return tensor.uniform_(2 * low - 1, 2 * high - 1).erfinv_().mul_(std * math.sqrt(2)).add_(mean).clamp_(a, b)


def test_the_trap_is_real(worst_draw):
    assert old_formula(torch.empty(1000), 0.0, 0.02, -2.0, 2.0)[0] == -2.0


@pytest.mark.parametrize('earlier_torch', [False, True])
@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet', 'mim_mm'])
def test_no_outlier_by_the_initializer_of_any_scope(scope, earlier_torch, worst_draw, monkeypatch):
    if earlier_torch:
        monkeypatch.setattr(nn.init, '_no_grad_trunc_normal_', old_formula)
    layer = nn.Sequential(nn.Linear(100, 100))
    WEIGHT_INITIALIZERS.build(dict(type='TruncNormal', layer='Linear', std=SIGMA, bias=0.5, _scope_=scope))(layer)
    weight = layer[0].weight.detach()
    assert float(weight.abs().max()) <= 6 * SIGMA and abs(float(weight.std()) / SIGMA - 1) < 0.05
    assert (layer[0].bias == 0.5).all()


def test_no_outlier_in_modules_that_imported_the_function(worst_draw):
    """Swin, HiViT, heads, mmdet's PVT ... hold the function itself."""
    from mmdet.models.backbones import pvt
    from mmpretrain.models.backbones import hivit, swin_transformer, vision_transformer
    from mmpretrain.models.heads import vision_transformer_head

    for module in (pvt, hivit, swin_transformer, vision_transformer, vision_transformer_head, weight_init):
        assert float(module.trunc_normal_(torch.empty(1000), std=SIGMA).abs().max()) <= 6 * SIGMA, module
    assert float(weight_init.trunc_normal_(torch.empty(1000), mean=1.0, std=SIGMA).sub(1).abs().max()) <= 6 * SIGMA


def test_bounds_that_cut_are_kept():
    found = trunc_normal_(torch.empty(20000), std=SIGMA, a=-SIGMA, b=SIGMA)
    assert float(found.abs().max()) <= SIGMA and abs(float(found.std()) / cut()[0] - 1) < 0.03
    shifted = trunc_normal_(torch.empty(20000), mean=0.01, std=SIGMA, a=0.0, b=2.0)
    assert float(shifted.min()) >= 0 and float(shifted.max()) <= 0.01 + 6 * SIGMA


@pytest.mark.parametrize('first', ['mim_mm', 'mmengine.model'])
def test_import_mim_mm_is_enough_before_and_after_mmengine(first, monkeypatch):
    """In a fresh set of modules: whichever is imported first, without torch being imported for it."""
    import importlib
    import sys

    from mim_mm.compat import initializers, on_import

    kept = sys.modules['mmengine.model.weight_init']
    monkeypatch.setattr(kept, '_no_grad_trunc_normal_', old_formula)
    if first == 'mmengine.model':
        initializers.install()
        assert kept._no_grad_trunc_normal_ is initializers.trunc_normal_
        return
    monkeypatch.delitem(sys.modules, 'mmengine.model.weight_init')
    monkeypatch.setattr(sys.modules['mmengine.model'], 'weight_init', kept)  # so that it is put back
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
    registered = dict(WEIGHT_INITIALIZERS.module_dict)
    initializers.install()
    initializers.install()
    assert sum(isinstance(finder, on_import._Watcher) for finder in sys.meta_path) == 1
    WEIGHT_INITIALIZERS.module_dict.clear()
    try:
        fresh = importlib.import_module('mmengine.model.weight_init')
    finally:
        WEIGHT_INITIALIZERS.module_dict.clear()
        WEIGHT_INITIALIZERS.module_dict.update(registered)
    assert fresh is not kept and fresh._no_grad_trunc_normal_ is initializers.trunc_normal_
