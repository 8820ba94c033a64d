"""Attention with a lighter backward pass computes what mmpretrain's layers compute."""

import math

import pytest
import torch
from mmpretrain.models.backbones.hivit import Attention as HiViTAttention
from mmpretrain.models.utils import MultiheadAttention
from torch import nn

from mim_mm.encoders.fused import (
    FusedHiViTAttention,
    FusedMultiheadAttention,
    attention,
    fuse_attention,
    self_attention,
)


def by_hand(query, key, value, bias=None, scale=None):
    logits = torch.einsum('bhnd,bhmd->bhnm', query, key) * (scale or 1 / math.sqrt(query.shape[-1]))
    if bias is not None:
        logits = logits.masked_fill(~bias, -math.inf) if bias.dtype == torch.bool else logits + bias
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.einsum('bhnm,bhmd->bhnd', weights, value)


def with_gradients(function, *inputs):
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape))
    return out.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize('bias', [None, 'added', 'boolean'])
@pytest.mark.parametrize('scale', [None, 0.3])
def test_the_definition(bias, scale):
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, 5, 8).double(),
        torch.randn(2, 3, 7, 8).double(),
        torch.randn(2, 3, 7, 8).double(),
    )
    bias = dict(added=torch.randn(5, 7).double(), boolean=torch.rand(5, 7) < 0.7).get(bias)
    if bias is not None and bias.dtype == torch.bool:
        bias[:, 0] = True
    out, gradients = with_gradients(lambda q, k, v: attention(q, k, v, bias, scale=scale), query, key, value)
    wanted, wanted_gradients = with_gradients(lambda q, k, v: by_hand(q, k, v, bias, scale), query, key, value)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(gradients, wanted_gradients)


@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_on_a_cpu_is_as_exact_as_its_rounding(autocast):
    """With gradients, everything but the rounding of inputs and results happens in fp32."""
    torch.manual_seed(0)
    qkv = (3 * torch.randn(2, 33, 96)).bfloat16()

    def run(x):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            return self_attention(x, num_heads=2)

    out, (gradient,) = with_gradients(run, qkv)
    with torch.autocast('cpu', enabled=False):
        wanted, (wanted_gradient,) = with_gradients(lambda x: self_attention(x, num_heads=2), qkv.double())
    assert out.dtype == gradient.dtype == torch.bfloat16
    # Half a unit in the last of 8 bits for the result, twice that for a gradient of a rounded one.
    torch.testing.assert_close(out.double(), wanted, rtol=2**-8, atol=1e-6)
    assert (gradient.double() - wanted_gradient).norm() < 2**-8 * wanted_gradient.norm()


def vit_attention(**kwargs):
    torch.manual_seed(0)
    return MultiheadAttention(embed_dims=32, num_heads=4, **kwargs)


@pytest.mark.parametrize('build', [
    vit_attention,
    lambda: vit_attention(layer_scale_init_value=0.5),
    lambda: HiViTAttention(4, 32, 4, rpe=False),
    lambda: HiViTAttention(4, 32, 4, qk_scale=0.7, rpe=False),
])  # fmt: skip
def test_layers_keep_values_gradients_and_names(build):
    layer, x = build(), torch.randn(2, 9, 32)
    names = list(layer.state_dict())
    out, gradients = with_gradients(layer, x)
    parameters = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()

    assert fuse_attention(layer) == 1
    assert isinstance(layer, FusedMultiheadAttention | FusedHiViTAttention)
    assert list(layer.state_dict()) == names
    fused, fused_gradients = with_gradients(layer, x)
    torch.testing.assert_close(fused, out)
    torch.testing.assert_close(fused_gradients, gradients)
    torch.testing.assert_close([p.grad for p in layer.parameters()], parameters)
    assert fuse_attention(layer) == 0  # a second call finds nothing to do


def test_dropout_only_in_training():
    layer = vit_attention(attn_drop=0.5)
    fuse_attention(layer)
    x = torch.randn(2, 9, 32)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


class Subclass(MultiheadAttention):
    pass


@pytest.mark.parametrize('layer', [
    vit_attention(v_shortcut=True, input_dims=32),
    vit_attention(qk_scale=0.5),
    Subclass(32, 4),
    nn.MultiheadAttention(32, 4),
])  # fmt: skip
def test_other_layers_are_left_alone(layer):
    kind = type(layer)
    assert fuse_attention(nn.Sequential(layer)) == 0
    assert type(layer) is kind


def test_hivit_with_relative_positions_takes_its_own_path():
    torch.manual_seed(0)
    layer, x = HiViTAttention(3, 32, 4, rpe=True), torch.randn(2, 9, 32)
    index = layer.relative_position_index
    wanted = layer(x, index)
    fuse_attention(layer)
    assert torch.equal(layer(x, index), wanted)
    assert not torch.allclose(layer(x), wanted)


def test_backward_takes_q_k_and_v_apart_once():
    """No select: its backward pass fills a whole tensor with zeros, three times a block."""
    layer, x = vit_attention(), torch.randn(2, 9, 32, requires_grad=True)

    def steps(node, seen):
        if node is not None and node not in seen:
            seen.add(node)
            for following, _ in node.next_functions:
                steps(following, seen)
        return {type(node).__name__ for node in seen}

    assert 'SelectBackward0' in steps(layer(x).grad_fn, set())
    fuse_attention(layer)
    assert 'SelectBackward0' not in steps(layer(x).grad_fn, set())
