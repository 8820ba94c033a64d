"""BEiT and CAE: visual tokens of a small random tokenizer, against mmpretrain's own classes."""

import copy

import pytest
import torch
from input_tokens import CAE_VIT, DALLE, NECK, VIT, views, with_tokens
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from tiny import images, total_loss

from mim_mm.registry import MODELS


@pytest.mark.parametrize('kind', ['BEiT', 'CAE'])
def test_methods_with_a_tokenizer_equal_mmpretrains(kind, tokenizer_file):
    model = with_tokens(kind, tokenizer_file)
    cfg = dict(backbone=VIT if kind == 'BEiT' else CAE_VIT, target_generator=dict(DALLE))
    if kind == 'BEiT':
        head = dict(type='BEiTV1Head', embed_dims=32, num_embed=11, loss=dict(type='CrossEntropyLoss'))
        cfg |= dict(head=head, neck=None)
    else:
        cfg |= dict(head=dict(type='CAEHead', loss=dict(type='CAELoss', lambd=2)), base_momentum=0.0)
        cfg |= dict(neck=dict(NECK, type='CAENeck', embed_dims=32, mask_tokens_num=10, layer_scale_init_value=0.1))
    init_default_scope('mmpretrain')
    theirs = MODELS.build(copy.deepcopy(dict(cfg, type=f'mmpretrain.{kind}')))
    state = {key.replace('tokenizer.', 'target_generator.'): value for key, value in model.state_dict().items()}
    theirs.load_state_dict(state)
    for frozen in (theirs.target_generator, getattr(theirs, 'teacher', None)):  # they get no gradient there either
        if frozen is not None:
            frozen.requires_grad_(False)
    for step in range(2):  # the second shows whether CAE's teacher lags in the same way
        model.mask_generator = torch.Generator().manual_seed(step)
        plan = model.plan(views()[0], torch.Generator().manual_seed(step))
        samples = []
        for mask in plan.mask.view(3, 4, 4):
            sample = DataSample()
            sample.set_field(mask, 'mask')
            samples.append(sample)
        ours, other = total_loss(model.loss(views())), theirs.loss(views(), samples)['loss']
        torch.testing.assert_close(ours, other)
        for net, value in ((model, ours), (theirs, other)):
            params = [p for p in net.parameters() if p.requires_grad]
            grads = torch.autograd.grad(value, params)
            with torch.no_grad():
                for param, grad in zip(params, grads, strict=True):
                    param -= 0.1 * grad


@pytest.mark.parametrize('kind', ['BEiT', 'CAE'])
def test_the_tokenizer_stays_frozen_and_in_eval_mode(kind, tokenizer_file):
    model = with_tokens(kind, tokenizer_file).train()
    assert not model.tokenizer.training and model.backbone.training
    assert not any(p.requires_grad for p in model.tokenizer.parameters())
    total_loss(model.loss(views())).backward()
    for name, param in model.named_parameters():
        if param.requires_grad:
            assert param.grad is not None and torch.isfinite(param.grad).all(), name


def test_a_tokenizer_without_its_weights_is_refused(tokenizer_file, tmp_path):
    with pytest.raises(ValueError, match='tokenizer_checkpoint is None.*dalle_encoder.pth'):
        with_tokens('BEiT', None)
    with pytest.raises(FileNotFoundError, match='nothing.pth'):
        with_tokens('BEiT', str(tmp_path / 'nothing.pth'))
    with pytest.raises(ValueError, match='another shape .*blocks.input'):
        with_tokens('CAE', tokenizer_file, tokenizer=dict(DALLE, n_hid=4))
    with pytest.raises(ValueError, match='missing'):
        with_tokens('CAE', tokenizer_file, tokenizer=dict(DALLE, n_blk_per_group=2))


def test_two_views_of_matching_size_are_needed(tokenizer_file):
    model = with_tokens('BEiT', tokenizer_file)
    with pytest.raises(ValueError, match='two views'):
        model.loss(images())
    with pytest.raises(ValueError, match='8 x 8 tokens.*4 x 4 patches'):
        model.loss([images(), images(size=64)])


def test_cae_refuses_lengths_that_differ_and_takes_parts(tokenizer_file):
    model = with_tokens('CAE', tokenizer_file, dict(type='ComplementaryMasking'))
    with pytest.raises(ValueError, match='per_batch'):
        model.loss(views())
    parts = with_tokens('CAE', tokenizer_file, dict(type='ParallelMasking'))
    assert torch.isfinite(total_loss(parts.loss(views())))
