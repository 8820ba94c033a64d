"""Every registered method with mask tokens under every registered masker: it trains, or says why it cannot."""

import pytest
import torch
from input_tokens import SWIN, VIT, data2vec, simmim, views, with_tokens
from masker_table import THROWING, table
from tiny import images, total_loss

MASKERS = table()
FOLLOW_CLS = {name for name, masker in MASKERS.items() if masker['type'] in ('AttentionMasking', 'AttMask')}


def refusal(method, name, model, inputs):
    """What the error must say where method and masker do not go together."""
    if method == 'swin' and name in FOLLOW_CLS:
        return 'follows the class token, which SimMIMSwinTransformer lacks'
    if name in THROWING:
        return 'throws .* patches away'
    if method == 'CAE':
        # One index drops the patches of the whole batch, so all images and parts must hide the same number.
        hidden = model.plan(inputs[0], torch.Generator().manual_seed(0)).mask.sum(dim=-1)
        if hidden.unique().numel() > 1:
            return 'the same number of hidden patches'
    return None


@pytest.mark.parametrize('name', sorted(MASKERS))
@pytest.mark.parametrize('method', ['swin', 'vit', 'BEiT', 'CAE', 'data2vec'])
def test_methods_train_under_maskers(method, name, tokenizer_file):
    if method in ('swin', 'vit'):
        model, inputs = simmim(SWIN if method == 'swin' else VIT, MASKERS[name]), images()
    elif method == 'data2vec':
        model, inputs = data2vec(MASKERS[name]), images()
    else:
        model, inputs = with_tokens(method, tokenizer_file, MASKERS[name]), views()
    model.mask_generator = torch.Generator().manual_seed(0)
    says = refusal(method, name, model, inputs)
    if says:
        with pytest.raises(ValueError, match=says):
            model.loss(inputs)
        return
    out = model.loss(inputs)
    assert all(torch.isfinite(value) for value in out.values()), out
    total_loss(out).backward()
    for label, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), label
            assert parameter.grad.abs().sum() > 0 or label.endswith('bias'), label
