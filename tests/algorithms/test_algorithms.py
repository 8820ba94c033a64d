"""MAE and EMAE end to end on tiny models: against a plain restatement, and by what must not matter."""

import copy

import pytest
import torch
from losses_restated import naive_consistency
from mae_restated import PlainMAE
from tiny import HIVIT, VIT, build, images, total_loss

from mim_mm.losses import reconstruction_loss
from mim_mm.masking import MaskPlan
from mim_mm.targets import patchify, pixel_target, unpatchify
from mim_mm.weights.mae_release import from_mae_release

MASKERS = [
    dict(type='RandomMasking', ratio=0.75),
    dict(type='ParallelMasking', num_parts=4),
    dict(type='IndependentMasking', num_parts=4),
    dict(type='ComplementaryMasking', num_parts=4),
    dict(type='ParallelMasking', num_parts=5),
]


def test_mae_equals_a_plain_restatement_with_the_same_weights_image_and_noise():
    plain = PlainMAE()
    model = build('MAE')
    missing, unexpected = model.load_state_dict(from_mae_release(plain.state_dict()), strict=False)
    assert not missing and not unexpected
    x = images()
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    model.mask_generator = torch.Generator().manual_seed(1)
    ours, theirs = model.loss(x), plain(x, noise)
    assert ours['loss_whole'].item() == pytest.approx(theirs.item(), rel=1e-5)
    ours['loss_whole'].backward()
    theirs.backward()
    pairs = [
        (model.backbone.layers[0].attn.qkv.weight, plain.blocks[0].attn['qkv'].weight),
        (model.backbone.patch_embed.projection.weight, plain.patch_embed['proj'].weight),
        (model.decoder.mask_token, plain.mask_token),
    ]
    for mine, reference in pairs:
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('backbone', [VIT, HIVIT], ids=['vit', 'hivit'])
@pytest.mark.parametrize('masker', MASKERS, ids=lambda m: m['type'])
@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
def test_every_method_trains_under_every_masker(kind, masker, backbone):
    model = build(kind, masker, backbone)
    out = model.loss(images())
    assert all(torch.isfinite(value) for value in out.values())
    total_loss(out).backward()
    for name, param in model.named_parameters():
        if param.requires_grad:
            assert param.grad is not None and torch.isfinite(param.grad).all(), name
    assert model.backbone.pos_embed.grad is None


class HideTheAttended:
    """Hides the 12 patches that the class token attends to most."""

    needs_attention = True

    def __call__(self, tokens, generator=None, attention=None):
        assert not tokens.requires_grad and not attention.requires_grad
        self.attention = attention
        return MaskPlan.from_scores(attention[:, None], 4)


@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
@pytest.mark.parametrize('backbone', [VIT, HIVIT], ids=['vit', 'hivit'])
def test_a_masker_that_asks_for_attention_gets_that_of_the_class_token(kind, backbone):
    model = build(kind, backbone=backbone)
    model.masker = HideTheAttended()
    out = model.loss(images())
    tokens = model.encoder.embed(images())
    torch.testing.assert_close(model.masker.attention, model.encoder.cls_attention(tokens))
    assert model.masker.attention.shape == (3, 16)
    plan = model.reconstruct(images())['plan']
    shown = model.masker.attention.masked_fill(plan.mask[:, 0], -1).amax(dim=1)
    assert (model.masker.attention.masked_fill(~plan.mask[:, 0], 2).amin(dim=1) >= shown).all()
    total_loss(out).backward()
    assert torch.isfinite(out['loss_whole']) and model.decoder.mask_token.grad.abs().sum() > 0


@pytest.mark.parametrize('masker', MASKERS[1:], ids=lambda m: m['type'])
def test_emae_losses_equal_the_public_functions_on_its_predictions(masker):
    model = build('EMAE', masker)
    model.mask_generator = torch.Generator().manual_seed(3)
    out = model.loss(images())
    parts = model.reconstruct(images(), torch.Generator().manual_seed(3))
    whole = reconstruction_loss(parts['pred'], parts['target'], parts['plan'].mask)
    consistency = naive_consistency(parts['pred'], parts['plan'].mask)
    torch.testing.assert_close(out['loss_whole'], whole)
    torch.testing.assert_close(out['loss_consistency'], consistency, atol=1e-6, rtol=1e-5)


def test_normalizer_all_counts_every_patch():
    overlap, everything = build('EMAE'), build('EMAE', normalizer='all')
    everything.load_state_dict(overlap.state_dict())
    for model in (overlap, everything):
        model.mask_generator = torch.Generator().manual_seed(0)
    ratio = everything.loss(images())['consistency'] / overlap.loss(images())['consistency']
    assert ratio.item() == pytest.approx(2 / 4, rel=1e-5)  # (K - 2) / K


def test_switches_of_the_ablation():
    plain = build('EMAE', consistency_weight=0.0).loss(images())
    assert 'loss_consistency' not in plain and plain['loss_whole'] > 0
    with pytest.raises(ValueError, match='constant prediction.*allow_collapse=True'):
        build('EMAE', whole_weight=0.0)
    only = build('EMAE', whole_weight=0.0, allow_collapse=True).loss(images())
    assert only['loss_whole'] == 0 and only['loss_consistency'] > 0 and only['mse'] > 0
    weighted = build('EMAE', consistency_weight=0.1).loss(images())
    torch.testing.assert_close(weighted['loss_consistency'].detach(), 0.1 * weighted['consistency'])
    with pytest.raises(ValueError, match='one > 0'):
        build('EMAE', whole_weight=0.0, consistency_weight=0.0)
    with pytest.raises(ValueError, match="normalizer is 'sum'"):
        build('EMAE', normalizer='sum')


@pytest.mark.parametrize('masker, says', [
    (dict(type='ParallelMasking', num_parts=2), True),
    (dict(type='ComplementaryMasking', num_parts=4), True),
    (dict(type='SalienceParallelMasking', num_parts=2), True),
    (dict(type='RandomMasking', ratio=0.75), True),
    (dict(type='ParallelMasking', num_parts=4), False),
    (dict(type='ParallelMasking', num_parts=5), False),
    (dict(type='IndependentMasking', num_parts=2, ratio=0.9), False),
])  # fmt: skip
def test_masks_that_never_overlap_are_named_once(masker, says, monkeypatch):
    lines = []
    monkeypatch.setattr('mim_mm.algorithms.emae.print_log', lambda text, **options: lines.append(text))
    model = build('EMAE', masker)
    for _ in range(3):
        model.loss(images())
    assert len(lines) == says
    if says:
        assert masker['type'] in lines[0] and 'trains as MAE' in lines[0]
        assert model.loss(images())['consistency'] == 0
    build('EMAE', masker, consistency_weight=0.0).loss(images())
    build('EMAE', masker).eval().loss(images())
    assert len(lines) == says


@pytest.mark.parametrize('backbone', [VIT, HIVIT], ids=['vit', 'hivit'])
def test_hidden_pixels_cannot_reach_the_latent(backbone):
    model = build('EMAE', backbone=backbone).eval()
    x = images()
    plan = model.masker(model.encoder.embed(x), torch.Generator().manual_seed(0))
    latent = model.encoder.encode(model.encoder.embed(x), plan.visible)
    for part in range(4):
        noise = patchify(x, 8).masked_fill(plan.mask[:, part, :, None], 7.0)
        tokens = model.encoder.embed(unpatchify(noise, 8, (4, 4)))
        changed = model.encoder.encode(tokens, plan.visible)
        torch.testing.assert_close(changed.unflatten(0, (3, 4))[:, part], latent.unflatten(0, (3, 4))[:, part])


def test_encoding_all_patches_is_the_plain_backbone():
    model = build('MAE').eval()
    x = images()
    everything = torch.arange(16).expand(3, 1, 16)
    latent = model.encoder.encode(model.encoder.embed(x), everything)
    torch.testing.assert_close(latent, model.backbone(x)[0])


def test_the_parts_of_a_batch_do_not_see_each_other():
    model = build('EMAE').eval()
    x = images()
    tokens = model.encoder.embed(x)
    plan = model.masker(tokens, torch.Generator().manual_seed(0))
    together = model.predict_hidden(tokens, plan)
    for part in range(4):
        alone = MaskPlan(plan.order[:, part : part + 1], plan.num_visible[part : part + 1])
        torch.testing.assert_close(model.predict_hidden(tokens, alone)[:, 0], together[:, part], rtol=1e-4, atol=1e-5)


def test_the_order_of_hidden_patches_does_not_matter():
    model = build('MAE').eval()
    tokens = model.encoder.embed(images())
    plan = model.masker(tokens, torch.Generator().manual_seed(0))
    flipped = MaskPlan(torch.cat([plan.order[..., :4], plan.order[..., 4:].flip(-1)], dim=-1), plan.num_visible)
    torch.testing.assert_close(
        model.predict_hidden(tokens, flipped).flip(2), model.predict_hidden(tokens, plan), rtol=1e-4, atol=1e-5
    )


def test_bf16_autocast_trains_and_keeps_losses_in_fp32():
    model = build('EMAE')
    with torch.autocast('cpu', torch.bfloat16):
        out = model.loss(images())
    assert all(value.dtype == torch.float32 for value in out.values())
    total_loss(out).backward()
    model.mask_generator = torch.Generator().manual_seed(0)
    exact = model.loss(images())
    model.mask_generator.manual_seed(0)
    with torch.autocast('cpu', torch.bfloat16):
        close = model.loss(images())
    assert close['loss_whole'].item() == pytest.approx(exact['loss_whole'].item(), rel=0.02)


def test_a_built_model_is_initialised_as_mae_and_init_weights_keeps_a_given_checkpoint(tmp_path):
    model = build('MAE')
    table = model.backbone.pos_embed
    assert not table.requires_grad and (table[:, 0] == 0).all() and table[:, 1:].abs().max() <= 1
    assert (model.backbone.layers[0].attn.qkv.bias == 0).all()
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'a.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefix='backbone.')
    again = build('MAE', backbone=dict(VIT, init_cfg=init))
    again.init_weights()
    for name, param in again.backbone.named_parameters():
        assert torch.equal(param, model.backbone.state_dict()[name]), name


def test_targets_invert_and_standardise():
    x = images(2)
    assert torch.equal(unpatchify(patchify(x, 8), 8, (4, 4)), x)
    # Row-major patches; inside a patch row, column, channel.
    assert torch.equal(patchify(x, 8)[0, 5].view(8, 8, 3)[2, 3], x[0, :, 8 + 2, 8 + 3])
    target = pixel_target(x, 8, norm_pix=True)
    torch.testing.assert_close(target.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.std(-1), torch.ones(2, 16), atol=1e-4, rtol=0)
    assert torch.equal(pixel_target(x, 8, norm_pix=False), patchify(x, 8))


def test_the_trivial_baseline_is_what_the_patch_mean_scores():
    model = build('MAE', norm_pix=False)
    model.mask_generator = torch.Generator().manual_seed(0)
    out = model.loss(images())
    parts = model.reconstruct(images(), torch.Generator().manual_seed(0))
    mean = parts['target'].mean(-1, keepdim=True)[:, None].expand_as(parts['pred'])
    torch.testing.assert_close(out['mse_patch_mean'], reconstruction_loss(mean, parts['target'], parts['plan'].mask))


def test_drop_path_rates_are_python_floats():
    model = build('MAE', backbone=dict(copy.deepcopy(VIT), drop_path_rate=0.1))
    rates = [m.drop_prob for m in model.modules() if hasattr(m, 'drop_prob')]
    assert rates and all(type(rate) is float for rate in rates)


@pytest.mark.parametrize('masker', MASKERS, ids=lambda m: m['type'])
@pytest.mark.slow
def test_the_whole_loss_is_captured_as_one_graph(masker):
    model = build('EMAE', masker)
    model.mask_generator = None

    def step(x):
        return total_loss(model.loss(x))

    torch.manual_seed(0)
    eager = step(images())
    torch.manual_seed(0)
    captured = torch.compile(step, fullgraph=True, backend='eager')(images())
    torch.testing.assert_close(captured, eager)


def test_images_of_another_size_are_refused_by_the_decoder():
    with pytest.raises(ValueError, match='img_size'):
        build('MAE').loss(images(2, size=64))


def test_backbones_without_an_encoder_are_refused():
    with pytest.raises(NotImplementedError, match='VGG cannot encode visible .*VisionTransformer and .*HiViT'):
        build('MAE', backbone=dict(type='mmpretrain.VGG', depth=11))


def test_hivit_options_that_would_leak_or_break_are_refused():
    with pytest.raises(ValueError, match='rpe=True'):
        build('MAE', backbone=dict(HIVIT, rpe=True))
    with pytest.raises(ValueError, match='ape=False'):
        build('MAE', backbone=dict(HIVIT, ape=False))
