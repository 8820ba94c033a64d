"""Each file of configs/{linear,finetune,coco,seg}: all blocks at a width of 32, its own optimizer, two iterations."""

import math

import pytest
import recipe_table as table
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('name', table.downstream())
@pytest.mark.slow
def test_two_iterations_at_reduced_width(name):
    torch.manual_seed(0)
    cfg = table.narrow(table.load(name))
    model = table.build(cfg)
    size = table.small_image(cfg) if table.is_detector(cfg) else table.real_image(cfg)
    losses, changed = table.two_steps(cfg, model, table.batch_for(cfg, size, 2))
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert changed and changed <= trained
    blocks = {n for n, p in model.named_parameters() if n.startswith('backbone.') and p.ndim in (2, 4)}
    if name.startswith('linear/') or name.startswith('seg/linear'):
        assert not any(n.startswith('backbone.') for n in changed), 'a probe leaves the encoder alone'
    elif 'partial' in name:
        last = f'backbone.layers.{len(model.backbone.layers) - 1}.'
        assert blocks & changed == {n for n in blocks if n.startswith(last)}, 'the last block and no other'
    else:
        matrices = {n for n in blocks if n.endswith('.weight')}
        still = matrices - changed
        assert matrices and not still, f'these matrices of the encoder were not trained: {sorted(still)[:5]}'


def test_the_table_is_what_is_on_the_disk():
    found = {f'{p.parent.name}/{p.stem}' for p in table.CONFIGS.rglob('*.py')}
    listed = set(table.every_recipe())
    assert {n for n in found if n.split('/')[0] in table.FOLDERS} == set(table.downstream()) <= listed
    depth_two = {p for p in table.CONFIGS.rglob('*.py') if p.parent.parent == table.CONFIGS}
    left_out = {f'{p.parent.name}/{p.stem}' for p in depth_two} - listed
    assert {n.split('/')[0] for n in left_out} == {'chains', '_base_', 'upstream'}


def test_an_unknown_backbone_says_what_to_do():
    cfg = table.load('finetune/vitb_finetune_100e')
    cfg.model.backbone.type = 'VGG'
    cfg.model.backbone.arch = dict(depth=50)
    with pytest.raises(KeyError, match='tests/helpers/recipe_table.py'):
        table.narrow(cfg)


def test_needed_memory_follows_from_the_sizes():
    small, large = (table.load(f'finetune/vit{s}_finetune_{e}e') for s, e in (('b', 100), ('h', 50)))
    # 632.0 M and 86.57 M weights of 16 bytes each; 2 x 12 x 196 x 768 and 2 x 32 x 256 x 1280 values of 120 bytes
    gap = 16 * (632.0e6 - 86.57e6) + 120 * 2 * (32 * 256 * 1280 - 12 * 196 * 768)
    needed = [table.needed_bytes(c, (224, 224), 2) for c in (small, large)]
    assert needed[1] - needed[0] == pytest.approx(gap, rel=1e-3)
    assert 0 < table.available_bytes()
