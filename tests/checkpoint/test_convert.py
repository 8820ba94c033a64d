"""What a pretraining and a downstream backbone store differently: shared tables, other windows, other patch sizes."""

import math

import numpy as np
import pytest
import torch
from mmpretrain.models.backbones import BEiTViT, SwinTransformer, VisionTransformer

from mim_mm.checkpoint.convert import resample_patches, resize_relative_bias
from mim_mm.checkpoint.keymap import rename_key
from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.detection.windowed_vit import WindowedViT

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def beit(**options):
    model = BEiTViT(**{**dict(arch=ARCH, img_size=32, patch_size=8), **options})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def save(path, model, **extra):
    torch.save({'state_dict': {**{f'backbone.{k}': v for k, v in model.state_dict().items()}, **extra}}, path)
    return path


def growth(half, target):
    """The real root above 1 of 1 + q + ... + q^(half-1) = target."""
    roots = np.roots([1.0] * (half - 1) + [1.0 - target])
    return max(r.real for r in roots if abs(r.imag) < 1e-9)


@pytest.mark.parametrize('source, target', [((14, 14), (24, 24)), ((6, 6), (7, 7)), ((14, 14), (16, 20))])
def test_a_cubic_in_the_stretched_offsets_is_met_exactly(source, target):
    """A cubic spline through samples of a cubic is that cubic; samples lie at 0, 1, 1 + q, 1 + q + q^2, ... (BEiT)."""

    def value(row, col):
        row, col = row / 10, col / 10
        return 1 + row - 2 * col + row * row * col - 0.5 * col**3 + 0.3 * row**3

    places = []
    for s, t in zip(source, target):
        q = growth(s - 1, t - 1)
        half = [sum(q**i for i in range(n)) for n in range(1, s)]
        places.append([-x for x in reversed(half)] + [0.0] + half)
    table = torch.tensor([[value(r, c), -value(c, r)] for r in places[0] for c in places[1]], dtype=torch.float64)
    out = resize_relative_bias(table, source, target)
    offsets = [range(-(t - 1), t) for t in target]
    wanted = torch.tensor([[value(r, c), -value(c, r)] for r in offsets[0] for c in offsets[1]], dtype=torch.float64)
    torch.testing.assert_close(out, wanted, atol=1e-6, rtol=1e-6)


def test_a_smaller_window_takes_the_middle_and_an_equal_one_the_table():
    table = torch.arange(81.0)[:, None].repeat(1, 3)  # offsets -4..4 of a 5 x 5 grid
    middle = table.view(9, 9, 3)[2:7, 2:7].reshape(25, 3)
    torch.testing.assert_close(resize_relative_bias(table, (5, 5), (3, 3)), middle)
    assert resize_relative_bias(table, (5, 5), (5, 5)) is table
    single = resize_relative_bias(torch.tensor([[1.5, -2.0]]), (1, 1), (2, 2))
    assert torch.equal(single, torch.tensor([[1.5, -2.0]] * 9))


def test_shared_table_reaches_every_block(tmp_path):
    source = beit(use_shared_rel_pos_bias=True, use_rel_pos_bias=False, final_norm=True, out_type='raw')
    target = beit()
    report = load_encoder(target, save(tmp_path / 'a.pth', source))
    for layer in target.layers:
        assert torch.equal(layer.attn.relative_position_bias_table, source.rel_pos_bias.relative_position_bias_table)
    assert set(report.moved) == {f'layers.{i}.attn.relative_position_bias_table' for i in range(2)}
    assert set(report.by_design) == {'ln2.weight', 'ln2.bias'} and not report.random and report.fraction == 1
    assert report.unused == ['ln1.bias', 'ln1.weight']
    x = torch.randn(2, 3, 32, 32)
    source.eval(), target.eval()
    last = []
    for model in (source, target):
        handle = model.layers[-1].register_forward_hook(lambda module, args, out: last.append(out))
        model(x)
        handle.remove()
    torch.testing.assert_close(last[0], last[1])


def test_tables_of_another_image_size_keep_the_rows_of_the_class_token(tmp_path):
    source = beit(use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
    target = beit(img_size=48)
    report = load_encoder(target, save(tmp_path / 'a.pth', source))
    shared = source.rel_pos_bias.relative_position_bias_table
    for i, layer in enumerate(target.layers):
        table = layer.attn.relative_position_bias_table
        assert table.shape == (11 * 11 + 3, 2) and torch.equal(table[-3:], shared[-3:])
        # the farthest offset stays the farthest, the nearest the nearest
        torch.testing.assert_close(table[0], shared[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(table[60], shared[24])
        assert 'shared' in report.resized[f'layers.{i}.attn.relative_position_bias_table']
    assert not report.moved and target(torch.randn(1, 3, 48, 48))[0].isfinite().all()


def test_missing_tables_start_at_zero_as_the_report_says(tmp_path):
    source = beit(use_rel_pos_bias=False, use_abs_pos_emb=True, final_norm=True, out_type='raw')
    target = beit(use_abs_pos_emb=True)
    report = load_encoder(target, save(tmp_path / 'a.pth', source), rename={'ln1.': 'ln2.'})
    assert all(not layer.attn.relative_position_bias_table.any() for layer in target.layers)
    assert 'start at zero' in report.by_design['layers.1.attn.relative_position_bias_table']
    assert torch.equal(target.ln2.weight, source.ln1.weight) and report.moved['ln2.bias'] == 'from ln1.bias'
    assert not report.unused and not report.random and 'moved     ln2.weight  (from ln1.weight)' in report.table()


def test_skipped_tables_stay_as_they_are_and_count_as_random(tmp_path):
    source, target = beit(use_shared_rel_pos_bias=True, use_rel_pos_bias=False), beit()
    before = target.layers[0].attn.relative_position_bias_table.detach().clone()
    report = load_encoder(target, save(tmp_path / 'a.pth', source), skip=['relative_position_bias_table$'])
    assert torch.equal(target.layers[0].attn.relative_position_bias_table, before)
    assert report.random == [f'layers.{i}.attn.relative_position_bias_table' for i in range(2)] and not report.moved


def test_swin_of_another_window(tmp_path):
    arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2])
    source, target = (SwinTransformer(arch=arch, window_size=w) for w in (6, 7))
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    report = load_encoder(target, save(tmp_path / 'a.pth', source))
    names = [n for n in dict(target.named_parameters()) if n.endswith('relative_position_bias_table')]
    assert len(names) == 5 and set(report.resized) == set(names) and report.fraction == 1
    own, given = target.state_dict(), source.state_dict()
    assert all(torch.allclose(own[n][84], given[n][60]) for n in names), 'the offset 0 keeps its value'
    assert target(torch.randn(1, 3, 224, 224))[0].isfinite().all()


def test_beit_table_reaches_a_detector_without_its_class_rows(tmp_path):
    source = beit(use_shared_rel_pos_bias=True, use_rel_pos_bias=False, layer_scale_init_value=0.1)
    target = WindowedViT(
        arch=ARCH, img_size=64, pretrain_img_size=32, patch_size=8, window_size=4, rel_pos='shared_bias',
        pos_embed_mode='fixed', global_attn_indexes=(1,), layer_scale_init_value=0.1,
    )  # fmt: skip
    torch.nn.init.normal_(target.pos_embed)
    report = load_encoder(target, save(tmp_path / 'a.pth', source))
    shared = source.rel_pos_bias.relative_position_bias_table
    assert torch.equal(target.rel_pos_window.relative_position_bias_table, shared[:-3])
    wide = target.rel_pos_global.relative_position_bias_table.view(15, 15, 2)
    torch.testing.assert_close(wide[7, 7], shared[24])
    torch.testing.assert_close(wide[0, 14], shared[6], atol=1e-4, rtol=1e-4)
    assert not target.pos_embed.any() and 'start at zero' in report.by_design['pos_embed']
    assert torch.equal(target.layers[1].attn.gamma1.weight, source.layers[1].gamma_1) and not report.random


def test_released_names_of_beit(tmp_path):
    """timm's names of the blocks, BEiT's own of layer scale and biases."""
    target, source = beit(), beit()
    inverse = {'ln1': 'norm1', 'ln2': 'norm2', 'ffn.layers.0.0': 'mlp.fc1', 'ffn.layers.1': 'mlp.fc2'}
    state = {}
    for name, value in source.state_dict().items():
        if name.startswith('layers.'):
            for ours, theirs in inverse.items():
                name = name.replace(f'.{ours}.', f'.{theirs}.')
            name = name.replace('layers.', 'blocks.', 1)
        state[name.replace('patch_embed.projection', 'patch_embed.proj').replace('ln2.', 'fc_norm.', 1)] = value
    torch.save({'model': state}, tmp_path / 'beit.pth')
    report = load_encoder(target, tmp_path / 'beit.pth')
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name
    assert report.fraction == 1 and not report.unused
    assert rename_key('blocks.0.gamma_1') == 'layers.0.attn.gamma1.weight'
    assert rename_key('blocks.0.gamma_1', {'layers.0.gamma_1'}) == 'layers.0.gamma_1'


def test_resampled_patches_give_the_same_tokens_on_enlarged_patches():
    weight, patch = torch.randn(5, 3, 14, 14, dtype=torch.float64), torch.randn(1, 3, 14, 14, dtype=torch.float64)
    new = resample_patches(weight, (16, 16))
    enlarged = torch.nn.functional.interpolate(patch, size=16, mode='bicubic', antialias=True)
    torch.testing.assert_close((new * enlarged).sum((1, 2, 3)), (weight * patch).sum((1, 2, 3)))


def test_resampled_patches_agree_with_timm():
    timm_embed = pytest.importorskip('timm.layers.patch_embed')
    weight = torch.randn(4, 3, 14, 14)
    wanted = timm_embed.resample_patch_embed(weight, [16, 16], interpolation='bicubic', antialias=True)
    torch.testing.assert_close(resample_patches(weight, (16, 16)), wanted, atol=1e-4, rtol=1e-3)


def test_patch_size_is_changed_on_request_only(tmp_path):
    source = VisionTransformer(arch=ARCH, img_size=28, patch_size=14)
    path = save(tmp_path / 'a.pth', source)
    with pytest.raises(LoadError, match='resample_patches=True'):
        load_encoder(VisionTransformer(arch=ARCH, img_size=32, patch_size=16), path)
    target = VisionTransformer(arch=ARCH, img_size=48, patch_size=16)
    report = load_encoder(target, path, resample_patches=True)
    assert report.resized['patch_embed.projection.weight'] == '(32, 3, 14, 14) -> (32, 3, 16, 16)'
    assert 'pos_embed' in report.resized and not report.random and report.fraction == 1


def test_table_without_a_rule_is_refused(tmp_path):
    source = beit()
    path = tmp_path / 'a.pth'
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    key = 'backbone.layers.0.attn.relative_position_bias_table'
    state[key] = state[key][:-1]
    assert math.isqrt(len(state[key])) ** 2 != len(state[key])
    torch.save({'state_dict': state}, path)
    with pytest.raises(LoadError, match='relative_position_bias_table'):
        load_encoder(beit(), path)
