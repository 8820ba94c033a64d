"""Registers and several class tokens: against timm's ViT, under plans, in pools, and from pretraining to transfer."""

import pytest
import timm
import torch
from recipe_table import load
from tiny import VIT, build, images, total_loss
from tiny_run import TINY_ARCH

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.encoders import encoder_of, reader_of
from mim_mm.evaluation.frozen.features import encode
from mim_mm.registry import MODELS

ARCH = VIT['arch']


def vit(classes=1, registers=4, **options):
    backbone = dict(VIT, type='mim_mm.RegisterViT', num_cls_tokens=classes, num_registers=registers, **options)
    return MODELS.build(backbone)


def randomised(module, seed=0):
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module.eval()
    return module


@pytest.mark.parametrize('positions', ['registers too', 'class token too', 'patches'])
def test_timms_registers_give_the_same_features(tmp_path, positions):
    """timm's three layouts of the table; six registers in front of 16 patches, so that no wrong cut is a square."""
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=4, num_classes=0, reg_tokens=6,
        no_embed_class=positions == 'patches',
    )  # fmt: skip
    randomised(theirs)
    state = theirs.state_dict()
    if positions == 'class token too':  # DINOv2's own: a row for the class token, none for registers
        table = state['pos_embed']
        state['reg_token'] = state['reg_token'] + table[:, 1:7]
        state = {n.replace('reg_token', 'register_tokens'): v for n, v in state.items()}
        state['pos_embed'] = torch.cat((table[:, :1], table[:, 7:]), dim=1)
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    ours = vit(registers=6)
    report = load_encoder(ours, tmp_path / 'a.pth')
    assert report.fraction == 1 and not report.random
    ours.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images())[0], theirs.forward_features(images()), atol=2e-5, rtol=1e-4)


def test_another_number_of_registers_stops(tmp_path):
    torch.save(dict(state_dict=vit(registers=4).state_dict()), tmp_path / 'a.pth')
    with pytest.raises(LoadError, match='register_tokens'):
        load_encoder(vit(registers=3), tmp_path / 'a.pth')
    with pytest.raises(LoadError, match=r"set model.backbone.type='mim_mm.RegisterViT'"):
        load_encoder(MODELS.build(dict(VIT)), tmp_path / 'a.pth')


@pytest.mark.parametrize('classes, registers', [(1, 0), (1, 4), (8, 0), (3, 2)])
def test_it_is_a_vit_with_more_tokens_in_front(classes, registers):
    """A restatement: the same blocks on [class tokens + their positions, registers, patches + theirs]."""
    backbone = randomised(vit(classes, registers))
    encoder = encoder_of(backbone)
    x = images()
    with torch.no_grad():
        patches = backbone.patch_embed.projection(x).flatten(2).transpose(1, 2) + backbone.pos_embed[:, classes:]
        front = [backbone.cls_token + backbone.pos_embed[:, :classes]]
        front += [backbone.register_tokens] if registers else []
        tokens = torch.cat([*(t.expand(3, -1, -1) for t in front), patches], dim=1)
        for layer in backbone.layers:
            tokens = layer(tokens)
        wanted = backbone.ln1(tokens)
        torch.testing.assert_close(backbone(x)[0], wanted)
        prefix, whole = encoder.encode_whole(x)
        order = torch.stack([torch.randperm(16) for _ in range(3)])[:, None]
        some = encoder.encode(encoder.embed(x), order)
    assert encoder.num_prefix == classes + registers and prefix.shape[1] == classes + registers
    torch.testing.assert_close(torch.cat([prefix, whole], dim=1), wanted)
    index = order[:, 0, :, None].expand(-1, -1, 32)
    torch.testing.assert_close(some[:, classes + registers :], whole.gather(1, index))
    # pools: the first class token, and patches alone
    pooled = encode(backbone, x)
    torch.testing.assert_close(pooled['cls'], wanted[:, 0])
    torch.testing.assert_close(pooled['mean'], wanted[:, classes + registers :].mean(1))
    read = reader_of(backbone).read(x, [1])[0]
    torch.testing.assert_close(read, wanted)


def test_none_of_it_is_mmpretrains_vit():
    plain, ours = randomised(MODELS.build(dict(VIT))), vit(1, 0)
    ours.load_state_dict(plain.state_dict())
    ours.eval()
    with torch.no_grad():
        assert torch.equal(ours(images())[0], plain(images())[0])


@pytest.mark.parametrize('kind, masker', [
    ('MAE', dict(type='SalienceMasking')), ('EMAE', None), ('EMAE', dict(type='AttentionMasking')),
    ('MAE', dict(type='SalienceMasking', ratio=dict(type='AdaptiveRatio', base=0.75, delta_r=0.1, threshold=0.1))),
])  # fmt: skip
def test_it_trains_and_every_token_learns(kind, masker):
    torch.manual_seed(0)
    backbone = dict(VIT, type='mim_mm.RegisterViT', num_cls_tokens=2, num_registers=3)
    model = build(kind, masker, backbone)
    model.init_weights()
    total_loss(model.loss(images())).backward()
    for name in ('cls_token', 'register_tokens'):
        parameter = getattr(model.backbone, name)
        assert (parameter.grad.abs().sum(dim=-1) > 0).all(), name
        assert parameter.std() > 0.005
    assert not model.backbone.pos_embed.requires_grad and model.backbone.pos_embed.shape[1] == 2 + 16
    assert not model.backbone.pos_embed[:, :2].any()


@pytest.mark.parametrize('recipe', ['finetune/vitb_finetune_100e', 'linear/vitb_linear_90e', 'linear/vitb_quick_probe'])
def test_a_pretrained_one_goes_whole_into_recipes(tmp_path, recipe):
    kinds = dict(type='mim_mm.RegisterViT', num_cls_tokens=2, num_registers=3)
    tiny = dict(arch=dict(TINY_ARCH), img_size=32, patch_size=8)
    model = build('EMAE', backbone=dict(VIT, **kinds, arch=dict(TINY_ARCH)))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    cfg = load(recipe)
    frozen = 'frozen_stages' in cfg.model.backbone
    cfg.model.backbone.update(**kinds, **tiny, **(dict(frozen_stages=2) if frozen else {}))
    target = MODELS.build(dict(cfg.model.backbone, _scope_='mmpretrain'))
    report = load_encoder(target, tmp_path / 'a.pth')
    assert not frozen or not any(p.requires_grad for p in target.parameters())
    assert not report.random and set(report.by_design) <= {'ln2.weight', 'ln2.bias'}
    for name in ('register_tokens', 'cls_token', 'pos_embed'):
        assert target.get_layer_depth(f'backbone.{name}', 'backbone.') == (0, 4)
    model.eval(), target.eval()
    with torch.no_grad():
        prefix, patches = model.encoder.encode_whole(images())
        if recipe.startswith('finetune'):
            torch.nn.init.zeros_(target.ln2.bias), torch.nn.init.ones_(target.ln2.weight)
            before = reader_of(model.backbone).read(images(), [1], norm=False)[0][:, 5:].mean(1)
            torch.testing.assert_close(target(images())[0], torch.nn.functional.layer_norm(before, (32,), eps=1e-6))
        else:
            found = reader_of(target).read(images(), [1])[0]
            torch.testing.assert_close(found, torch.cat([prefix, patches], dim=1))


@pytest.mark.parametrize('options', [dict(num_cls_tokens=0), dict(num_registers=-1), dict(with_cls_token=False)])
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match='has one class token or more'):
        MODELS.build(dict(VIT, type='mim_mm.RegisterViT', **options))
