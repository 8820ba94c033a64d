"""Teachers: the average by hand, when it begins and follows, and what becomes of it in checkpoints and on two ranks."""

import copy
import math

import numpy
import pytest
import torch
from tiny_run import Killed, StopHook
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from toy_run import run

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.algorithms.teacher import Teacher, build_momentum, frozen_copy
from mim_mm.clock import Clock
from mim_mm.engine.hooks.clock_hook import ClockHook


class Following(Pretraining):
    """The mean of what the teacher says is the target; backbone and neck are followed, the head is not."""

    def __init__(self, momentum=0.9, **options):
        super().__init__(dict(type='mim_mm.RandomMasking', ratio=0.5))
        self.backbone, self.neck, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
        self.teacher = frozen_copy(self.backbone)
        self.teacher_neck = frozen_copy(self.neck)
        self.teachers = [Teacher({'backbone': 'teacher', 'neck': 'teacher_neck'}, momentum, **options)]
        self.students, self.means = [], []

    def init_weights(self):
        super().init_weights()
        torch.manual_seed(5)
        for p in self.parameters():
            nn.init.normal_(p, std=0.3)
        self.renew_teachers()

    def loss(self, inputs, data_samples=None):
        with torch.no_grad():
            target = self.teacher_neck(self.teacher(inputs).flatten(0, 1)).mean()
        value = (self.head(self.neck(self.backbone(inputs).flatten(0, 1))) - target).square().mean()
        return self.outcome(Terms({'loss': value}, {}), dict)

    def end_step(self):
        super().end_step()
        self.students.append(self.backbone.weight.detach().clone())
        self.means.append(self.teacher.weight.clone())


@pytest.mark.parametrize('buffers', ['copy', 'average', 'own'])
def test_an_update_is_the_average_of_parameters_and_what_is_asked_of_buffers(buffers):
    model = Following(momentum=0.75, buffers=buffers)
    names = {'backbone.weight': 'teacher.weight', 'neck.bias': 'teacher_neck.bias'}
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.backbone.weight.add_(1), model.neck.bias.add_(2), model.neck.running_mean.add_(4)
        model.neck.num_batches_tracked.add_(3)
    model.teachers[0].update(model, None)
    for student, mean in names.items():
        wanted = 0.75 * state[student] + 0.25 * model.state_dict()[student]
        torch.testing.assert_close(model.state_dict()[mean], wanted)
    wanted = {'copy': (4, 3), 'average': (1, 3), 'own': (0, 0)}[buffers]
    assert (model.teacher_neck.running_mean == wanted[0]).all()
    assert model.teacher_neck.num_batches_tracked == wanted[1]
    assert not any(p.requires_grad for p in [*model.teacher.parameters(), *model.teacher_neck.parameters()])


def test_a_cosine_is_that_of_dino():
    total = 200  # its table, restated: final + (base - final) * (1 + cos(pi i / N)) / 2
    table = 1.0 + 0.5 * (0.996 - 1.0) * (1 + numpy.cos(numpy.pi * numpy.arange(total) / total))
    momentum = build_momentum(dict(start=0.996))
    assert [momentum(Clock(0, i, 0, i / total)) for i in range(total)] == pytest.approx(table.tolist(), abs=1e-12)


def test_pieces_are_those_of_bootmae():
    momentum = build_momentum([(0, 0.999), (100, 0.9999), (400, 0.99999)])
    for epoch in (0, 1, 50, 99, 100, 250, 399, 400, 799):
        if epoch < 100:
            wanted = 0.999 + epoch / 100 * (0.9999 - 0.999)
        else:
            wanted = 0.9999 + min(300, epoch - 100) / 300 * (0.99999 - 0.9999)
        assert momentum(Clock.at_epoch(epoch)) == pytest.approx(wanted, abs=1e-12)
    assert build_momentum([(5, 0.5), (10, 1)])(Clock.at_epoch(2)) == 0.5
    assert build_momentum(0.996)(None) == 0.996


@pytest.mark.parametrize(
    'momentum', [1.5, dict(first=0.9), dict(start=0.9, end=2), [(0, 0.9), (0, 1)], [], 'cosine', None]
)
def test_momenta_that_cannot_be_are_refused(momentum):
    with pytest.raises(ValueError, match='momentum is .*cosine over the training'):
        Teacher({'backbone': 'teacher'}, momentum)
    with pytest.raises(ValueError, match="buffers is 'none'"):
        Teacher({'backbone': 'teacher'}, 0.9, buffers='none')


def averaged(first, students, momenta):
    means = [first]
    for student, m in zip(students, momenta, strict=True):
        means.append(m * means[-1] + (1 - m) * student)
    return means[1:]


@pytest.mark.parametrize('accumulate, steps', [(1, 6), (2, 3)])
def test_it_starts_as_the_initialised_student_and_follows_every_optimizer_step(tmp_path, accumulate, steps):
    model = Following(dict(start=0.5, end=1.0))
    run(tmp_path / 'run', model, dict(by_epoch=True, max_epochs=2), accumulate=accumulate)
    first = Following()
    first.init_weights()
    assert torch.equal(first.teacher.weight, first.backbone.weight)
    assert len(model.students) == steps and not torch.equal(model.students[0], model.students[-1])
    # The clock is that of the last micro-batch of the step.
    shares = [((step + 1) * accumulate - 1) / 6 for step in range(steps)]
    momenta = [1 - 0.25 * (1 + math.cos(math.pi * share)) for share in shares]
    wanted = averaged(first.backbone.weight.detach(), model.students, momenta)
    for mean, value in zip(model.means, wanted, strict=True):
        torch.testing.assert_close(mean, value)


def test_it_starts_as_the_loaded_student_unless_the_checkpoint_brings_it_along(tmp_path):
    given = Following()
    given.init_weights()
    with torch.no_grad():
        given.backbone.weight.neg_(), given.teacher.weight.fill_(7)
    state = given.state_dict()
    alone = {key: value for key, value in state.items() if not key.startswith('teacher')}
    for name, content, wanted in (('alone', alone, given.backbone), ('whole', state, given.teacher)):
        torch.save({'state_dict': content}, tmp_path / f'{name}.pth')
        model = Following(momentum=1.0)
        run(tmp_path / name, model, dict(by_epoch=True, max_epochs=1), load_from=str(tmp_path / f'{name}.pth'))
        assert torch.equal(model.teacher.weight, wanted.weight)
        assert not torch.equal(model.backbone.weight, given.backbone.weight)


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    whole, first, second = (Following(dict(start=0.5)) for _ in range(3))
    loop = dict(by_epoch=True, max_epochs=4)
    run(tmp_path / 'whole', whole, loop)
    stop = StopHook(2)
    stop.priority = 'LOWEST'  # after the checkpoint
    with pytest.raises(Killed):
        run(tmp_path / 'cut', first, loop, hooks=[ClockHook(), stop])
    run(tmp_path / 'cut', second, loop, resume=True)
    assert len(second.means) == 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def one_process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    model = Following()
    model.init_weights()
    # Every parameter with a gradient gets one, so this fails if DDP waited for those of the teacher.
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(4):
        model.begin_step(Clock(0, step, 0, step / 4))
        optimizer.zero_grad()
        inputs = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(10 * step + rank))
        wrapped(inputs, mode='loss')['loss'].backward()
        optimizer.step()
        model.end_step()
    torch.save((model.students, model.means), f'{folder}/rank{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_ranks_have_one_teacher(tmp_path):
    torch.multiprocessing.spawn(one_process, args=(str(tmp_path),), nprocs=2)
    (students, means), (others, theirs) = (torch.load(tmp_path / f'rank{rank}.pt') for rank in range(2))
    assert all(map(torch.equal, means, theirs)) and all(map(torch.equal, students, others))
    first = Following()
    first.init_weights()
    for mean, value in zip(means, averaged(first.backbone.weight.detach(), students, [0.9] * 4), strict=True):
        torch.testing.assert_close(mean, value)
