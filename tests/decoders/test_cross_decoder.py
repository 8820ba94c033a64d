"""The decoder without self-attention: against a restatement, and what follows from its patches being independent."""

import copy

import pytest
import torch
from tiny import VIT, build, images, total_loss

from mim_mm.encoders.grid import Grid
from mim_mm.masking import RandomMasking
from mim_mm.registry import MODELS

CROSS = dict(type='CrossAttentionDecoder', embed_dims=24, depth=2, num_heads=2)
GRID = Grid(height=4, width=4, patch_size=8, in_channels=3, embed_dims=32, num_prefix=1)


def decoder():
    torch.manual_seed(0)
    made = MODELS.build(copy.deepcopy(CROSS)).build_for(GRID, 10)
    made.init_weights()
    for p in made.parameters():  # biases and norms too, so that nothing hides behind a zero
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.3)
    return made


def restated(made, latent, order, visible):
    """One query at a time."""
    out = []
    for row, context in zip(order, latent, strict=True):
        for patch in row[visible:]:
            x = made.mask_token[0, 0] + made.decoder_pos_embed[0, patch]
            for block in made.decoder_blocks:
                q = block.query(block.ln1(x)).view(2, 12)
                keys, values = block.key_value(context).split(24, dim=1)
                heads = []
                for h in range(2):
                    place = slice(12 * h, 12 * h + 12)
                    weight = (keys[:, place] @ q[h] / 12**0.5).softmax(0)
                    heads.append(weight @ values[:, place])
                x = x + block.proj(torch.cat(heads))
                x = x + block.mlp(block.ln2(x))
            out.append(made.decoder_pred(made.ln1(x)))
    return torch.stack(out).view(len(order), -1, 10)


def test_it_equals_a_plain_restatement():
    made, latent = decoder(), torch.randn(2, 5, 32)
    order = torch.rand(2, 16).argsort(1)
    torch.testing.assert_close(made(latent, order, 4), restated(made, latent, order, 4), rtol=1e-4, atol=1e-5)


def test_predicting_fewer_patches_changes_nothing_about_them():
    made, latent = decoder(), torch.randn(2, 5, 32)
    order = torch.rand(2, 16).argsort(1)
    torch.testing.assert_close(made(latent, order[:, :8], 4, 16), made(latent, order, 4)[:, :4])
    with pytest.raises(ValueError, match='img_size'):
        made(latent, order[:, :8], 4)


def test_a_share_of_the_hidden_patches_is_chosen_at_random():
    tokens = torch.zeros(400, 16, 1)
    plan = RandomMasking(0.75, predict=0.25)(tokens, torch.Generator().manual_seed(0))
    assert plan.num_visible == (4,)
    assert (plan.mask.sum(-1) == 4).all() and plan.num_thrown == 8
    whole = RandomMasking(0.75)(tokens, torch.Generator().manual_seed(0))
    assert (plan.visible == whole.visible).all()
    assert (whole.mask | ~plan.mask).all()  # only hidden patches are predicted
    frequency = plan.mask.float().mean(0)
    assert (frequency - 0.25).abs().max() < 0.1
    assert RandomMasking(0.75, predict=0.75)(tokens).num_patches == 16
    with pytest.raises(ValueError, match='predict is 0.8'):
        RandomMasking(0.75, predict=0.8)


@pytest.mark.parametrize('kind, masker', [
    ('MAE', dict(type='RandomMasking', predict=0.25)),
    ('MAE', dict(type='RandomMasking')),
    ('EMAE', dict(type='ParallelMasking', num_parts=4)),
])  # fmt: skip
def test_whole_models_train_on_it(kind, masker):
    model = MODELS.build(copy.deepcopy(dict(type=kind, backbone=VIT, masker=masker, decoder=CROSS)))
    out = model.loss(images())
    total_loss(out).backward()
    for name, p in model.named_parameters():
        assert not p.requires_grad or (p.grad is not None and p.grad.abs().max() > 0), name
    parts = model.reconstruct(images())
    shown = parts['pred'].abs().sum(-1) > 0
    assert torch.equal(shown, parts['plan'].mask)


def test_unequal_parts_are_refused():
    model = build('EMAE', dict(type='ParallelMasking', num_parts=3))
    model.decoder = decoder()
    with pytest.raises(NotImplementedError, match='MAEDecoder'):
        model.loss(images())
