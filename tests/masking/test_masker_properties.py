"""What holds for every masker, over random sizes, ratios and seeds."""

import random

import pytest
import torch
from masker_table import COVERING, NEED_ATTENTION, PER_BATCH, PER_IMAGE, registered, table

from mim_mm.registry import MODELS

NAMES = sorted(table())


def draw_case(seed):
    """Random (B, grid, K, ratio) from a seed."""
    rng = random.Random(seed)
    grid = rng.choice([(4, 4), (4, 6), (6, 4), (6, 6), (8, 6), (9, 9)])
    return rng.randint(1, 4), grid, rng.randint(2, 9), rng.uniform(0.3, 0.85)


def call(name, config, tokens, seed):
    options = {}
    if config['type'] in NEED_ATTENTION:
        options['attention'] = tokens.abs().mean(dim=-1).softmax(dim=1)
    return MODELS.build(config)(tokens, torch.Generator().manual_seed(seed), **options)


def tokens_of(batch, grid, seed):
    # Of different norms, so that salience is spread and adaptive ratios differ.
    generator = torch.Generator().manual_seed(1000 + seed)
    tokens = torch.randn(batch, grid[0] * grid[1], 8, generator=generator)
    return tokens * torch.rand(batch, grid[0] * grid[1], 1, generator=generator) * 2


def test_the_table_holds_every_registered_masker():
    assert {config['type'] for config in table().values()} == registered()


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('name', NAMES)
def test_visible_and_hidden_partition_the_patches(name, seed):
    batch, grid, parts, ratio = draw_case(seed)
    patches = grid[0] * grid[1]
    plan = call(name, table(grid, parts, ratio)[name], tokens_of(batch, grid, seed), seed)
    assert plan.num_patches == patches and plan.mask.shape == (batch, plan.num_parts, patches)
    assert plan.ragged <= (name in PER_IMAGE)
    lengths, mask, visible = plan.lengths.tolist(), plan.mask, plan.visible
    assert torch.equal(plan.order.sort(-1).values, torch.arange(patches).expand_as(plan.order))
    thrown = plan.thrown
    hidden_anywhere = 0
    for b in range(batch):
        for k in range(plan.num_parts):
            seen = [n for n in visible[b, k].tolist() if n >= 0]
            hidden = mask[b, k].nonzero().flatten().tolist()
            gone = thrown[b, k].nonzero().flatten().tolist()
            assert len(seen) == lengths[b][k]
            if seen:
                assert sorted(seen + hidden + gone) == list(range(patches))
            else:
                assert not hidden
            hidden_anywhere += len(hidden)
        if name in COVERING:
            everything = [n for n in visible[b].flatten().tolist() if n >= 0]
            assert sorted(everything) == list(range(patches))
    assert hidden_anywhere > 0


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', NAMES)
def test_masks_come_from_the_generator_alone(name, seed):
    batch, grid, parts, ratio = draw_case(seed)
    config, tokens = table(grid, parts, ratio)[name], tokens_of(batch, grid, seed)
    first = call(name, config, tokens, 5)
    torch.manual_seed(99 + seed)
    state, python_state = torch.get_rng_state(), random.getstate()
    second = call(name, config, tokens, 5)
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == python_state
    assert torch.equal(first.order, second.order) and torch.equal(first.lengths, second.lengths)


DETERMINISTIC = {'attmask-high', 'grid-fixed'}


@pytest.mark.parametrize('name', sorted(set(NAMES) - DETERMINISTIC))
def test_other_seeds_give_other_masks(name):
    config, tokens = table((6, 6))[name], tokens_of(4, (6, 6), 0)
    masks = [call(name, config, tokens, seed).mask for seed in range(6)]
    assert any(masks[0].shape != mask.shape or not torch.equal(masks[0], mask) for mask in masks[1:])


@pytest.mark.parametrize('name', sorted(set(NAMES) - PER_IMAGE - PER_BATCH))
def test_shapes_do_not_depend_on_the_data(name):
    config = table((6, 6))[name]
    plans = [call(name, config, tokens_of(3, (6, 6), data), 7) for data in range(4)]
    assert len({plan.num_visible for plan in plans}) == 1
    assert not any(plan.ragged for plan in plans)


@pytest.mark.parametrize('name', NAMES)
def test_a_plan_carries_no_gradient(name):
    config = table()[name]
    tokens = tokens_of(2, (4, 4), 1).requires_grad_()
    plan = call(name, config, tokens, 1)
    assert not plan.order.requires_grad and not plan.mask.requires_grad and tokens.grad is None


@pytest.mark.parametrize('name', NAMES)
def test_maskers_run_under_bf16_autocast_on_bf16_tokens(name):
    config, tokens = table()[name], tokens_of(2, (4, 4), 2)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        low = call(name, config, tokens.bfloat16(), 3)
    same_values = call(name, config, tokens.bfloat16().float(), 3)
    assert torch.equal(low.lengths, same_values.lengths)
    if config['type'] not in NEED_ATTENTION:  # those of this test were computed in bf16
        assert torch.equal(low.order, same_values.order)
