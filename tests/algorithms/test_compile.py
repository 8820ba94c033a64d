"""The captured step against the eager one: a compiler that drops a gradient must not go unnoticed."""

import shutil

import pytest
import torch
from mmengine.runner import Runner
from tiny import build, images, total_loss
from tiny_run import shrunken

from mim_mm.engine.hooks.compile_hook import CompileHook

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_the_captured_step_has_the_losses_and_gradients_of_the_eager_one(kind, backend):
    if backend == 'inductor' and shutil.which('g++') is None and shutil.which('clang++') is None:
        pytest.skip('inductor needs a C++ compiler on a CPU')
    model = build(kind)

    def run():
        model.zero_grad()
        model.mask_generator = torch.Generator().manual_seed(3)
        out = model.loss(images())
        total_loss(out).backward()
        return out, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    eager, gradients = run()
    model.captured = torch.compile(model.loss_under_plan, fullgraph=True, dynamic=False, backend=backend)
    captured, theirs = run()
    # Inductor once merged the loss with its detached copy: right values, no gradient.
    assert [(k, v.requires_grad) for k, v in captured.items()] == [(k, v.requires_grad) for k, v in eager.items()]
    assert all(v.requires_grad == k.startswith('loss') for k, v in eager.items())
    torch.testing.assert_close(captured, eager)
    assert theirs.keys() == gradients.keys()
    torch.testing.assert_close(theirs, gradients, rtol=1e-4, atol=1e-6)


def test_packed_plans_are_not_captured():
    model = build('EMAE', dict(type='ParallelMasking', num_parts=3))  # 16 patches: parts of 6, 5 and 5
    eager = model.loss(images()).keys()

    def never(*args):
        raise AssertionError('captured although the parts differ')

    model.captured = never
    assert model.loss(images()).keys() == eager


def test_a_run_with_the_hook_ends_where_one_without_ends(image_folder, tmp_path):
    weights = []
    for name, hooks in (('eager', []), ('compiled', [dict(type='CompileHook', backend='aot_eager')])):
        cfg = shrunken(**{
            'train_dataloader.dataset.data_root': str(image_folder),
            'train_dataloader.dataset.data_prefix': '',
            'train_cfg.max_epochs': 2,
            'param_scheduler.0.end': 1,
            'param_scheduler.1.begin': 1,
            'work_dir': str(tmp_path / name),
            'experiment_name': f'{tmp_path.name}-{name}',
            # In bf16 a difference in the last bit flips signs in the consistency term, which Adam does not forget.
            'optim_wrapper.on_cpu': False,
        })  # fmt: skip
        cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
        runner = Runner.from_cfg(cfg)
        runner.train()
        weights.append({k: v for k, v in runner.model.state_dict().items()})
    assert runner.model.captured is None  # left as it was, so that the model can be pickled
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_algorithms_without_a_step_to_capture_are_refused():
    class Run:
        model = torch.nn.Linear(2, 2)

    with pytest.raises(TypeError, match='Linear has no loss_under_plan.*MAE and EMAE'):
        CompileHook().before_train(Run)
