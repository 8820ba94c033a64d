"""Swin V2 under SimMIM: against mmpretrain's own pass with tokens put in by hand, masks, start and transfer."""

import pytest
import torch
from input_tokens import simmim
from masker_table import amr
from mmpretrain.models import SwinTransformerV2
from tiny import images, total_loss

from mim_mm.checkpoint.load import load_encoder
from mim_mm.encoders import encoder_of
from mim_mm.registry import MODELS

V2 = dict(
    type='mim_mm.SimMIMSwinV2',
    arch=dict(embed_dims=16, depths=[1, 2], num_heads=[2, 2], extra_norm_every_n_blocks=0),
    img_size=32,
    window_size=[4, 4],
    pretrained_window_sizes=[0, 0],
    drop_path_rate=0.0,
    out_indices=(1,),
)


def plain(**options):
    cfg = {key: value for key, value in V2.items() if key != 'type'}
    return SwinTransformerV2(**{**cfg, **options})


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def test_tokens_put_in_by_hand_give_the_same():
    ours = MODELS.build(dict(V2))
    randomised(ours)
    ours.eval()
    theirs = plain()
    theirs.load_state_dict({n: v for n, v in ours.state_dict().items() if n != 'mask_token'}, strict=False)
    theirs.eval()
    mask = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.6
    with torch.no_grad():
        assert torch.equal(ours(images(), None)[0], theirs(images())[0])
        x, size = theirs.patch_embed(images())
        x[mask.flatten(1)] = ours.mask_token[0, 0]
        for stage in theirs.stages:
            x, size = stage(x, size)
        wanted = theirs.norm1(x)
        torch.testing.assert_close(encoder_of(ours).encode_masked(images(), mask), wanted)
    assert not ours.patch_embed._forward_hooks


@pytest.mark.parametrize('masker', [
    dict(type='RandomMasking', ratio=0.6), dict(type='SalienceMasking', ratio=0.6),
    dict(type='SalienceMasking', ratio=amr()), dict(type='ParallelMasking', num_parts=4),
])  # fmt: skip
def test_it_trains_under_maskers_and_goes_whole_into_transfer(tmp_path, masker):
    torch.manual_seed(0)
    model = simmim(V2, masker)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(2):  # in the first one the zero norms let no gradient into the blocks
        optimizer.zero_grad()
        total_loss(model.loss(images(seed=step))).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    target = plain()
    report = load_encoder(target, tmp_path / 'a.pth')
    assert report.fraction == 1 and not report.random and not report.by_design
    larger = plain(img_size=64, window_size=[8, 8], pretrained_window_sizes=[4, 4])
    assert load_encoder(larger, tmp_path / 'a.pth').fraction == 1, 'another window has the same parameters'
    model.eval(), target.eval()
    with torch.no_grad():
        patches = model.encoder.encode_whole(images())[1]
        assert torch.equal(target(images())[0].flatten(2).transpose(1, 2), patches)


def test_hidden_pixels_cannot_reach_the_prediction():
    model = simmim(V2).eval()
    randomised(model.backbone)
    x = images()
    plan = model.plan(x, torch.Generator().manual_seed(0))
    mask = plan.mask[:, 0]
    pixels = mask.view(3, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.no_grad():
        before = model.predict(x, mask)
        assert torch.equal(model.predict(x.masked_fill(pixels, 7.0), mask), before)
        assert not torch.allclose(model.predict(x.masked_fill(~pixels, 7.0), mask), before)


def test_every_block_starts_as_the_identity():
    model = MODELS.build(dict(V2, arch=dict(V2['arch'], embed_dims=64)))
    model.init_weights()
    x = torch.randn(2, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.stages[0].blocks[0](x, (8, 8)), x)
    assert float(model.mask_token.detach().std()) == pytest.approx(0.02, rel=0.4)
    weight = model.stages[1].blocks[0].attn.w_msa.qkv.weight.detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.05) and weight.abs().max() < 0.13
