"""The scaling model against values worked out by hand and against what must hold for any numbers."""

import math
from dataclasses import replace

import pytest
import torch

from mim_mm.cost import Assumptions, ModuleCost, Work
from mim_mm.cost.hardware import GPU
from mim_mm.cost.scaling import all_reduce, curve, efficiencies, expected_maximum, kernel_rate, step

# 10 TFLOP/s, 1 GB/s of memory, 1 GB/s inside a node, 0.5 GB/s outside
CARD = GPU('card', 1e13, 1e12, 1e9, 1e9, 100, 1e9, 0.5e9)
PLAIN = Assumptions(node=4, link_efficiency=1, latency_us=0, overlap=0, bucket_mb=0, sigma=0, host_ms=0)
WORK = Work('w', (ModuleCost('p', 1e9, 2.0, 1000, 1000),), (8, 8))


def test_expected_maximum():
    assert expected_maximum(1) == 0
    assert expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-6)
    assert expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-6)
    drawn = torch.randn(20000, 64, generator=torch.Generator().manual_seed(0)).amax(1).mean()
    assert expected_maximum(64) == pytest.approx(drawn.item(), abs=0.02)
    assert expected_maximum(1024) == pytest.approx(3.2497, abs=0.01)  # tables of order statistics: n=1000 has 3.2414


@pytest.mark.parametrize('gpus, expected', [
    (1, 0.0),
    (2, 2 * 1 / 2 * 0.4),  # ring of two at 1 GB/s
    (4, 2 * 3 / 4 * 0.4),
    (8, 2 * 3 / 4 * 0.4 + 2 * 1 / 2 * 0.1 / 0.5),  # and a quarter of the bytes between two nodes at 0.5 GB/s
    (32, 2 * 3 / 4 * 0.4 + 2 * 7 / 8 * 0.1 / 0.5),
])  # fmt: skip
def test_all_reduce_by_hand(gpus, expected):
    assert all_reduce(0.4e9, gpus, CARD, CARD.nic, PLAIN) == pytest.approx(expected)


def test_latency_takes_the_shorter_of_ring_and_tree():
    late = replace(PLAIN, latency_us=1e6)  # a second a hop
    # inside: 6 hops; 8 nodes: tree 2 * 3 hops, ring 14; 2 nodes: both 2
    assert all_reduce(0, 32, CARD, CARD.nic, late) == pytest.approx(6 + 6)
    assert all_reduce(0, 8, CARD, CARD.nic, late) == pytest.approx(6 + 2)


def test_a_step_by_hand():
    # 10 images at 100 a second; 1000 parameters: weights, gradient, two states read, weights and states written
    one = step(WORK, CARD, 1, 10, 100, 1, CARD.nic, replace(PLAIN, host_ms=5))
    assert one.compute == 0.1 and one.exposed == 0 and one.loader == 0
    assert one.fixed == pytest.approx(0.005 + 1000 * (16 + 12) / 1e9)
    assert one.seconds == pytest.approx(one.compute + one.fixed)
    # a sigma of 10 % and two GPUs: the slower is 0.1 * 0.5642 behind
    two = step(WORK, CARD, 2, 10, 100, 1, CARD.nic, replace(PLAIN, sigma=0.1))
    assert two.straggle == pytest.approx(0.1 * 0.1 / math.sqrt(math.pi))
    assert two.exposed == pytest.approx(1000 * 4 / 1e9) == two.reduce
    # two cores that read 20 images a second each need 0.25 s
    slow = step(WORK, CARD, 2, 10, 100, 20, CARD.nic, replace(PLAIN, cores=2))
    assert slow.seconds == pytest.approx(0.25) and slow.images_per_second == pytest.approx(80)


def test_communication_hides_behind_the_backward_pass():
    big = replace(WORK, parts=(ModuleCost('p', 1e9, 2.0, 5e6, 5e6),))  # 20 MB, 20 ms between two GPUs
    hidden = step(big, CARD, 2, 10, 100, 1, CARD.nic, replace(PLAIN, overlap=1))
    assert hidden.reduce == pytest.approx(0.02) and hidden.exposed == 0  # the backward pass takes 67 ms
    bucket = step(big, CARD, 2, 10, 100, 1, CARD.nic, replace(PLAIN, overlap=1, bucket_mb=5))
    assert bucket.exposed == pytest.approx(0.005)
    half = step(big, CARD, 2, 10, 1000, 1, CARD.nic, replace(PLAIN, overlap=0.6))
    assert half.exposed == pytest.approx(0.02 - 0.6 * 0.01 * 2 / 3)
    frozen = replace(WORK, parts=(ModuleCost('p', 1e9, 0.0, 5e6),))
    assert step(frozen, CARD, 2, 10, 100, 1, CARD.nic, PLAIN).exposed == 0  # nothing trained, nothing to send


def test_curves():
    a = Assumptions(node=4)
    strong = curve(WORK, CARD, (1, 4, 16, 64, 128), 64, 100, 1, CARD.nic, a)
    assert [s.gpus for s in strong] == [1, 4, 16, 64]  # 128 GPUs have less than an image each
    assert [s.batch for s in strong] == [64, 16, 4, 1]
    found = efficiencies(strong)
    assert found[0] == 1 and found == sorted(found, reverse=True)
    weak = curve(WORK, CARD, (1, 4, 16, 64), 64, 100, 1, CARD.nic, a, weak=True)
    assert all(w > s for w, s in zip(efficiencies(weak)[1:], found[1:]))
    free = curve(WORK, CARD, (1, 4, 16), 64, 100, 1, CARD.nic, replace(PLAIN, grad_bytes=0), weak=True)
    assert efficiencies(free) == pytest.approx([1, 1, 1])


def test_kernel_rate_inverts_the_step():
    a = Assumptions()
    alone = step(WORK, CARD, 1, 32, 123.0, 1, CARD.nic, a)
    assert kernel_rate(WORK, CARD, alone.seconds, 32, a) == pytest.approx(123.0)
    # a measured step shorter than what is assumed beside the kernels does not give a negative time
    assert kernel_rate(WORK, CARD, 1e-4, 32, a) == pytest.approx(32 / 5e-5)


@pytest.mark.parametrize('options, named', [
    (dict(node=0), 'node'), (dict(sigma=-1), 'sigma'), (dict(overlap=1.5), 'overlap'),
    (dict(link_efficiency=0), 'link_efficiency'), (dict(host_ms=float('nan')), 'host_ms'),
])  # fmt: skip
def test_assumptions_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        Assumptions(**options)
