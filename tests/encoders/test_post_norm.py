"""The ViT of data2vec 2.0: its blocks, what may be asked of it, and the way from pretraining into recipes."""

import pytest
import torch
from recipe_table import load
from tiny import POST_NORM_VIT, VIT, build, data2vec2, images, total_loss
from tiny_run import TINY_ARCH

from mim_mm.checkpoint.load import load_encoder
from mim_mm.encoders import UnsupportedBackbone, encoder_of, reader_of
from mim_mm.encoders.positions import sincos_table
from mim_mm.evaluation.frozen.features import encode
from mim_mm.registry import MODELS


def randomised(module):
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if 'pos_embed' not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    module.eval()
    return module


def norm(x, layer):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, 1e-6)


@torch.no_grad()
def restated(backbone, x):
    """All tokens, and those that enter the last block's attention."""
    x = backbone.patch_embed.projection(x).flatten(2).transpose(1, 2)
    side = int(x.shape[1] ** 0.5)
    if side == 4:
        x = x + sincos_table(4, 4, 32)
    x = norm(torch.cat([backbone.cls_token.expand(len(x), -1, -1), x], dim=1), backbone.pre_norm)
    for layer in backbone.layers:
        entered = x
        x = norm(x + layer.attn(x), layer.ln1)
        first, last = layer.ffn.layers[0][0], layer.ffn.layers[1]
        x = norm(x + last(torch.nn.functional.gelu(first(x))), layer.ln2)
    return x, entered


def test_blocks_are_those_of_a_restatement_wherever_they_are_asked():
    backbone, x = randomised(MODELS.build(dict(POST_NORM_VIT))), images()
    encoder = encoder_of(backbone)
    wanted, entered = restated(backbone, x)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[0], wanted)
        prefix, patches = encoder.encode_whole(x)
        order = torch.stack([torch.randperm(16) for _ in range(3)])[:, None]
        some = encoder.encode(encoder.embed(x), order)
    torch.testing.assert_close(torch.cat([prefix, patches], dim=1), wanted)
    torch.testing.assert_close(some[:, 1:], wanted[:, 1:].gather(1, order[:, 0, :, None].expand(-1, -1, 32)))
    torch.testing.assert_close(reader_of(backbone).read(x, [1])[0], wanted)
    pooled = encode(backbone, x)
    torch.testing.assert_close(pooled['cls'], wanted[:, 0])
    torch.testing.assert_close(pooled['mean'], wanted[:, 1:].mean(1))
    attn = backbone.layers[-1].attn
    q, k, _ = attn.qkv(entered).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    rows = (q[:, :, :1] @ k.transpose(2, 3) / 4).softmax(-1)[:, :, 0, 1:].mean(1)
    torch.testing.assert_close(encoder.cls_attention(encoder.embed(x)), rows)
    assert encoder.norm is None and not encoder.can('encode_packed')


@pytest.mark.parametrize('window', [0, 4])
def test_a_detector_computes_the_same_map(window):
    """One window as large as the map is global attention."""
    sizes = dict(arch=VIT['arch'], img_size=32, patch_size=8)
    encoder = randomised(MODELS.build(dict(sizes, type='PostNormViT', with_cls_token=False, out_type='featmap')))
    detector = MODELS.build(dict(
        sizes, type='WindowedViT', pretrain_img_size=32, window_size=window, rel_pos='none', global_attn_indexes=[1],
        out_indices=[1], post_norm=True,
    ))  # fmt: skip
    detector.load_state_dict(encoder.state_dict())
    detector.eval()
    with torch.no_grad():
        torch.testing.assert_close(detector(images())[0], encoder(images())[0])


@pytest.mark.parametrize('kind', ['mmpretrain.VisionTransformer', 'mmpretrain.DeiT3', 'mim_mm.RegisterViT'])
def test_what_mlps_put_out_is_what_a_block_adds(kind):
    backbone, x = randomised(MODELS.build(dict(VIT, type=kind))), images()
    encoder = encoder_of(backbone)
    with torch.no_grad():
        first, second = encoder.mlp_outputs(x, [0, 1])
        entered, left = encoder.read(x, [0, 1], norm=False)
        layer = backbone.layers[1]
        torch.testing.assert_close(layer.ffn.gamma2(second), left - (entered + layer.attn(layer.ln1(entered))))
    assert first.shape == second.shape == (3, 17, 32)
    assert not any(layer.ffn.layers._forward_hooks for layer in backbone.layers)


def test_mlps_that_add_their_input_themselves_are_refused():
    gated = dict(layer_cfgs=dict(ffn_type='swiglu_fused'))
    with pytest.raises(UnsupportedBackbone, match='SwiGLUFFNFused adds its input itself'):
        encoder_of(MODELS.build(dict(VIT, **gated))).mlp_outputs(images(), [0])
    with pytest.raises(ValueError, match='leave ffn_type out'):
        MODELS.build(dict(POST_NORM_VIT, **gated))
    with pytest.raises(ValueError, match='pre_norm=False'):
        MODELS.build(dict(POST_NORM_VIT, pre_norm=False))


def test_positions_are_fixed_and_follow_the_size_of_images():
    backbone = MODELS.build(dict(POST_NORM_VIT, drop_path_rate=0.3))
    backbone.init_weights()
    assert not backbone.pos_embed.requires_grad and not backbone.pos_embed[:, 0].any()
    assert backbone(images(2, 48))[0].shape == (2, 37, 32)
    depths = {name: backbone.get_layer_depth(name) for name, _ in backbone.named_parameters()}
    assert {depth for name, depth in depths.items() if not name.startswith('layers')} == {(3, 4)}
    assert {depth for name, depth in depths.items() if name.startswith('layers.1.')} == {(2, 4)}


@pytest.mark.parametrize(
    'kind, masker', [('MAE', dict(type='SalienceMasking')), ('EMAE', dict(type='AttentionMasking'))]
)
def test_it_trains_under_other_methods(kind, masker):
    model = build(kind, masker, POST_NORM_VIT)
    model.init_weights()
    total_loss(model.loss(images())).backward()
    for name, parameter in model.backbone.named_parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0 or name.endswith('qkv.bias'), name


@pytest.mark.parametrize('std', [None, 0.07])
def test_another_start_is_kept(std):
    """Attention's matrices from the release's N(0, 0.02), or from what ``init_cfg`` says; positions are fixed."""
    torch.manual_seed(0)
    own = None if std is None else [dict(type='Normal', layer='Linear', std=std)]
    model = data2vec2(backbone=dict(POST_NORM_VIT, init_cfg=own))
    model.init_weights()
    for layer in model.backbone.layers:
        weight = layer.attn.qkv.weight
        assert weight.std().item() == pytest.approx(std or 0.02, rel=5 / (2 * weight.numel()) ** 0.5)
    grid = model.backbone.patch_resolution
    assert torch.equal(model.backbone.pos_embed[0, -grid[0] * grid[1] :], sincos_table(*grid, weight.shape[1])[0])


@pytest.mark.parametrize('recipe', [
    'finetune/vitb_finetune_data2vec2_100e', 'linear/vitb_linear_90e', 'coco/mask_rcnn_vitb_fpn_ms_12e',
])  # fmt: skip
def test_a_pretrained_one_goes_whole_into_recipes(tmp_path, recipe):
    tiny = dict(arch=dict(TINY_ARCH), img_size=32, patch_size=8)
    model = data2vec2(backbone=dict(POST_NORM_VIT, **tiny))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    cfg = load(recipe)
    backbone = cfg.model.backbone
    if recipe.startswith('coco'):
        backbone.update(post_norm=True, pretrain_img_size=32, window_size=2, out_indices=[1], global_attn_indexes=[1])
    else:
        backbone.update(type='mim_mm.PostNormViT')
    backbone.update(tiny, **(dict(frozen_stages=2) if 'frozen_stages' in backbone else {}))
    backbone.pop('init_cfg', None)
    target = MODELS.build(dict(backbone, _scope_='mmpretrain'))
    report = load_encoder(target, tmp_path / 'a.pth')
    assert report.fraction == 1
    assert {name.split('.')[0] for name in report.random} <= {
        'ln1',
        'ln2',
        'rel_pos_global',
        'rel_pos_window',
        'layers',
    }
    names = {name for name in report.random if 'rel_pos' not in name}
    assert names <= {'ln2.weight', 'ln2.bias'}, names
    for name, value in model.backbone.named_parameters():
        if name.startswith(('layers', 'pre_norm')):
            assert torch.equal(value, target.get_parameter(name)), name
    if 'frozen_stages' in backbone:
        assert not any(p.requires_grad for p in target.parameters())
