"""Models on images of several sizes: against models that were built for each size, and positions by hand."""

import itertools

import pytest
import torch
from masker_table import table as maskers
from tiny import HIVIT, VIT, build, images, total_loss
from torch.nn import functional as F

from mim_mm.encoders.positions import sincos_table, table_for

CROSS = dict(type='CrossAttentionDecoder', embed_dims=24, depth=2, num_heads=2)


def cubic(distance):
    """Keys's kernel with a = -0.75, which torch and OpenCV use."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def resampled(plane, rows, columns):
    """(h, w, D) at the centres of a grid of rows x columns, one value at a time; the border is repeated."""
    height, width, dims = plane.shape
    out = torch.zeros(rows, columns, dims, dtype=torch.float64)
    for r, c in itertools.product(range(rows), range(columns)):
        y, x = (r + 0.5) * height / rows - 0.5, (c + 0.5) * width / columns - 0.5
        top, left = int(y // 1), int(x // 1)
        for i, j in itertools.product(range(top - 1, top + 3), range(left - 1, left + 3)):
            value = plane[min(max(i, 0), height - 1), min(max(j, 0), width - 1)].double()
            out[r, c] += cubic(y - i) * cubic(x - j) * value
    return out


@pytest.mark.parametrize('grid', [(3, 5), (6, 6), (7, 2)])
def test_positions_of_another_grid_are_the_table_resampled(grid):
    table = sincos_table(4, 5, 8, num_prefix=1)
    table[:, 0] = 3.0
    found = table_for(table, (4, 5), grid, grid[0] * grid[1], num_prefix=1)
    assert torch.equal(found[:, 0], table[:, 0]) and found.dtype == torch.float32
    wanted = resampled(table[0, 1:].view(4, 5, 8), *grid)
    torch.testing.assert_close(found[0, 1:].double(), wanted.flatten(0, 1), rtol=0, atol=2e-6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(table_for(table, (4, 5), grid, grid[0] * grid[1], 1), found)


def test_the_grid_of_the_table_gets_the_table_itself_and_a_wrong_count_is_refused():
    table = sincos_table(4, 5, 8)
    assert table_for(table, (4, 5), None, 20) is table and table_for(table, (4, 5), (4, 5), 20) is table
    # As many patches, other places.
    assert not torch.equal(table_for(table, (4, 5), (5, 4), 20), table)
    with pytest.raises(ValueError, match='30 patches, the decoder positions for 20: .*img_size.*Progressive'):
        table_for(table, (4, 5), None, 30)
    with pytest.raises(ValueError, match='30 patches, a grid of 5 x 5 has 25'):
        table_for(table, (4, 5), (5, 5), 30)


def step(model, x, seed=3):
    model.zero_grad()
    model.mask_generator = torch.Generator().manual_seed(seed)
    out = model.loss(x)
    total_loss(out).backward()
    return out, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


CASES = {
    'mae': dict(kind='MAE'),
    'emae': dict(kind='EMAE'),
    'packed': dict(kind='EMAE', masker=dict(type='ParallelMasking', num_parts=5)),
    'cross': dict(kind='MAE', masker=dict(type='RandomMasking', predict=0.3)),
    'hivit': dict(kind='MAE', backbone=HIVIT),
}


def models(name, size):
    """A model for 32 px, and one for ``size`` with its weights and its positions resampled by torch."""
    torch.manual_seed(0)
    options = dict(CASES[name])
    decoder = dict(CROSS) if name == 'cross' else None
    kind, backbone = options.pop('kind'), options.pop('backbone', VIT)
    made = [_build(kind, decoder, dict(backbone, img_size=side), options) for side in (32, size)]
    for p in made[0].parameters():  # biases too, and a decoder that does something
        torch.nn.init.normal_(p, std=0.2) if p.requires_grad else None
    own = made[1].state_dict()
    grid = (made[1].grid.height, made[1].grid.width)
    for key, value in made[0].state_dict().items():
        if 'pos_embed' not in key:
            own[key].copy_(value)
            continue
        prefix = value.shape[1] - 16
        plane = value[:, prefix:].view(1, 4, 4, -1).permute(0, 3, 1, 2)
        if name == 'hivit' and key.startswith('backbone'):  # mmpretrain's HiViT scales by a tenth of a patch more
            plane = F.interpolate(plane, scale_factor=tuple((n + 0.1) / 4 for n in grid), mode='bicubic')
        else:
            plane = F.interpolate(plane, size=grid, mode='bicubic')
        own[key].copy_(torch.cat([value[:, :prefix], plane.flatten(2).transpose(1, 2)], dim=1))
    made[0].sizes_vary = True
    return made


def _build(kind, decoder, backbone, options):
    if decoder is None:
        return build(kind, backbone=backbone, **options)
    from mim_mm.registry import MODELS

    return MODELS.build(dict(type=kind, backbone=backbone, decoder=decoder, **options))


SIZES = [(16, 16), (48, 48), (24, 40)]
# 4 patches are no 5 parts, and mmpretrain's HiViT cannot be built for oblong images.
CANNOT = {('packed', (16, 16)), ('hivit', (24, 40))}


@pytest.mark.parametrize('name, size', [pair for pair in itertools.product(CASES, SIZES) if pair not in CANNOT])
def test_a_model_at_another_size_is_the_model_that_was_built_for_it(name, size):
    ours, theirs = models(name, size)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    (out, gradients), (wanted, others) = step(ours, x), step(theirs, x)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == others.keys() and not any('pos_embed' in key for key in gradients)
    torch.testing.assert_close(gradients, others, rtol=1e-3, atol=1e-5)
    pictures = ours.reconstruct(x, torch.Generator().manual_seed(0))
    assert pictures['pred'].shape[2] == size[0] * size[1] // 64


@pytest.mark.parametrize('name', CASES)
def test_at_the_usual_size_not_a_bit_changes(name):
    ours, _ = models(name, 32)
    varied = step(ours, images())
    ours.sizes_vary = False
    plain = step(ours, images())
    for a, b in zip(varied, plain):
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_learned_positions_go_on_learning_and_a_part_of_a_patch_is_refused():
    model = build('MAE', pos_embed='learned')
    model.sizes_vary = True
    _, gradients = step(model, images(2, size=24))
    assert gradients['backbone.pos_embed'].abs().sum() > 0
    assert model.decoder.decoder_pos_embed.grad is None
    with pytest.raises(ValueError, match='20 x 20 px are not a whole number of 8-px patches'):
        model.loss(images(2, size=20))


# The grid is left to the maskers, which take the square.
EVERY = {name: {k: v for k, v in cfg.items() if k != 'grid'} for name, cfg in maskers().items()}


@pytest.mark.parametrize('name', EVERY)
def test_every_masker_masks_square_images_of_several_sizes(name):
    model = build('MAE', masker=EVERY[name], backbone=dict(VIT, patch_size=4))
    model.sizes_vary = True
    for size in (16, 24, 32):
        out, gradients = step(model, images(3, size=size))
        assert torch.isfinite(out['loss_whole']) and gradients['decoder.decoder_pred.weight'].abs().sum() > 0


@pytest.mark.parametrize('name', ['mae', 'emae', 'cross'])
@pytest.mark.slow
def test_the_captured_step_is_the_eager_one_at_each_of_two_sizes(name):
    torch._dynamo.reset()  # graphs of other tests count against the limit of recompilations
    model, _ = models(name, 32)
    batches = [images(2, size=size, seed=size) for size in (16, 32, 16)]
    eager = [step(model, x) for x in batches]
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model.captured = torch.compile(model.loss_under_plan, fullgraph=True, dynamic=False, backend=counting)
    for (out, gradients), x in zip(eager, batches):
        captured, theirs = step(model, x)
        torch.testing.assert_close(captured, out)
        torch.testing.assert_close(theirs, gradients, rtol=1e-4, atol=1e-6)
    assert len(graphs) == 2, 'one graph a size, and the first one is used again'
    model.captured = torch.compile(model.loss_under_plan, fullgraph=True, dynamic=False, backend='aot_eager')
    captured, theirs = step(model, batches[0])
    torch.testing.assert_close(captured, eager[0][0])
    torch.testing.assert_close(theirs, eager[0][1], rtol=1e-4, atol=1e-6)
