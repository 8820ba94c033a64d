"""LARS by hand on a 2 x 2 matrix over several rates, and that it never waits for the device."""

import copy

import pytest
import torch
from mmpretrain.engine.optimizers import LARS as MmpretrainLARS
from torch.utils._python_dispatch import TorchDispatchMode

from mim_mm.engine.optim.lars import LARS


def parameter(values):
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


def step(optimizer, lr, grads):
    optimizer.param_groups[0]['lr'] = lr
    for param, grad in zip(optimizer.param_groups[0]['params'], grads, strict=True):
        param.grad = None if grad is None else torch.tensor(grad, dtype=torch.float64)
    optimizer.step()


def test_three_steps_by_hand_with_a_changing_rate():
    bias, weight = parameter([1.0]), parameter([[3.0, 0.0], [0.0, 4.0]])
    optimizer = LARS([bias, weight], lr=0.0, momentum=0.9, trust_coefficient=0.001)
    gradient = [[0.6, 0.0], [0.0, 0.8]]
    # ||w|| = 5, ||g|| = 1: the gradient is scaled by 0.005; buffer (0.003, 0.004), times lr = 2.
    # The bias has no trust ratio: buffer 0.5, times 2.
    step(optimizer, 2.0, [[0.5], gradient])
    torch.testing.assert_close(weight.data.diagonal(), torch.tensor([2.994, 3.992]).double())
    assert bias.item() == pytest.approx(0.0)
    # ||w|| = 4.99: buffer 0.9 (0.003, 0.004) + 0.00499 (0.6, 0.8) = (0.005694, 0.007592), times lr = 1: the rate of
    # the first step is not in the buffer any more.
    step(optimizer, 1.0, [[0.5], gradient])
    torch.testing.assert_close(weight.data.diagonal(), torch.tensor([2.988306, 3.984408]).double())
    assert bias.item() == pytest.approx(-0.95)
    # No gradient: the ratio is 1, the buffer fades to (0.0051246, 0.0068328), times lr = 10; the bias's to 0.855.
    step(optimizer, 10.0, [[0.0], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(weight.data.diagonal(), torch.tensor([2.93706, 3.91608]).double())
    assert bias.item() == pytest.approx(-9.5)
    assert (weight.data[0, 1], weight.data[1, 0]) == (0, 0)


def test_decay_is_for_matrices_and_part_of_the_ratio():
    weight, bias, zero = parameter([[3.0, 0.0], [0.0, 4.0]]), parameter([1.0]), parameter([[0.0, 0.0]])
    optimizer = LARS([weight, bias, zero], lr=1.0, momentum=0.0, weight_decay=0.1)
    # Decayed gradient 0.1 w has norm 0.5: scaled by 0.001 * 5 / 0.5. A matrix of norm 0 keeps its gradient.
    step(optimizer, 1.0, [[[0.0, 0.0], [0.0, 0.0]], [0.0], [[0.25, 0.0]]])
    torch.testing.assert_close(weight.data.diagonal(), torch.tensor([2.997, 3.996]).double())
    assert bias.item() == 1.0 and zero.data.tolist() == [[-0.25, 0.0]]


def test_gradients_stay_and_absent_ones_are_skipped():
    moved, idle = parameter([[1.0, 2.0]]), parameter([[5.0]])
    optimizer = LARS([moved, idle], lr=1.0)
    step(optimizer, 1.0, [[[1.0, 1.0]], None])
    assert moved.grad.tolist() == [[1.0, 1.0]] and idle.item() == 5.0 and idle not in optimizer.state


def test_a_resumed_run_goes_on_alike():
    first = parameter([[1.0, 2.0], [3.0, 4.0]])
    optimizer = LARS([first], lr=3.0)
    step(optimizer, 3.0, [[[1.0, 0.0], [0.0, 2.0]]])
    second = parameter(first.tolist())
    other = LARS([second], lr=3.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one in (optimizer, other):
        step(one, 2.0, [[[0.5, 0.0], [1.0, 2.0]]])
    assert torch.equal(first, second)


class HostReads(TorchDispatchMode):
    """Counts the calls that bring a value to the host: on a GPU each waits for the queue to drain."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('kind, reads', [(LARS, 0), (MmpretrainLARS, 4)])
def test_nothing_is_read_by_the_host(kind, reads):
    params = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = kind(params, lr=0.1, momentum=0.9)
    with HostReads() as mode:
        optimizer.step()
    assert mode.count == reads


@pytest.mark.parametrize('options', [dict(lr=-1.0), dict(lr=1.0, momentum=1.0), dict(lr=1.0, weight_decay=-0.1)])
def test_values_out_of_range(options):
    with pytest.raises(ValueError, match='must'):
        LARS([parameter([1.0])], **options)
