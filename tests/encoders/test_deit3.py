"""DeiT III: mmpretrain's class as mended, against timm's, under plans, and from pretraining to transfer."""

import pytest
import timm
import torch
from masker_table import amr
from tiny import VIT, build, images, total_loss

from mim_mm.checkpoint.load import load_encoder
from mim_mm.encoders import encoder_of
from mim_mm.encoders.packed import pack_plan
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS

DEIT3 = dict(VIT, type='mmpretrain.DeiT3')


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module.eval()
    return module


def test_timms_weights_give_timms_features(tmp_path):
    """Random norms: with the first norm in place of the second, as mmpretrain has it, nothing agrees."""
    theirs = randomised(timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0, init_values=1e-6,
        no_embed_class=True,
    ))  # fmt: skip
    torch.save(dict(state_dict=theirs.state_dict()), tmp_path / 'a.pth')
    ours = MODELS.build(dict(DEIT3))
    report = load_encoder(ours, tmp_path / 'a.pth')
    assert report.fraction == 1 and not report.random
    ours.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images())[0], theirs.forward_features(images()), atol=2e-5, rtol=1e-4)


def test_it_encodes_as_the_backbone_does():
    backbone = randomised(MODELS.build(dict(DEIT3)))
    encoder = encoder_of(backbone)
    order = torch.stack([torch.randperm(16) for _ in range(3)])[:, None]
    plan = MaskPlan.from_lengths(order, [3, 9, 16])
    with torch.no_grad():
        wanted = backbone(images())[0]
        torch.testing.assert_close(torch.cat(encoder.encode_whole(images()), dim=1), wanted)
        tokens = encoder.embed(images())
        found = encoder.encode(tokens, order)[:, 1:]
        packed = encoder.encode_packed(tokens, pack_plan(plan, 1))
        parts = [encoder.encode(tokens[i : i + 1], order[i : i + 1, :, :n])[0] for i, n in enumerate([3, 9, 16])]
    torch.testing.assert_close(found, wanted[:, 1:].gather(1, order[:, 0, :, None].expand(-1, -1, 32)))
    torch.testing.assert_close(packed, torch.cat(parts))


@pytest.mark.parametrize('kind, masker', [
    ('EMAE', None), ('MAE', dict(type='SalienceMasking')), ('MAE', dict(type='SalienceMasking', ratio=amr())),
    ('MAE', dict(type='AttentionMasking')),
])  # fmt: skip
def test_it_trains_and_goes_whole_into_transfer(tmp_path, kind, masker):
    model = build(kind, masker, DEIT3)
    model.init_weights()
    assert model.backbone.pos_embed.shape[1] == 16 and not model.backbone.pos_embed.requires_grad
    total_loss(model.loss(images())).backward()
    for name, parameter in model.named_parameters():  # DDP stops at one without
        assert not parameter.requires_grad or parameter.grad is not None, name
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    target = MODELS.build(dict(DEIT3, img_size=64))
    report = load_encoder(target, tmp_path / 'a.pth')
    assert report.fraction == 1 and list(report.resized) == ['pos_embed']
    target.eval(), model.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(target(x)[0], torch.cat(model.encoder.encode_whole(x), dim=1))
