"""BootMAE against a plain restatement in image order, under the names of its release: two steps in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import BEIT, VIT, bootmae, images, total_loss
from torch import nn
from toy_run import resumed_bit_for_bit

from mim_mm.algorithms.bootmae import BootMAE
from mim_mm.checkpoint.load import load_encoder
from mim_mm.clock import Clock
from mim_mm.encoders.positions import sincos_table
from mim_mm.engine.start.checks.argument_rules import rule_for
from mim_mm.losses import block_weights
from mim_mm.masking import BlockMasking, salience
from mim_mm.registry import MODELS
from mim_mm.weights.bootmae_release import from_bootmae_release
from mim_mm.weights.importing import open_foreign

WIDTH, DEPTH, HEADS, SIDE, PATCH = 32, 2, 2, 4, 8
DIMS = 20  # of the pixel decoder
THREE = dict(VIT['arch'], embed_dims=48, num_heads=3, feedforward_channels=192)  # heads that do not divide DIMS: 3 of 6


def norm(width):
    return nn.LayerNorm(width, eps=1e-6)


class Attend(nn.Module):
    """Softmax attention by loops over nothing: q, k, v with biases of q and v, heads of dim // heads."""

    def __init__(self, dim, other, heads):
        super().__init__()
        self.heads, self.each = heads, dim // heads
        inner = self.heads * self.each
        if other is None:
            self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        else:
            self.q, self.kv = nn.Linear(dim, inner, bias=False), nn.Linear(other, 2 * inner, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(inner)), nn.Parameter(torch.zeros(inner))
        self.proj = nn.Linear(inner, dim)

    def forward(self, x, other=None):
        if other is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            q, (k, v) = self.q(x), self.kv(other).chunk(2, dim=-1)
        q, v = q + self.q_bias, v + self.v_bias
        out = []
        for head in range(self.heads):
            part = slice(head * self.each, (head + 1) * self.each)
            logits = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(self.each)
            out.append(logits.softmax(-1) @ v[..., part])
        return self.proj(torch.cat(out, dim=-1))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, other=None):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = norm(dim), Attend(dim, None, heads), norm(dim), Mlp(dim)
        if other:
            self.norm3, self.norm4, self.c_attn = norm(dim), norm(other), Attend(dim, other, heads)

    def forward(self, x, features=None):
        x = x + self.attn(self.norm1(x))
        if features is not None:
            x = x + self.c_attn(self.norm3(x), self.norm4(features))
        return x + self.mlp(self.norm2(x))


class PlainBootMAE(nn.Module):
    """Tokens go back to image order before the decoders, and losses are means over whole maps."""

    def __init__(self, width=WIDTH, heads=HEADS):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_table(SIDE, SIDE, width, 1), requires_grad=False)
        self.de_pos_embed = nn.Parameter(sincos_table(SIDE, SIDE, DIMS, 1), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(DEPTH))
        self.norm = norm(width)
        self.decode_blocks = nn.ModuleList([Block(DIMS, heads, width)])
        self.decode_norm, self.down = norm(DIMS), nn.Linear(width, DIMS)
        self.mask_token = nn.Parameter(torch.randn(1, 1, DIMS))
        self.lm_head = nn.Module()
        self.lm_head.proj = nn.ConvTranspose2d(DIMS, 3, PATCH, PATCH)
        self.decode_blocks_1 = nn.ModuleList([Block(width, heads, width)])
        self.decode_norm_1, self.down_1 = norm(width), nn.Linear(width, width)
        self.mask_token_1, self.lm_head_1 = nn.Parameter(torch.randn(1, 1, width)), nn.Linear(width, width)

    def embed(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed

    def target(self, x):
        """As a teacher: the last block on the whole image, without the final norm."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x[:, 1:]

    def decode(self, latent, features, mask, down, token, table, blocks, last):
        visible = torch.cat([torch.ones(len(mask), 1, dtype=torch.bool), ~mask], dim=1)
        rows = []
        for one, seen in zip(down(latent), visible):  # latent in image order here
            full = (token + table)[0].clone()
            full[seen] = one
            rows.append(full)
        x = torch.stack(rows)
        for block in blocks:
            x = block(x, features)
        return last(x)[:, 1:]

    def losses(self, x, mask, teacher, weight):
        """mask: bool (B, N). Returns L_pixels and w * L_features."""
        batch = len(x)
        tokens = self.embed(x)
        keep = torch.cat([torch.ones(batch, 1, dtype=torch.bool), ~mask], dim=1)
        latent = tokens[keep].view(batch, -1, tokens.shape[-1])
        outputs = []
        for block in self.blocks:
            latent = block(latent)
            outputs.append(latent)
        latent = self.norm(latent)
        pixels = self.decode(latent, outputs[0], mask, self.down, self.mask_token, self.de_pos_embed,
                             self.decode_blocks, self.decode_norm)  # fmt: skip
        pixels = self.lm_head.proj(pixels.transpose(1, 2).unflatten(2, (SIDE, SIDE)))
        features = self.lm_head_1(
            self.decode(latent, outputs[-1], mask, self.down_1, self.mask_token_1, self.pos_embed,
                        self.decode_blocks_1, self.decode_norm_1)
        )  # fmt: skip
        hidden = mask.view(batch, 1, SIDE, SIDE).float()  # as released: ninths in fp32
        around = F.pad(hidden, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).mean(dim=(-1, -2))
        weights = hidden + hidden * around
        wanted = torch.empty_like(x)
        for i in range(SIDE):
            for j in range(SIDE):
                at = (..., slice(i * PATCH, (i + 1) * PATCH), slice(j * PATCH, (j + 1) * PATCH))
                flat = x[at].flatten(2)
                value = (flat - flat.mean(-1, keepdim=True)) / (flat.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
                wanted[at] = value.view_as(x[at])
        up = weights.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        one = (up * (pixels - wanted) ** 2).mean() / hidden.mean()
        with torch.no_grad():
            target = teacher.target(x)

        def plain_norm(t):
            return F.layer_norm(t, t.shape[-1:], eps=1e-6)

        apart = weights.view(batch, -1, 1) * (plain_norm(target) - plain_norm(features)) ** 2
        return one, weight * apart.mean() / hidden.mean()


@pytest.mark.parametrize('backbone, width, heads', [(BEIT, 32, 2), (dict(BEIT, arch=THREE), 48, 3)], ids=['2', '3'])
def test_two_steps_are_those_of_the_restatement(backbone, width, heads):
    torch.manual_seed(0)
    student, teacher = (PlainBootMAE(width, heads).double() for _ in range(2))
    model = bootmae(backbone=backbone, feature_ramp=0.25, momentum=[(0, 0.9), (10, 0.99)]).double().train()
    state = from_bootmae_release(student.state_dict(), teacher.state_dict())
    assert state.keys() == model.state_dict().keys()
    model.load_state_dict(state)
    theirs, mine = (
        torch.optim.AdamW((p for p in m.parameters() if p.requires_grad), lr=1e-2) for m in (student, model)
    )
    for step, epoch in enumerate((2, 3)):
        x = images(3, seed=step).double()
        model.begin_step(Clock(0, step, epoch, 0.0, 5, 20.0))
        plan = model.draw_plan(model.encoder.embed(x), torch.Generator().manual_seed(step))
        model.draw_plan = lambda tokens, generator=None, plan=plan: plan
        out = model.loss(x)
        del model.draw_plan
        wanted = student.losses(x, plan.mask[:, 0], teacher, min(4 * (1 + epoch) / 20, 1))
        for name, value in zip(('loss_pixels', 'loss_features'), wanted, strict=True):
            assert abs(out[name].item() - value.item()) < 1e-10, name
        for optimizer, loss in ((theirs, sum(wanted)), (mine, total_loss(out))):
            optimizer.zero_grad()
            loss.backward()
        grads = {n: p.grad for n, p in student.named_parameters() if p.requires_grad}
        mine_grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        renamed = from_bootmae_release(grads)
        assert renamed.keys() == mine_grads.keys()
        for name, grad in renamed.items():
            torch.testing.assert_close(mine_grads[name], grad, rtol=1e-8, atol=1e-12, msg=name)
        theirs.step(), mine.step()
        model.end_step()
        momentum = 0.9 + epoch / 10 * 0.09
        with torch.no_grad():
            for mean, value in zip(teacher.parameters(), student.parameters()):
                mean.copy_(momentum * mean + (1 - momentum) * value)
        for name, value in from_bootmae_release(student.state_dict(), teacher.state_dict()).items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-9, msg=name)


def test_weights_are_those_counted_by_hand():
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.bool).view(1, 1, 9)
    wanted = torch.tensor([[13, 13, 0], [13, 13, 0], [0, 0, 0]]) / 9  # 4 of 9 around each, outside visible
    torch.testing.assert_close(block_weights(mask, (3, 3)), wanted.view(1, 1, 9).float())
    assert block_weights(torch.ones(1, 1, 9, dtype=torch.bool), (3, 3))[0, 0, 4] == 2


def test_the_weight_of_features_rises_by_the_epoch():
    model = bootmae(feature_ramp=0.25)
    for epoch, wanted in ((0, 4 / 801), (1, 8 / 801), (99, 400 / 801), (199, 800 / 801), (200, 1), (800, 1)):
        model.begin_step(Clock(0, 9 * epoch + 4, epoch, 0.5, 9, 801.0))
        assert model.feature_scale.item() == pytest.approx(wanted, abs=1e-7)
    with pytest.raises(ValueError, match='set feature_ramp=0'):
        model.begin_step(Clock(0, 3, None, 0.5))


def test_it_starts_as_the_release_does():
    """Bounds and spreads of every kind of tensor; the facts give the distributions."""
    torch.manual_seed(3)
    model = bootmae(backbone=dict(BEIT, arch=dict(BEIT['arch'], embed_dims=96)), decoder_dims=64)
    state = model.state_dict()
    hidden = 4 * 64
    bounds = {
        'backbone.layers.0.attn.qkv.weight': 6 / (96 + 96),  # as three matrices
        'backbone.layers.1.attn.proj.weight': 6 / (96 + 96),
        'backbone.layers.0.ffn.layers.1.weight': 6 / (128 + 96),
        'backbone.patch_embed.projection.weight': 6 / (3 * PATCH**2 + 96),
        'pixel_decoder.blocks.0.attn.qkv.weight': 6 / (64 + 64),
        'pixel_decoder.blocks.0.cross.kv.weight': 6 / (96 + 2 * 64),  # as one matrix
        'pixel_decoder.blocks.0.cross.q.weight': 6 / (64 + 64),
        'pixel_decoder.blocks.0.mlp.0.weight': 6 / (64 + hidden),
        'pixel_decoder.embed.weight': 6 / (96 + 64),
        'pixel_decoder.head.weight': 1 / (3 * PATCH**2),  # torch's default
        'feature_decoder.head.weight': 6 / (96 + 96),
    }
    for name, square in bounds.items():
        value, bound = state[name], math.sqrt(square)
        assert 0.98 * bound < value.abs().max() <= bound, name
        assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06), name
        assert value.mean().abs() < 0.05 * bound, name
    assert 3e-7 < state['backbone.cls_token'].std() < 3e-6
    for decoder in ('pixel', 'feature'):
        token = state[f'{decoder}_decoder.mask_token']
        assert token.abs().max() <= 0.02 and 0.008 < token.std() < 0.014
    zeros = [n for n in state if n.endswith('bias') and 'pixel_decoder.head' not in n]
    assert len(zeros) > 40 and not any(state[n].any() for n in zeros)
    assert all((state[n] == 1).all() for n in state if '.ln' in n and n.endswith('weight'))
    torch.testing.assert_close(state['backbone.pos_embed'], sincos_table(SIDE, SIDE, 96, 1))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[f'teacher.{name}'])
    assert not model.train().teacher.training and model.backbone.training


def test_blocks_are_topped_up_and_change_roles(monkeypatch):
    placed = []
    place = BlockMasking._place
    monkeypatch.setattr(BlockMasking, '_place', lambda self, *args: placed.append(place(self, *args)) or placed[-1])
    masker = BlockMasking(ratio=147 / 196, block_ratio=120 / 196, max_block=60, fill='blocks', roll=3)
    tokens, generator = torch.zeros(8, 196, 1), torch.Generator().manual_seed(0)
    shown = []
    for _ in range(24):
        plan = masker(tokens, generator)
        assert plan.num_visible == (49,) and plan.mask.sum(dim=-1).unique().tolist() == [147]
        blocks = placed.pop().flatten(1)
        assert blocks.sum(dim=1).unique().tolist() == [120]
        # k of the blocks became visible, the same in all images of the call
        visible = (blocks & ~plan.mask[:, 0]).sum(dim=1).unique().tolist()
        assert len(visible) == 1
        # those stand first, as a roll to the right leaves them
        first = blocks.gather(1, plan.order[:, 0])[:, : visible[0]]
        assert first.all()
        shown += visible
    assert set(shown) == {0, 1, 2, 3}
    for options in (
        dict(block_ratio=0.8),
        dict(block_ratio=0.5, fill='none'),
        dict(roll=2, fill='none'),
        dict(roll=-1),
    ):
        with pytest.raises(ValueError, match='block_ratio=|roll='):
            BlockMasking(ratio=0.75, **options)


def test_salience_is_that_of_the_embedded_patches_and_the_teacher_sees_the_whole_image():
    model, x = bootmae(dict(type='SalienceMasking', noise=0.0)), images()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.renew_teachers()
    tokens = model.backbone.patch_embed(x)[0] + model.backbone.pos_embed[:, 1:]
    asked, masker = [], model.masker
    model.masker = lambda given, generator: asked.append(given) or masker(given, generator)
    plan = model.plan(x)
    torch.testing.assert_close(asked[0], tokens.detach())
    assert plan.num_visible == (4,) and not asked[0].requires_grad
    guide, hidden = salience(tokens.detach()), plan.mask[:, 0]
    assert (guide.masked_fill(~hidden, 2).amin(dim=1) >= guide.masked_fill(hidden, -1).amax(dim=1)).all()
    whole = torch.randperm(16)  # nothing hidden, in any order
    found = model.encoder.encode_levels(model.encoder.embed(x), whole.expand(3, 1, -1), [1])[1][0][:, 1:]
    torch.testing.assert_close(
        model.feature_target(x)[:, whole], F.layer_norm(found, found.shape[-1:], eps=1e-6), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('backbone', [BEIT, VIT], ids=['beit', 'vit'])
def test_levels_are_the_blocks_outputs(backbone):
    model, x = bootmae(backbone=backbone), images()
    everything = torch.arange(16).expand(3, 1, -1)
    last, levels = model.encoder.encode_levels(model.encoder.embed(x), everything, [1, 0])
    for level, read in zip(levels, model.encoder.read(x, [1, 0], norm=False), strict=True):
        torch.testing.assert_close(level, read)
    torch.testing.assert_close(last, model.encoder.norm(levels[0]))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='final_norm=True'):
        bootmae(backbone=dict(BEIT, final_norm=False))
    with pytest.raises(ValueError, match='feature_ramp=2'):
        bootmae(feature_ramp=2)
    with pytest.raises(ValueError, match='no room for 4 heads'):
        bootmae(backbone=dict(BEIT, arch=dict(BEIT['arch'], num_heads=4)), decoder_dims=2)
    biased = bootmae(backbone=dict(BEIT, use_rel_pos_bias=True))
    with pytest.raises(NotImplementedError, match='biases of relative positions'):
        biased.loss(images())


def test_a_table_of_momenta_is_no_mistake_of_a_config():
    rule = rule_for('MODELS', BootMAE, 'momentum')
    assert rule([(0, 0.999), (100, 0.9999), (400, 0.99999)]) is None and rule(dict(start=0.996)) is None
    assert rule(0.9) is None and 'within 0 and 1' in rule(1.5)
    with pytest.raises(ValueError, match='epochs'):  # what the table holds, its teacher says
        bootmae(momentum=[(0, 0.9), (0, 0.99)])


def test_a_checkpoint_of_the_release_loads_in_full(tmp_path):
    student, teacher = PlainBootMAE(), PlainBootMAE()
    torch.save({'model': student.state_dict(), 'model_ema': teacher.state_dict()}, tmp_path / 'release.pth')
    for kind in (BEIT, dict(VIT, final_norm=True)):  # split biases, and one bias
        backbone = MODELS.build(dict(kind))
        report = load_encoder(backbone, tmp_path / 'release.pth', entry='model')
        assert report.fraction == 1 and not report.random and not report.by_design
        own = 'qkv.weight' if 'qkv.weight' in student.state_dict() else 'attn.qkv.weight'
        assert torch.equal(backbone.state_dict()[f'layers.1.{own}'], student.state_dict()[f'blocks.1.{own}'])
    found = open_foreign(tmp_path / 'release.pth', entry='model', heads=2)
    assert found.origin == 'bootmae' and found.pixels == ((127.5,) * 3, (127.5,) * 3)
    state = found.write(tmp_path / 'ours.pth')
    assert state.keys() == bootmae().state_dict().keys()
    wanted = from_bootmae_release(student.state_dict(), teacher.state_dict())
    assert all(torch.equal(state[name], value) for name, value in wanted.items())
    with pytest.raises(ValueError, match='fc.weight is no key'):
        from_bootmae_release({'fc.weight': torch.zeros(1)})


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.Images.__getitem__', lambda self, i: dict(inputs=images(1, seed=i)[0]))
    options = dict(feature_ramp=0.5, momentum=[(0, 0.5), (3, 0.9)])
    resumed_bit_for_bit(tmp_path, lambda: bootmae(**options))
