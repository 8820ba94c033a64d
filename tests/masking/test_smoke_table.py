"""Every registered method that drops tokens under every registered masker: a finite loss, live gradients."""

import pytest
import torch
from masker_table import THROWING, table
from tiny import BEIT, HIVIT, POST_NORM_VIT, VIT, bootmae, build, build_cmae, data2vec2, ijepa, images, total_loss

from mim_mm.losses import reconstruction_loss
from mim_mm.targets import patchify, unpatchify

MASKERS = table()
# HiViT adds nothing about masks: one row of each kind (static, several parts, ragged, ragged parts, attention).
ON_HIVIT = ['sbam', 'salience-balanced', 'sbam-amr', 'salience-graded-amr', 'am']


def train_step(kind, name, backbone):
    torch.manual_seed(0)
    views = images()
    if kind == 'CMAE':
        model, views = build_cmae(MASKERS[name], backbone=backbone), [views, images(seed=9)]
    elif kind in ('IJEPA', 'data2vec2'):
        model = (ijepa if kind == 'IJEPA' else data2vec2)(MASKERS[name], backbone)
    else:
        model = bootmae(MASKERS[name], backbone) if kind == 'BootMAE' else build(kind, MASKERS[name], backbone)
    model.mask_generator = torch.Generator().manual_seed(0)
    out = model.loss(views)
    assert all(torch.isfinite(value) for value in out.values()), out
    total_loss(out).backward()
    for label, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), label
            assert parameter.grad.abs().sum() > 0 or label.endswith('qkv.bias'), label
    return model


@pytest.mark.parametrize('name', sorted(MASKERS))
@pytest.mark.parametrize('kind', ['MAE', 'EMAE', 'CMAE'])
def test_methods_train_under_maskers(kind, name):
    train_step(kind, name, VIT)


@pytest.mark.parametrize('name', ON_HIVIT)
@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
def test_methods_train_under_maskers_on_hivit(kind, name):
    train_step(kind, name, HIVIT)


@pytest.mark.parametrize('name', sorted(MASKERS))
@pytest.mark.parametrize('backbone', [BEIT, VIT], ids=['beit', 'vit'])
def test_bootmae_trains_under_maskers_or_says_why_not(name, backbone):
    says = r'throws \d+ patches away' if name in THROWING else None
    torch.manual_seed(0)
    if not says and not bootmae(MASKERS[name], backbone).plan(images(), torch.Generator().manual_seed(0)).uniform:
        says = 'the same number of hidden patches'
    if says:
        with pytest.raises(ValueError, match=says):
            train_step('BootMAE', name, backbone)
        return
    model = train_step('BootMAE', name, backbone)
    assert not any(p.requires_grad for p in model.teacher.parameters())


@pytest.mark.parametrize('name, backbone', [(n, VIT) for n in sorted(MASKERS)] + [(n, HIVIT) for n in ON_HIVIT])
def test_ijepa_trains_under_maskers_or_says_why_not(name, backbone):
    torch.manual_seed(0)
    if not ijepa(MASKERS[name], backbone).plan(images(), torch.Generator().manual_seed(0)).uniform:
        with pytest.raises(ValueError, match='the same number of visible patches'):
            train_step('IJEPA', name, backbone)
        return
    model = train_step('IJEPA', name, backbone)
    assert not any(p.requires_grad for p in model.teacher.parameters())


@pytest.mark.parametrize('name, backbone', [(n, POST_NORM_VIT) for n in sorted(MASKERS)] + [('inverse-block', VIT)])
def test_data2vec2_trains_under_maskers_or_says_why_not(name, backbone):
    torch.manual_seed(0)
    if not data2vec2(MASKERS[name], backbone).plan(images(), torch.Generator().manual_seed(0)).uniform:
        with pytest.raises(ValueError, match='the same number of visible patches'):
            train_step('data2vec2', name, backbone)
        return
    model = train_step('data2vec2', name, backbone)
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_thrown_patches_take_part_nowhere():
    """Neither their pixels nor their positions reach the loss; and the loss is over hidden patches alone."""
    model = build('MAE', MASKERS['amt']).eval()
    x = images()
    plan = model.draw_plan(model.encoder.embed(x), torch.Generator().manual_seed(2))
    model.draw_plan = lambda tokens, generator=None: plan
    before = model.loss(x)['loss_whole']
    pixels = patchify(x, 8)
    pixels[plan.thrown[:, 0]] = 7.0
    assert torch.equal(model.loss(unpatchify(pixels, 8, (4, 4)))['loss_whole'], before)
    parts = model.reconstruct(x)
    torch.testing.assert_close(reconstruction_loss(parts['pred'], parts['target'], plan.mask), before)
    assert plan.mask.sum() == 3 * 8 and plan.thrown.sum() == 3 * 4
    model.decoder.decoder_pos_embed.data[0, 1:][plan.thrown[0, 0]] += 1.0
    per_image = reconstruction_loss(model.reconstruct(x)['pred'][:1], parts['target'][:1], plan.mask[:1])
    torch.testing.assert_close(per_image, reconstruction_loss(parts['pred'][:1], parts['target'][:1], plan.mask[:1]))


@pytest.mark.parametrize('name', ['sbam', 'sbam-amr', 'salience-balanced', 'am', 'attmask-high'])
def test_the_guide_gives_no_gradient(name):
    """The same plan handed over as a constant gives the same gradients, bit for bit."""
    guided, fixed = build('EMAE', MASKERS[name]), build('EMAE', MASKERS[name])
    fixed.load_state_dict(guided.state_dict())
    plan = guided.reconstruct(images(), torch.Generator().manual_seed(4))['plan']
    fixed.draw_plan = lambda tokens, generator=None: plan
    guided.mask_generator = torch.Generator().manual_seed(4)
    for model in (guided, fixed):
        total_loss(model.loss(images())).backward()
    for (label, mine), theirs in zip(guided.named_parameters(), fixed.parameters()):
        if mine.requires_grad:
            assert torch.equal(mine.grad, theirs.grad), label
