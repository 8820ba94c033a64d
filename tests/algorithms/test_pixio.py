"""Pixio's parts of MAE against a restatement in the order of the image: cells, learnt positions, 8 class tokens."""

import pytest
import torch
import torch.nn.functional as F
from built_recipes import groups_of, load, meta
from masker_table import amr
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pretrainings import run_two_steps
from tiny import VIT, build, images, total_loss
from tiny_run import SHRINK, TINY_ARCH

from mim_mm.checkpoint.load import load_encoder
from mim_mm.engine.start import guard
from mim_mm.masking.base import set_grid
from mim_mm.recipe_facts import variant
from mim_mm.registry import MODELS
from mim_mm.targets import patchify

PIXIO = dict(
    backbone=dict(VIT, type='mim_mm.RegisterViT', num_cls_tokens=3),
    masker=dict(type='CellMasking', masker=dict(type='RandomMasking', ratio=0.75), cell=2),
    decoder=dict(depth=2, positions='learned'),
    pos_embed='learned',
)


def pixio(kind='MAE', **options):
    torch.manual_seed(0)
    model = build(kind, **{**PIXIO, **options})
    model.init_weights()
    return model


def block(layer, x, heads):
    """Pre-norm attention and MLP, on plain tensors."""
    y = F.layer_norm(x, x.shape[-1:], layer.ln1.weight, layer.ln1.bias, 1e-6)
    qkv = (y @ layer.attn.qkv.weight.T + layer.attn.qkv.bias).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scores = (qkv[0] @ qkv[1].transpose(-1, -2) / qkv.shape[-1] ** 0.5).softmax(dim=-1)
    y = (scores @ qkv[2]).transpose(1, 2).flatten(2)
    x = x + y @ layer.attn.proj.weight.T + layer.attn.proj.bias
    first, second = layer.ffn.layers[0][0], layer.ffn.layers[1]
    y = F.layer_norm(x, x.shape[-1:], layer.ln2.weight, layer.ln2.bias, 1e-6)
    return x + F.gelu(y @ first.weight.T + first.bias) @ second.weight.T + second.bias


def restated_loss(model, x, hidden):
    """Of one image x (1, 3, 32, 32) with ``hidden`` (16,): everything in the order of the image, as in the release."""
    encoder, decoder, classes = model.backbone, model.decoder, 3
    tokens = encoder.patch_embed.projection(x).flatten(2).transpose(1, 2) + encoder.pos_embed[:, classes:]
    z = torch.cat([encoder.cls_token + encoder.pos_embed[:, :classes], tokens[:, ~hidden]], dim=1)
    for layer in encoder.layers:
        z = block(layer, z, 2)
    z = F.layer_norm(z, z.shape[-1:], encoder.ln1.weight, encoder.ln1.bias, 1e-6)
    z = z @ decoder.decoder_embed.weight.T + decoder.decoder_embed.bias
    whole = decoder.mask_token.expand(1, 16, -1).clone()
    whole[:, ~hidden] = z[:, classes:]
    z = torch.cat([z[:, :classes], whole], dim=1) + decoder.decoder_pos_embed
    for layer in decoder.decoder_blocks:
        z = block(layer, z, 2)
    z = F.layer_norm(z, z.shape[-1:], decoder.ln1.weight, decoder.ln1.bias, 1e-6)
    guess = (z @ decoder.decoder_pred.weight.T + decoder.decoder_pred.bias)[:, classes:]
    target = patchify(x, 8)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    return (guess - target).square().mean(-1)[:, hidden].mean()


def test_loss_and_gradients_are_those_of_the_restatement():
    model, x = pixio(), images(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    plan = model.plan(x, torch.Generator().manual_seed(3))
    model.draw_plan = lambda tokens, generator=None: plan
    names, parameters = zip(*model.named_parameters())
    ours = model.loss(x)['loss_whole']
    theirs = restated_loss(model, x, plan.mask[0, 0])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for name, mine, wanted in zip(
        names, torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters)
    ):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-5, msg=name)
        assert wanted.abs().sum() > 0, name


@pytest.mark.parametrize('masker, kinds', [
    (dict(type='RandomMasking', ratio=0.75), 1), (dict(type='ParallelMasking', num_parts=4), 4),
    (dict(type='SalienceMasking', ratio=0.75), 1), (dict(type='SalienceMasking', ratio=amr()), 1),
    (dict(type='ComplementaryMasking', num_parts=2), 2), (dict(type='BlockMasking', ratio=0.5), 1),
])  # fmt: skip
def test_each_cell_is_hidden_or_visible_as_a_whole(masker, kinds):
    """On 8 x 12 patches; the cells are those that the inner masker picks among the mean tokens."""
    tokens = torch.randn(5, 96, 6, generator=torch.Generator().manual_seed(0))
    cells = tokens.view(5, 4, 2, 6, 2, 6).mean(dim=(2, 4)).flatten(1, 2)
    bare = MODELS.build(dict(masker))
    set_grid(bare, (4, 6))
    wanted = bare(cells, torch.Generator().manual_seed(1))
    outer = MODELS.build(dict(type='CellMasking', masker=masker, cell=2, grid=(8, 12)))
    plan = outer(tokens, torch.Generator().manual_seed(1))
    assert plan.num_parts == wanted.num_parts == kinds and plan.partition == wanted.partition
    assert torch.equal(plan.order.sort(dim=-1).values, torch.arange(96).expand_as(plan.order))
    mask = plan.mask.view(5, kinds, 4, 2, 6, 2)
    assert torch.equal(mask, wanted.mask.view(5, kinds, 4, 1, 6, 1).expand_as(mask))
    assert torch.equal(plan.lengths, 4 * wanted.lengths)
    assert [tuple(part) for part in outer.counts(96)] == [tuple(4 * n for n in part) for part in bare.counts(24)]


def test_parts_of_cells_agree_as_any_parts_do():
    """EMAE's static slices on a partition of cells equal the general form over all pairs."""
    masker = dict(type='CellMasking', masker=dict(type='ParallelMasking', num_parts=4), cell=2)
    model = pixio('EMAE', masker=masker)
    x = images()
    model.mask_generator = torch.Generator().manual_seed(0)
    plan = model.plan(x, torch.Generator().manual_seed(0))
    assert plan.partition
    predictions = model.predict_hidden(model.encoder.embed(x), plan)
    static = model.consistency(predictions, plan)
    dense = model.spread(predictions, plan)
    pairs = [(a, b) for a in range(4) for b in range(4) if a < b]
    both = torch.stack([plan.mask[:, a] & plan.mask[:, b] for a, b in pairs], dim=1)
    gaps = torch.stack([(dense[:, a] - dense[:, b]).abs().mean(-1) for a, b in pairs], dim=1)
    torch.testing.assert_close(static, 2 * gaps[both].mean())  # each part is pulled towards the other
    total_loss(model.loss(x)).backward()


def test_patches_that_are_no_whole_number_of_cells_stop():
    masker = MODELS.build(dict(type='CellMasking', masker=dict(type='RandomMasking'), cell=4))
    with pytest.raises(ValueError, match='14 x 14 patches are no whole number of cells of 4 x 4'):
        masker(torch.zeros(1, 196, 2))


def test_the_recipe_is_the_releases():
    cfg = load('pixio/pixio_vith_400e.py')
    guard.check_config(cfg)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(8e-4) and cfg.optim_wrapper.optimizer.betas == (0.9, 0.95)
    batch = 8 * cfg.train_dataloader.batch_size * cfg.optim_wrapper.accumulative_counts
    assert batch == cfg.auto_scale_lr.base_batch_size == 8192
    assert [step.type for step in cfg.train_dataloader.dataset.pipeline][1:] == ['FastRandomResizedCrop', 'PackImage']
    assert cfg.train_dataloader.dataset.pipeline[1].scale == cfg.model.backbone.img_size == 256
    assert variant(cfg.model.masker) == 'random r=3/4, cells 4 x 4'
    with meta():
        model = MODELS.build(cfg.model)
    # 631 million in the release's table: 32 blocks of width 1280, without and with the decoder's 32 of width 512
    assert sum(p.numel() for p in model.backbone.parameters()) / 1e6 == pytest.approx(631, abs=0.6)
    assert sum(p.numel() for p in model.decoder.decoder_blocks.parameters()) == 32 * (12 * 512**2 + 13 * 512)
    assert model.decoder.decoder_pos_embed.shape == (1, 8 + 256, 512) and model.decoder.decoder_pos_embed.requires_grad
    assert model.backbone.pos_embed.requires_grad and model.backbone.cls_token.shape == (1, 8, 1280)
    drops = [layer.attn.out_drop.drop_prob for layer in model.backbone.layers]
    assert (drops[0], drops[-1]) == (0, pytest.approx(0.4))
    init_default_scope('mim_mm')
    spared = {name for name, group in groups_of(model, cfg).items() if group['weight_decay'] == 0}
    assert spared == {name for name, p in model.named_parameters() if p.ndim == 1}, 'tokens and positions are decayed'
    plan = MODELS.build(cfg.model.masker)(torch.zeros(2, 256, 2), torch.Generator().manual_seed(0))
    assert plan.num_visible == (64,)


def test_a_small_one_trains_through_the_runner_and_goes_into_a_recipe(image_folder, tmp_path):
    cfg = Config(load('pixio/pixio_vith_400e.py').to_dict())
    cfg.merge_from_dict(SHRINK | {'model.masker.cell': 2, 'optim_wrapper.accumulative_counts': 1})
    cfg.model.backbone.arch = dict(TINY_ARCH)
    model, changed = run_two_steps(cfg, image_folder, tmp_path / 'run', f'pixio-{tmp_path.name}')
    assert {'backbone.cls_token', 'backbone.pos_embed', 'decoder.decoder_pos_embed'} <= changed
    found = load('linear/vitb_quick_probe.py').model.backbone
    found.update(type='mim_mm.RegisterViT', num_cls_tokens=8, arch=dict(TINY_ARCH), img_size=32, patch_size=8)
    target = MODELS.build(dict(found, _scope_='mmpretrain'))
    report = load_encoder(target, tmp_path / 'run/epoch_2.pth')
    assert report.fraction == 1 and not report.random
    target.eval(), model.eval()
    with torch.no_grad():
        torch.testing.assert_close(target(images())[0], model.encoder.encode_whole(images())[0][:, 0])
