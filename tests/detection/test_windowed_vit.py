"""The detector backbone against plain restatements: loops over windows and offsets, and the plain ViT."""

import pytest
import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import BEiTAttention

from mim_mm.detection.relative_positions import RelPosAttention, SharedRelPosBias, join_windows, partition_windows
from mim_mm.detection.windowed_vit import WindowedViT

ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64, global_attn_indexes=(1, 3))
TINY = dict(arch=ARCH, patch_size=8, img_size=64, pretrain_img_size=32)


def plain_vit(**kwargs) -> VisionTransformer:
    """mmpretrain's ViT without class token and final norm, all parameters random (zeros would hide errors)."""
    options = dict(
        arch=ARCH, patch_size=8, img_size=32, out_type='featmap', with_cls_token=False, final_norm=False, **kwargs
    )
    model = VisionTransformer(**options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def run(model, x):
    model.eval()
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize('rel_pos', ['none', 'decomposed', 'shared_bias'])
@pytest.mark.parametrize('mode', ['native', 'fixed'])
def test_equals_plain_vit_when_all_blocks_are_global(rel_pos, mode):
    plain = plain_vit()
    model = WindowedViT(**{**TINY, 'img_size': 32}, window_size=0, rel_pos=rel_pos, pos_embed_mode=mode)
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all('rel_pos' in key for key in result.missing_keys)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(run(model, x)[0], run(plain, x)[0], atol=1e-5, rtol=1e-5)


def test_window_that_covers_the_map_equals_global_attention():
    plain = plain_vit()
    model = WindowedViT(**{**TINY, 'img_size': 32}, window_size=7, global_attn_indexes=(), rel_pos='decomposed')
    model.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 3, 32, 24)  # 4 x 3 tokens, less than a window of 7
    torch.testing.assert_close(run(model, x)[0], run(plain, x)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('size', [(64, 64), (40, 72), (61, 50)])
def test_keys_and_output_shapes_for_any_input(size):
    model = WindowedViT(**TINY, window_size=3, rel_pos='shared_bias', out_indices=(1, -1), pos_embed_mode='fixed')
    grid = tuple(-(-s // 8) for s in size)
    outs = run(model, torch.randn(2, 3, *size))
    assert [tuple(o.shape) for o in outs] == [(2, 32, *grid)] * 2
    ours = {k for k in model.state_dict() if 'rel_pos' not in k}
    assert ours == set(plain_vit().state_dict())


def test_windows_by_hand():
    x = torch.arange(2 * 5 * 4 * 1, dtype=torch.float).view(2, 5, 4, 1)
    windows, padded = partition_windows(x, (3, 3))
    assert padded == (6, 6) and windows.shape == (8, 3, 3, 1)
    # second window of the first image: rows 0-2, column 3 and two columns of padding
    assert windows[1, :, :, 0].tolist() == [[3, 0, 0], [7, 0, 0], [11, 0, 0]]
    # third: rows 3-4 and one row of padding, columns 0-2
    assert windows[2, :, :, 0].tolist() == [[12, 13, 14], [16, 17, 18], [0, 0, 0]]
    assert torch.equal(join_windows(windows, padded, (5, 4)), x)


def test_multiple_of_the_window_needs_no_padding():
    x = torch.randn(1, 6, 9, 2)
    windows, padded = partition_windows(x, (3, 3))
    assert padded == (6, 9) and windows.shape[0] == 6
    assert torch.equal(windows[4], x[0, 3:6, 3:6])


def reference_attention(module, x, shared=None):
    """Softmax attention with explicit loops over query and key positions."""
    batch, height, width, _ = x.shape
    heads, dim = module.num_heads, module.head_dims
    q, k, v = module.qkv(x).view(batch, height, width, 3, heads, dim).permute(3, 0, 4, 1, 2, 5)
    logits = torch.zeros(batch, heads, height * width, height * width)
    for i in range(height):
        for j in range(width):
            for a in range(height):
                for b in range(width):
                    value = (q[:, :, i, j] * k[:, :, a, b]).sum(-1) * dim**-0.5
                    if module.decomposed:
                        value = value + (q[:, :, i, j] * module.rel_pos_h[i - a + height - 1]).sum(-1)
                        value = value + (q[:, :, i, j] * module.rel_pos_w[j - b + width - 1]).sum(-1)
                    if shared is not None:
                        row = (i - a + height - 1) * (2 * width - 1) + j - b + width - 1
                        value = value + shared[row]
                    logits[:, :, i * width + j, a * width + b] = value
    out = logits.softmax(-1) @ v.flatten(2, 3)
    return module.proj(out.transpose(1, 2).reshape(batch, height, width, -1))


@pytest.mark.parametrize('fold', [True, False])
def test_decomposed_positions_against_loops(fold):
    module = RelPosAttention(16, 2, rel_pos_size=(3, 4), fold=fold)
    torch.nn.init.normal_(module.rel_pos_h)
    torch.nn.init.normal_(module.rel_pos_w)
    x = torch.randn(2, 3, 4, 16)
    got, wanted = module(x), reference_attention(module, x)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    parameters = list(module.parameters())
    weight = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), parameters), torch.autograd.grad((wanted * weight).sum(), parameters)
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_shared_bias_against_loops_and_beit():
    shared = SharedRelPosBias((3, 4), 2)
    torch.nn.init.normal_(shared.relative_position_bias_table)
    module = RelPosAttention(16, 2)
    x = torch.randn(2, 3, 4, 16)
    wanted = reference_attention(module, x, shared.relative_position_bias_table)
    torch.testing.assert_close(module(x, shared((3, 4))), wanted, atol=1e-5, rtol=1e-4)

    beit = BEiTAttention(16, 2, window_size=(3, 4), use_rel_pos_bias=True)
    index = beit.relative_position_index[1:, 1:]
    table = shared.relative_position_bias_table
    assert torch.equal(shared((3, 4)), table[index].permute(2, 0, 1))


def test_smaller_grid_takes_the_same_offsets_and_larger_grid_runs():
    shared = SharedRelPosBias((4, 4), 2)
    torch.nn.init.normal_(shared.relative_position_bias_table)
    large, small = shared((4, 4)).view(2, 4, 4, 4, 4), shared((2, 3)).view(2, 2, 3, 2, 3)
    assert torch.equal(small, large[:, :2, :3, :2, :3])
    assert shared((6, 3)).shape == (2, 18, 18)


def test_a_windowed_block_attends_only_inside_its_windows():
    model = WindowedViT(**TINY, window_size=4, global_attn_indexes=(), rel_pos='decomposed', out_indices=(0,))
    x = torch.randn(1, 3, 64, 64)
    changed = x.clone()
    changed[:, :, :8, :8] += 1.0  # the first token, in the upper left window
    difference = (run(model, x)[0] - run(model, changed)[0]).abs().amax(1)[0]
    assert (difference[:4, :4] > 0).all()
    assert difference[4:].max() == 0 and difference[:, 4:].max() == 0


@pytest.mark.parametrize('stored', ['class token', 'no class token', 'map', 'other grid'])
def test_position_table_formats(stored):
    model = WindowedViT(**TINY, pos_embed_mode='fixed')  # 8 x 8 tokens
    grid = torch.randn(1, 6, 6, 32) if stored == 'other grid' else torch.randn(1, 4, 4, 32)
    table = grid if stored == 'map' else grid.flatten(1, 2)
    if stored == 'class token':
        table = torch.cat((torch.randn(1, 1, 32), table), 1)
    model.load_state_dict({'pos_embed': table}, strict=False)
    wanted = torch.nn.functional.interpolate(grid.permute(0, 3, 1, 2), size=(8, 8), mode='bicubic')
    torch.testing.assert_close(model.pos_embed.data, wanted.flatten(2).transpose(1, 2))


def test_native_mode_keeps_the_table_and_resizes_in_forward():
    native = WindowedViT(**TINY, rel_pos='none', window_size=0)
    fixed = WindowedViT(**TINY, rel_pos='none', window_size=0, pos_embed_mode='fixed')
    torch.nn.init.normal_(native.pos_embed)
    assert native.pos_embed.shape == (1, 16, 32) and fixed.pos_embed.shape == (1, 64, 32)
    fixed.load_state_dict(native.state_dict())
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(run(native, x)[0], run(fixed, x)[0])


def test_drop_path_on_both_branches_drops_whole_images():
    model = WindowedViT(**TINY, window_size=4, drop_path_rate=0.5, rel_pos='none')
    rates = [(layer.attn.out_drop.drop_prob, layer.ffn.dropout_layer.drop_prob) for layer in model.layers]
    assert all(type(r) is float for pair in rates for r in pair)
    assert [a for a, _ in rates] == pytest.approx([0, 1 / 6, 1 / 3, 0.5]) and all(a == b for a, b in rates)
    # Only the attention branch of the last block remains: per image it is zero everywhere or nowhere.
    layer = model.layers[3]
    model.train()
    layer.ffn.dropout_layer.drop_prob = 0.0
    torch.nn.init.zeros_(layer.ffn.layers[1].weight)
    torch.nn.init.zeros_(layer.ffn.layers[1].bias)
    from mim_mm.detection.windowed_vit import _run_block

    x = torch.randn(16, 8, 8, 32)
    change = (_run_block(layer, x, (4, 4), None) - x).abs().flatten(1)
    dropped = (change == 0).all(1)
    assert ((change > 0).float().mean(1)[~dropped] > 0.99).all()
    assert 0 < dropped.sum() < 16


def test_checkpointing_changes_no_gradient():
    plain = WindowedViT(**TINY, window_size=3, rel_pos='shared_bias')
    saving = WindowedViT(**TINY, window_size=3, rel_pos='shared_bias', with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 48)
    for model in (plain, saving):
        model.train()
        model(x)[0].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        assert a.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_bfloat16_autocast_runs():
    model = WindowedViT(**TINY, window_size=3, rel_pos='shared_bias')
    with torch.autocast('cpu', torch.bfloat16):
        out = model(torch.randn(1, 3, 64, 64))[0]
    out.float().sum().backward()
    assert torch.isfinite(model.rel_pos_window.relative_position_bias_table.grad).all()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(rel_pos='both'), 'rel_pos'),
        (dict(pos_embed_mode='sometimes'), 'pos_embed_mode'),
        (dict(global_attn_indexes=(4,)), '0..3'),
        (dict(arch={**ARCH, 'num_layers': 6, 'global_attn_indexes': None}), 'multiple of 4'),
        (dict(out_type='raw'), 'out_type'),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WindowedViT(**{**TINY, **options})
