"""The captured step against the eager one: a compiler that drops a gradient must not go unnoticed."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner
from tiny import VIT, build, images, total_loss
from tiny_run import shrunken
from torch._dynamo.backends.debugging import aot_eager

from mim_mm.engine.hooks.compile_hook import CompileHook, for_all_batches

pytestmark = pytest.mark.slow
# Inductor finds out which vector instructions there are in a process of its own, once a machine.
PROBES = pytest.mark.process


@pytest.fixture(autouse=True)
def nothing_captured_before():
    """torch remembers, for the code of a function, sizes and graphs of all models that it was captured for."""
    torch._dynamo.reset()


@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
@pytest.mark.parametrize(
    'backend, mode',
    [
        pytest.param('aot_eager', None, id='aot_eager'),
        pytest.param('inductor', None, id='inductor', marks=PROBES),
        pytest.param('inductor', 'max-autotune-no-cudagraphs', id='autotuned', marks=PROBES),
    ],
)
def test_the_captured_step_has_the_losses_and_gradients_of_the_eager_one(kind, backend, mode):
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
    model.captured = torch.compile(model.loss_under_plan, fullgraph=True, dynamic=False, backend=backend, mode=mode)
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


def test_batches_of_any_size_take_two_graphs():
    model, graphs = build('EMAE'), []

    def counted(module, examples):
        graphs.append(module)
        return aot_eager(module, examples)

    compiled = for_all_batches(torch.compile(model.loss_under_plan, fullgraph=True, dynamic=False, backend=counted))
    for size in (4, 4, 6, 3, 4, 2, *range(7, 13)):  # torch gives up at the ninth graph
        found = []
        for captured in (None, compiled):
            model.zero_grad()
            model.captured, model.mask_generator = captured, torch.Generator().manual_seed(size)
            out = model.loss(torch.cat([images()] * 4)[:size])
            total_loss(out).backward()
            found.append((out, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
        torch.testing.assert_close(found[1], found[0])
    assert len(graphs) == 2


def test_under_ddp_the_graph_is_cut_where_buckets_of_gradients_end(tmp_path):
    """Else no gradient would be there, and none on its way, before the whole backward pass is done."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wide = dict(VIT, arch=dict(embed_dims=128, num_layers=4, num_heads=2, feedforward_channels=512))
        model, graphs, buckets = build('EMAE', backbone=wide), [], []

        def counted(module, examples):
            graphs.append(module)
            return aot_eager(module, examples)

        def sent(state, bucket):
            buckets.append(bucket.buffer().numel())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        wrapped = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=1)  # of 3.5
        wrapped.register_comm_hook(None, sent)
        results = []
        for captured in (None, torch.compile(model.loss_under_plan, fullgraph=True, dynamic=False, backend=counted)):
            for _ in range(2):  # torch fits its buckets to the order of the gradients after the first step
                model.zero_grad()
                buckets.clear()
                model.captured, model.mask_generator = captured, torch.Generator().manual_seed(3)
                total_loss(wrapped(images(), mode='loss')).backward()
            results.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        assert len(buckets) >= 3 and len(graphs) >= 3
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
    finally:
        torch.distributed.destroy_process_group()


def test_what_cannot_be_captured_is_refused(monkeypatch):
    class Run:
        model = torch.nn.Linear(2, 2)
        optim_wrapper = SimpleNamespace(_accumulative_counts=4)

    with pytest.raises(TypeError, match='Linear has no loss_under_plan.*MAE and EMAE'):
        CompileHook().before_train(Run)
    Run.model = build('EMAE')
    for mode in ('reduce-overhead', 'max-autotune'):
        with pytest.raises(ValueError, match=f"mode='{mode}'.*accumulative_counts=4.*leave mode out"):
            CompileHook(mode=mode).before_train(Run)
    CompileHook().before_train(Run)
    assert Run.model.captured is not None
    monkeypatch.setattr('mim_mm.engine.hooks.compile_hook.FSDP', type(Run.model))
    with pytest.raises(ValueError, match='FSDP.*leave --compile out'):
        CompileHook().before_train(Run)
