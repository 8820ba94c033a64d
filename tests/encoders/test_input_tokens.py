"""Mask tokens at the input: SimMIM under any masker, against mmpretrain's own and plain restatements."""

import copy

import pytest
import torch
from input_tokens import ARCH, CAE_VIT, SWIN, VIT, simmim
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from tiny import build, images

from mim_mm.encoders.mask_units import MaskUnits
from mim_mm.masking import MaskPlan, RandomMasking
from mim_mm.registry import MODELS

BACKBONES = pytest.mark.parametrize('backbone', [SWIN, VIT], ids=['swin', 'vit'])


def pixel_mask(plan, part, rows, columns, unit):
    """Bool (B, H, W) of one part, pixel by pixel from the order of the plan."""
    mask = torch.zeros(plan.order.shape[0], rows * unit, columns * unit, dtype=torch.bool)
    for b in range(len(mask)):
        for n in plan.order[b, part, int(plan.lengths[b, part]) :].tolist() if plan.lengths[b, part] else []:
            y, x = divmod(n, columns)
            mask[b, y * unit : (y + 1) * unit, x * unit : (x + 1) * unit] = True
    return mask


def test_units_against_loops():
    units = MaskUnits.cover(height=24, width=48, patch_size=4, unit=12)
    assert (units.rows, units.columns, units.factor) == (2, 4, 3)
    tokens = torch.randn(2, 6 * 12, 5)
    pooled = units.pool(tokens)
    mask = torch.rand(2, 8) < 0.5
    fine = units.expand(mask)
    assert fine.shape == (2, 6, 12)
    for row in range(6):
        for column in range(12):
            assert torch.equal(fine[:, row, column], mask[:, (row // 3) * 4 + column // 3])
    members = [[r * 12 + c for r in range(6) for c in range(12) if (r // 3) * 4 + c // 3 == n] for n in range(8)]
    wanted = torch.stack([tokens[:, m].mean(dim=1) for m in members], dim=1)
    torch.testing.assert_close(pooled, wanted)


@pytest.mark.parametrize(
    'size, patch, unit, says',
    [((32, 32), 8, 12, 'whole number of 8-px'), ((32, 32), 8, 4, '8-px'), ((32, 40), 8, 16, '32 x 40')],
)
def test_units_that_do_not_fit_are_refused(size, patch, unit, says):
    with pytest.raises(ValueError, match=says):
        MaskUnits.cover(*size, patch, unit)


@BACKBONES
def test_the_loss_is_the_published_one(backbone):
    """sum |x - x^| m / sum m / 3 with the mask in pixels."""
    model = simmim(backbone)
    x = images()
    model.mask_generator = torch.Generator().manual_seed(4)
    value = model.loss(x)['loss_pixels']
    plan = model.plan(x, torch.Generator().manual_seed(4))
    assert plan.mask.sum() == 3 * 10  # ceil(0.6 * 16) of 4 x 4 units
    mask = pixel_mask(plan, 0, 4, 4, 8)
    pred = model.predict(x, plan.mask[:, 0])
    total = sum((pred[:, c] - x[:, c]).abs()[mask].sum() for c in range(3))
    torch.testing.assert_close(value, total / mask.sum() / 3)


@BACKBONES
def test_simmim_equals_mmpretrains_with_the_same_weights_image_and_mask(backbone):
    model = simmim(backbone)
    x = images()
    plan = model.plan(x, torch.Generator().manual_seed(4))
    model.mask_generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        ours = model.loss(x)['loss_pixels']
    if backbone is VIT:
        theirs = copy.deepcopy(model.backbone)  # mmpretrain has no SimMIM on a ViT: its parts, put together by hand
        tokens = theirs(x, plan.mask.view(3, 4, 4))[0][:, 1:]
        pred = model.neck(tokens.permute(0, 2, 1).reshape(3, 32, 4, 4))
        value = model.head.loss(pred, x, plan.mask.view(3, 4, 4))
    else:
        init_default_scope('mmpretrain')
        cfg = dict(
            type='mmpretrain.SimMIM',
            backbone=copy.deepcopy(backbone),
            neck=dict(type='SimMIMLinearDecoder', in_channels=32, encoder_stride=8),
            head=dict(
                type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)
            ),
        )
        theirs = MODELS.build(cfg)
        theirs.load_state_dict(model.state_dict())
        samples = []
        for m in plan.mask.view(3, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2):
            sample = DataSample()
            sample.set_field(m, 'mask')
            samples.append(sample)
        value = theirs.loss(x, samples)['loss']
    torch.testing.assert_close(ours, value)


@BACKBONES
@pytest.mark.parametrize('size', [(32, 32), (32, 64)], ids=['square', 'wide'])
def test_hidden_pixels_cannot_reach_the_prediction_and_visible_ones_do(backbone, size):
    if backbone is VIT and size[0] != size[1]:
        backbone = dict(backbone, img_size=size)
    model = simmim(backbone, mask_unit=16).eval()
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    plan = model.plan(x, torch.Generator().manual_seed(0))
    mask = pixel_mask(plan, 0, size[0] // 16, size[1] // 16, 16)[:, None]
    with torch.no_grad():
        pred = model.predict(x, plan.mask[:, 0])
        torch.testing.assert_close(model.predict(x.masked_fill(mask, 7.0), plan.mask[:, 0]), pred)
        assert not torch.allclose(model.predict(x.masked_fill(~mask, 7.0), plan.mask[:, 0]), pred)


def test_one_masker_object_serves_both_seams():
    """Same N, same generator: the plan is the same whether patches are dropped or replaced."""
    masker = RandomMasking(0.6)
    drops, replaces = build('MAE'), simmim(mask_unit=8)
    drops.masker = replaces.masker = masker
    x = images()
    tokens = drops.encoder.embed(x)
    plans = [
        masker(tokens, torch.Generator().manual_seed(2)),
        replaces.plan(x, torch.Generator().manual_seed(2)),
    ]
    assert torch.equal(plans[0].order, plans[1].order) and plans[0].num_visible == plans[1].num_visible


@BACKBONES
def test_the_masker_sees_the_mean_of_each_unit_without_gradient(backbone):
    model = simmim(backbone, mask_unit=16)
    x = images()
    seen = []

    def masker(tokens, generator):
        seen.append(tokens)
        return RandomMasking(0.5)(tokens, generator)

    model.masker = masker
    model.loss(x)
    maps = model.backbone.patch_embed.projection(x)  # (B, D, h, w)
    if backbone is SWIN:
        maps = model.backbone.patch_embed.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.avg_pool2d(maps, maps.shape[-1] // 2).flatten(2).transpose(1, 2)
    assert not seen[0].requires_grad and seen[0].shape == (3, 4, model.grid.embed_dims)
    torch.testing.assert_close(seen[0], wanted.detach())


@pytest.mark.parametrize(
    'options', [{}, dict(use_rel_pos_bias=True, use_shared_rel_pos_bias=False)], ids=['shared', 'own']
)
def test_attention_is_what_the_last_block_computes(options):
    """The hook sees the softmax that mmpretrain's block hands to its dropout."""
    model = simmim(dict(VIT, drop_path_rate=0.5, use_abs_pos_emb=True, **options), mask_unit=16)
    with torch.no_grad():
        for layer in model.backbone.layers:
            layer.attn.q_bias.normal_()
    x = images()
    seen = []
    model.backbone.layers[-1].attn.attn_drop.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model.backbone.eval()
    model.backbone(x, None)
    wanted = seen[0][:, :, 0, 1:].mean(dim=1)
    model.backbone.train()
    attention = model.encoder.cls_attention(model.encoder.embed(x))
    torch.testing.assert_close(attention, wanted)
    assert model.backbone.training and model.backbone.layers[0].drop_path.training
    got = []

    def masker(tokens, generator, attention):
        got.append(attention)
        return RandomMasking(0.5)(tokens, generator)

    masker.needs_attention = True
    model.masker = masker
    model.plan(x)
    torch.testing.assert_close(got[0], torch.nn.functional.avg_pool2d(wanted.view(3, 4, 4), 2).flatten(1))


def test_maskers_that_do_not_fit_the_seam_are_refused():
    with pytest.raises(ValueError, match='AttMask follows the class token.*Swin'):
        simmim(SWIN, dict(type='AttMask', ratio=0.5)).loss(images())
    with pytest.raises(ValueError, match='throws 5 patches away'):
        simmim(VIT, dict(type='AttentionMasking', mask_ratio=0.45, throw_ratio=0.4)).loss(images())


@BACKBONES
def test_every_image_may_hide_its_own_number(backbone):
    """Hidden pixels count the same, however many their image has."""
    model = simmim(backbone).eval()
    x = images()
    order = torch.stack([torch.randperm(16) for _ in range(3)])[:, None]

    def fixed(plan):
        model.masker = lambda tokens, generator: plan
        return model.loss

    lengths = [2, 9, 14]
    together = fixed(MaskPlan.from_lengths(order, lengths))(x)['loss_pixels']
    alone = [fixed(MaskPlan.from_lengths(order[[b]], [v]))(x[[b]])['loss_pixels'] for b, v in enumerate(lengths)]
    hidden = [16 - v for v in lengths]
    torch.testing.assert_close(together, sum(h * value for h, value in zip(hidden, alone, strict=True)) / sum(hidden))


@BACKBONES
def test_parts_are_images_and_absent_parts_are_not_run(backbone):
    model = simmim(backbone).eval()
    x = images()
    order = torch.stack([torch.randperm(16) for _ in range(6)]).view(3, 2, 16)
    model.masker = lambda tokens, generator: MaskPlan.from_lengths(order, [[4, 8], [0, 4], [12, 0]])
    rows = []
    model.backbone.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    value = model.loss(x)['loss_pixels']
    assert rows == [4]
    single = MaskPlan.from_lengths(order[[0, 0, 1, 2], [0, 1, 1, 0]][:, None], [4, 8, 4, 12])
    model.masker = lambda tokens, generator: single
    torch.testing.assert_close(model.loss(x[[0, 0, 1, 2]])['loss_pixels'], value)
    model.masker = lambda tokens, generator: MaskPlan.from_lengths(order, [[4, 8], [0, 4], [12, 0]])
    out = model.reconstruct(x)
    assert (out['pred'][~out['plan'].mask] == 0).all() and (out['pred'][out['plan'].mask] != 0).any(dim=-1).all()


@BACKBONES
def test_reconstructions_are_the_predictions_the_loss_sees(backbone):
    model = simmim(backbone)
    x = images()
    model.mask_generator = torch.Generator().manual_seed(3)
    out = model.reconstruct(x, torch.Generator().manual_seed(3))
    error = (out['pred'][:, 0] - out['target']).abs()[out['plan'].mask[:, 0]]
    torch.testing.assert_close(error.mean(), model.loss(x)['loss_pixels'])


@BACKBONES
def test_bf16_autocast_keeps_the_loss_in_fp32(backbone):
    model = simmim(backbone)
    with torch.autocast('cpu', torch.bfloat16):
        out = model.loss(images())
    assert out['loss_pixels'].dtype == torch.float32
    out['loss_pixels'].backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and torch.isfinite(param.grad).all(), name


def test_wrong_backbones_are_refused():
    with pytest.raises(ValueError, match='CAEPretrainViT has no place for mask tokens'):
        simmim(CAE_VIT)
    with pytest.raises(NotImplementedError, match='VisionTransformer has no place for mask tokens'):
        simmim(dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=32, patch_size=8))
    with pytest.raises(ValueError, match=r'out_indices=\(1,\)'):
        simmim(dict(SWIN, out_indices=(0, 1)))


@BACKBONES
def test_the_encoder_is_its_downstream_class(backbone):
    """docs/methods.md: BEiTViT with a bias table for each layer, SwinTransformer."""
    model = simmim(backbone)
    model.eval()
    options = copy.deepcopy({key: value for key, value in backbone.items() if key != 'type'})
    if backbone is VIT:
        options |= dict(type='mmpretrain.BEiTViT', out_type='raw', final_norm=True, use_rel_pos_bias=True)
    downstream = MODELS.build(dict(dict(type='mmpretrain.SwinTransformer'), **options))
    missing, unexpected = downstream.load_state_dict(model.backbone.state_dict(), strict=False)
    assert unexpected == ['mask_token'] and all(name.endswith('relative_position_index') for name in missing)
    downstream.eval()
    torch.testing.assert_close(downstream(images())[0], model(images())[0])
