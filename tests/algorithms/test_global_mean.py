"""Two gloo ranks against one process with the whole batch: the gradients of every method, whatever the masks.

One spawn of two processes goes through all cases. Rank 0 has images 0 to 2 of four, rank 1 the last one: so counts
differ between ranks with any masks.
"""

import copy
from dataclasses import replace

import pytest
import torch
from input_tokens import CAE_VIT, DALLE, NECK, SWIN, VIT, initialised
from mmengine.dist import all_reduce
from processes import spawn
from tiny import bootmae, build, data2vec2, ijepa, images, total_loss
from torch.nn.parallel import DistributedDataParallel

from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS

ROWS = ([0, 1, 2], [3])
AMR = dict(type='AdaptiveRatio', base=0.7, delta_r=0.25, threshold=0.3)
BLOCKS = dict(type='BlockMasking', ratio=0.5, fill='none')
RANGE = dict(type='BlockMasking', ratio=(0.2, 0.8))
CASES = {
    'mae': ('MAE', dict(type='RandomMasking')),
    'mae-captured': ('MAE', dict(type='RandomMasking')),
    'mae-amr': ('MAE', dict(type='SalienceMasking', ratio=AMR)),
    'mae-amr-per-image': ('MAE', dict(type='SalienceMasking', ratio=AMR), dict(per_image_mean=True)),
    'mae-blocks': ('MAE', BLOCKS),
    'mae-complementary': ('MAE', dict(type='ComplementaryMasking')),
    'emae': ('EMAE', dict(type='ParallelMasking')),
    'emae-all': ('EMAE', dict(type='ParallelMasking'), dict(normalizer='all')),
    'emae-5': ('EMAE', dict(type='ParallelMasking', num_parts=5)),
    'emae-independent': ('EMAE', dict(type='IndependentMasking', num_parts=3, ratio=0.5)),
    'emae-complementary': ('EMAE', dict(type='ComplementaryMasking')),
    'emae-amr': ('EMAE', dict(type='SalienceParallelMasking', ratio=AMR)),
    'emae-amr-all': ('EMAE', dict(type='SalienceParallelMasking', ratio=AMR), dict(normalizer='all')),
    'simmim-blocks': ('SimMIM', BLOCKS, dict(backbone=VIT, mask_unit=8)),
    'simmim-amr': ('SimMIM', dict(type='SalienceMasking', ratio=AMR), dict(backbone=SWIN, mask_unit=8)),
    'simmim-parts': ('SimMIM', dict(type='SalienceParallelMasking', ratio=AMR), dict(backbone=VIT, mask_unit=8)),
    'beit-blocks': ('BEiT', BLOCKS, dict(backbone=VIT, vocabulary=11)),
    'beit-range': ('BEiT', RANGE, dict(backbone=VIT, vocabulary=11)),
    'bootmae': ('BootMAE', None),
    'bootmae-sbam': ('BootMAE', dict(type='SalienceMasking')),
    'bootmae-parts': ('BootMAE', dict(type='ParallelMasking')),
    'ijepa': ('IJEPA', dict(type='MultiBlockMasking', num_targets=2, target_scale=(0.2, 0.3), min_keep=1)),
    'ijepa-sbam': ('IJEPA', dict(type='SalienceMasking')),
    'data2vec-blocks': ('data2vec', BLOCKS, dict(backbone=VIT, target_blocks=[0, 1])),
    'data2vec-amr': ('data2vec', dict(type='SalienceMasking', ratio=AMR), dict(backbone=VIT, target_blocks=[0, 1])),
    # without noise, which is each rank's own
    'data2vec2': ('data2vec2', None, dict(noise_std=0)),
    'data2vec2-parallel': ('data2vec2', dict(type='ParallelMasking'), dict(noise_std=0)),
    'cae': ('CAE', dict(type='RandomMasking', ratio=0.5), dict(backbone=CAE_VIT, neck=NECK)),
}
MADE = dict(BootMAE=bootmae, IJEPA=ijepa, data2vec2=data2vec2)


class SomeImages:
    """The plan that a masker makes of four images, cut to some of them."""

    def __init__(self, masker, rows):
        self.masker, self.rows = masker, rows

    def __call__(self, tokens, generator=None):
        # Images of very different salience, so that adaptive ratios differ.
        spread = torch.tensor([0.1, 0.6, 1.2, 6.0])[:, None, None]
        drawn = spread * torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1))
        plan = self.masker(drawn, torch.Generator().manual_seed(2))
        some = MaskPlan.from_lengths(plan.order[self.rows], plan.lengths[self.rows], plan.partition)
        return replace(some, num_thrown=plan.num_thrown, same_visible=plan.same_visible)


def model_of(name, rows, tokenizer):
    kind, masker, *options = CASES[name]
    options = dict(*options)
    torch.manual_seed(0)
    if kind in ('MAE', 'EMAE'):
        model = build(kind, masker, **options)
    elif kind in MADE:
        model = MADE[kind](masker, **options)
    else:
        if kind in ('BEiT', 'CAE'):
            options.update(tokenizer=DALLE, tokenizer_checkpoint=tokenizer)
        model = initialised(MODELS.build(copy.deepcopy(dict(options, type=kind, masker=masker))))
    model.masker = SomeImages(model.masker, rows)
    return model


def inputs_of(name, rows):
    batch = images(4)[rows]
    return [batch, images(4, seed=9)[rows]] if CASES[name][0] in ('BEiT', 'CAE') else batch


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def one_process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    rows, found = ROWS[rank], {}
    for name in CASES:
        model = model_of(name, rows, f'{folder}/dalle.pth')
        if name.endswith('captured'):
            model.captured = torch.compile(model.loss_under_plan, fullgraph=True, backend='aot_eager')
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
        out = wrapped(inputs_of(name, rows), mode='loss')
        total_loss(out).backward()
        found[name] = dict(
            gradients=gradients(model), losses={k: v.item() for k, v in out.items()}, uniform=model.masker(None).uniform
        )
    if rank == 0:  # whoever looks at a loss alone must not wait for the others
        model_of('emae-amr', rows, None).eval().loss(inputs_of('mae', rows))
        with torch.no_grad():
            model_of('emae-amr', rows, None).loss(inputs_of('mae', rows))
    all_reduce(torch.ones(1))
    torch.save(found, f'{folder}/rank{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    torch.save({'state_dict': MODELS.build(copy.deepcopy(DALLE)).state_dict()}, folder / 'dalle.pth')
    spawn(one_process, str(folder))
    return folder, [torch.load(folder / f'rank{rank}.pt', weights_only=True) for rank in range(2)]


@pytest.mark.parametrize('name', CASES)
def test_two_ranks_have_the_gradient_of_one_with_the_whole_batch(name, ranks):
    folder, found = ranks
    everything = [*ROWS[0], *ROWS[1]]
    model = model_of(name, everything, folder / 'dalle.pth')
    total_loss(model(inputs_of(name, everything), mode='loss')).backward()
    wanted = gradients(model)
    size = max(grad.abs().max() for grad in wanted.values())
    assert size > 1e-4
    for rank in found:
        assert rank[name]['gradients'].keys() == wanted.keys()
        for parameter, grad in wanted.items():
            torch.testing.assert_close(rank[name]['gradients'][parameter], grad, rtol=1e-5, atol=1e-6 * max(size, 1))


@pytest.mark.parametrize('name', CASES)
def test_what_a_rank_logs_is_the_mean_over_its_own_images(name, ranks):
    folder, found = ranks
    for rows, rank in zip(ROWS, found, strict=True):
        out = model_of(name, rows, folder / 'dalle.pth')(inputs_of(name, rows), mode='loss')
        assert rank[name]['losses'] == pytest.approx({k: v.item() for k, v in out.items()}, rel=1e-5)


def test_ranks_of_equal_and_of_unequal_counts_met(ranks):
    _, found = ranks
    assert not found[0]['mae-amr']['uniform'] and found[1]['mae-amr']['uniform']
