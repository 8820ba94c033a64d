"""Stopped by a signal and resumed equals never stopped, bit for bit; and what happens around a stop."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny_run import ROOT, TINY_ARCH, shrunken
from torch.utils.data import DataLoader

from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.engine.stop.signals import REQUEST, shield_workers
from mim_mm.engine.stop.stop_hook import EXIT_CODE, StopOnSignalHook, Stopped


@pytest.fixture(autouse=True)
def no_request():
    yield
    REQUEST.forget()


class Watch(Hook):
    """Notes what is trained on, and sends this process a signal in one iteration (0: never)."""

    priority = 'HIGH'

    def __init__(self, at, number=signal.SIGUSR1):
        self.at, self.number, self.seen = at, number, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        images = torch.stack([image.float() for image in data_batch['inputs']])
        self.seen.append((runner.iter, batch_idx, images.double().sum().item(), torch.rand(1).item()))
        if runner.iter + 1 == self.at:
            os.kill(os.getpid(), self.number)


def train(image_folder, work_dir, stop_at=0, accumulate=1, iterations=None, workers=0, number=signal.SIGUSR1):
    """Two epochs of three batches with random crops, random flips and masks, or ``iterations`` of an endless loop."""
    found = latest_checkpoint(work_dir) if work_dir.exists() else None
    cfg = shrunken(**{
        'train_dataloader.dataset.data_root': str(image_folder), 'train_dataloader.dataset.data_prefix': '',
        'train_dataloader.batch_size': 3, 'train_dataloader.num_workers': workers,
        'train_cfg.max_epochs': 2, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
        'optim_wrapper.accumulative_counts': accumulate,
        'work_dir': str(work_dir), 'resume': bool(found), 'load_from': str(found) if found else None,
    })  # fmt: skip
    cfg.train_dataloader.drop_last = True
    if iterations:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=1000)
        cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=iterations)]
        cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
        cfg.default_hooks.checkpoint.interval = 100
        cfg.default_hooks.checkpoint.by_epoch = False
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mim_mm.ProgressHook'),
                        dict(type='mim_mm.StopOnSignalHook')]  # fmt: skip
    cfg.experiment_name = f'{work_dir.name}-{bool(found)}'
    runner = Runner.from_cfg(cfg)
    watch = Watch(stop_at, number)
    runner.register_hook(watch)
    code = 0
    try:
        runner.train()
    except Stopped as stop:
        code = stop.code
    return runner, watch.seen, code


def equal_weights(a, b):
    ours, theirs = (torch.load(latest_checkpoint(x), weights_only=True) for x in (a, b))
    for part in ('state_dict',):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in ours[part])
    for key, state in ours['optimizer']['state'].items():
        assert all(torch.equal(state[name], theirs['optimizer']['state'][key][name]) for name in state)
    assert ours['meta']['iter'] == theirs['meta']['iter'] and ours['meta']['epoch'] == theirs['meta']['epoch']


@pytest.mark.parametrize('stop_at', [1, 3, 5, 6])  # inside an epoch, at its end, inside the last, the very last
def test_interrupted_and_resumed_equals_uninterrupted(image_folder, tmp_path, stop_at):
    _, whole, code = train(image_folder, tmp_path / 'whole')
    assert code == 0 and [step[0] for step in whole] == list(range(6))
    _, first, code = train(image_folder, tmp_path / 'cut', stop_at)
    assert code == EXIT_CODE and len(first) == stop_at
    assert latest_checkpoint(tmp_path / 'cut').name == f'stopped_iter_{stop_at}.pth'
    progress = json.loads((tmp_path / 'cut/progress.json').read_text())
    assert progress['stopped'] == 'SIGUSR1' and progress['iter'] == stop_at and not progress['finished']
    _, second, code = train(image_folder, tmp_path / 'cut')
    assert code == 0
    # Iteration, place in its epoch, the augmented images and the next random number: as if nothing had happened.
    assert first + second == whole
    equal_weights(tmp_path / 'cut', tmp_path / 'whole')
    progress = json.loads((tmp_path / 'cut/progress.json').read_text())
    assert progress['finished'] and 'stopped' not in progress
    assert not list((tmp_path / 'cut').glob('stopped_*')), 'the file of the stop goes when a later one is there'


def test_an_iteration_based_loop_goes_on_exactly(image_folder, tmp_path):
    _, whole, _ = train(image_folder, tmp_path / 'whole', iterations=7)
    _, first, code = train(image_folder, tmp_path / 'cut', stop_at=4, iterations=7)
    assert code == EXIT_CODE
    _, second, code = train(image_folder, tmp_path / 'cut', iterations=7)
    assert code == 0 and first + second == whole
    equal_weights(tmp_path / 'cut', tmp_path / 'whole')


def test_the_last_iteration_of_an_iteration_based_run_is_not_stopped_at(image_folder, tmp_path):
    _, seen, code = train(image_folder, tmp_path / 'run', stop_at=4, iterations=4)
    assert code == 0 and len(seen) == 4


def test_accumulated_gradients_are_not_lost(image_folder, tmp_path):
    _, whole, _ = train(image_folder, tmp_path / 'whole', accumulate=2)
    _, first, code = train(image_folder, tmp_path / 'cut', stop_at=3, accumulate=2)
    assert code == EXIT_CODE and len(first) == 4, 'it waits for the optimizer step'
    _, second, _ = train(image_folder, tmp_path / 'cut', accumulate=2)
    assert first + second == whole
    equal_weights(tmp_path / 'cut', tmp_path / 'whole')


def test_stopped_twice(image_folder, tmp_path):
    _, whole, _ = train(image_folder, tmp_path / 'whole')
    seen = []
    for stop_at, code in ((2, EXIT_CODE), (4, EXIT_CODE), (0, 0)):
        _, part, got = train(image_folder, tmp_path / 'cut', stop_at, number=signal.SIGTERM)
        assert got == code
        seen += part
        assert len(list((tmp_path / 'cut').glob('stopped_*'))) == (1 if code else 0)
    assert seen == whole
    equal_weights(tmp_path / 'cut', tmp_path / 'whole')


def test_another_batch_size_in_the_middle_of_an_epoch_is_refused(image_folder, tmp_path):
    train(image_folder, tmp_path / 'run', stop_at=2)
    path = latest_checkpoint(tmp_path / 'run')
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint['meta']['epoch_length'] == 3
    checkpoint['meta']['epoch_length'] = 5
    torch.save(checkpoint, path)
    with pytest.raises(
        RuntimeError, match='after 2 of 5 batches; an epoch has 3 batches now.*holds no checkpoint from the end'
    ):
        train(image_folder, tmp_path / 'run')


def test_workers_outlive_a_stop_of_their_group(tmp_path):
    """The group gets SIGUSR1 and SIGTERM while the main process waits for a batch: all batches arrive."""
    script = tmp_path / 'script.py'
    script.write_text(
        'import os, signal, subprocess, time, torch\n'
        'from mim_mm.engine.stop.signals import REQUEST, shield_workers\n'
        'class Slow(torch.utils.data.Dataset):\n'
        '    def __len__(self): return 6\n'
        '    def __getitem__(self, i): time.sleep(0.3); return i\n'
        'KILL = "kill -s USR1 -- -$0; kill -s TERM -- -$0"\n'
        'loader = torch.utils.data.DataLoader(Slow(), batch_size=1, num_workers=2)\n'
        'if SHIELD: shield_workers(loader); shield_workers(loader)\n'
        'REQUEST.listen(signal.SIGUSR1, signal.SIGTERM)\n'
        'seen = []\n'
        'for i in loader:\n'
        '    seen.append(int(i))\n'
        # From another process, as srun, torchrun and kill send it.
        '    if len(seen) == 1: subprocess.run(["sh", "-c", KILL, str(os.getpgid(0))], start_new_session=True)\n'
        'print(seen, REQUEST.number == signal.SIGUSR1)\n'
    )
    answers = []
    for shield in (True, False):
        text = script.read_text().replace('SHIELD', str(shield))
        done = subprocess.run([sys.executable, '-c', text], cwd=ROOT, capture_output=True, text=True, timeout=120,
                              env={**os.environ, 'PYTHONPATH': str(ROOT)}, start_new_session=True)  # fmt: skip
        answers.append(done)
    assert answers[0].stdout.strip() == '[0, 1, 2, 3, 4, 5] True', answers[0].stderr
    assert answers[1].returncode != 0, 'without the shield the loader loses its workers; the shield is needed'


def test_a_training_that_fails_takes_its_workers_with_it(tmp_path):
    """At once, and with its own error as the last words."""
    script = (
        'import torch\n'
        'from mim_mm.engine.stop.signals import shield_workers\n'
        'loader = torch.utils.data.DataLoader(list(range(99)), batch_size=1, num_workers=2, persistent_workers=True)\n'
        'shield_workers(loader)\n'
        'for i in loader: raise ValueError("the real reason")\n'
    )
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, timeout=50,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})  # fmt: skip
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1] == 'ValueError: the real reason'


def test_shielding_none_and_options():
    shield_workers(None)
    loader = DataLoader(list(range(3)))
    shield_workers(loader)
    before = loader.worker_init_fn
    shield_workers(loader)
    assert loader.worker_init_fn is before
    with pytest.raises(ValueError, match='interval=0'):
        StopOnSignalHook(interval=0)


def test_a_run_that_lacks_only_its_last_validation_makes_up_for_it(image_folder, tmp_path):
    class Die(Hook):
        def before_val_epoch(self, runner):
            raise KeyboardInterrupt

    def run(die):
        path = ROOT / 'configs/linear/vitb_linear_90e.py'
        cfg = Config.fromfile(path)
        steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
        loader = dict(batch_size=5, num_workers=0, persistent_workers=False, pin_memory=False)
        dataset = dict(data_root=str(image_folder), data_prefix='', classes_from=None, pipeline=steps)
        cfg.merge_from_dict(dict(
            model=dict(backbone=dict(arch=dict(TINY_ARCH, _delete_=True), img_size=32, patch_size=8, frozen_stages=2),
                       neck=dict(input_features=32), head=dict(num_classes=2, in_channels=32)),
            train_dataloader=dict(loader, dataset=dataset), val_dataloader=dict(loader, dataset=dataset),
            val_evaluator=dict(topk=(1,)), train_cfg=dict(max_epochs=1), param_scheduler=[],
            work_dir=str(tmp_path / 'w'),
            resume=not die, load_from=None if die else str(latest_checkpoint(tmp_path / 'w')),
            experiment_name=f'last-validation-{die}',
        ))  # fmt: skip
        cfg.custom_hooks += [dict(type='mim_mm.ProgressHook'), dict(type='mim_mm.StopOnSignalHook')]
        runner = Runner.from_cfg(cfg)
        if die:
            runner.register_hook(Die())
            with pytest.raises(KeyboardInterrupt):
                runner.train()
        else:
            runner.train()
        return json.loads((tmp_path / 'w/progress.json').read_text())

    assert run(die=True)['metrics'] == {}
    progress = run(die=False)
    assert progress['finished'] and progress['iter'] == 2 and 0 <= progress['metrics']['accuracy/top1'] <= 100


# ---- several processes


def test_two_processes_agree_and_go_on(image_folder, tmp_path):
    """Only one of two torchrun processes is signalled; both stop at the same iteration, and the epoch goes on."""
    (image_folder / 'train').mkdir()
    for name in ('class0', 'class1'):
        (image_folder / name).rename(image_folder / 'train' / name)
    work = tmp_path / 'work'
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = r'{ROOT}/configs/emae/emae_vitb_800e.py'\n"
        'model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2,\n'
        '    feedforward_channels=64), img_size=32, patch_size=8),\n'
        '    decoder=dict(embed_dims=32, depth=1, num_heads=2))\n'
        'steps = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(32, 32)), dict(type="PackImage")]\n'
        'train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, pin_memory=False)\n'
        'train_dataloader["dataset"] = dict(pipeline=steps)\n'
        'custom_imports = dict(imports=["signal_one"])\n'
        'custom_hooks = [dict(type="SignalOne"), dict(type="mim_mm.MaskSeedHook"),\n'
        '                dict(type="mim_mm.StopOnSignalHook", interval=2)]\n'
        'train_cfg = dict(max_epochs=1)\n'
        'param_scheduler = []\n'
        'default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))\n'
    )
    (tmp_path / 'signal_one.py').write_text(
        'import os, signal\nfrom mmengine.dist import get_rank\nfrom mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n\n@HOOKS.register_module()\nclass SignalOne(Hook):\n'
        '    def before_train_iter(self, runner, batch_idx, data_batch=None):\n'
        '        os.write(1, f"\\ntrained {get_rank()} {runner.iter} {batch_idx}\\n".encode())\n'
        '        if runner.iter == 0 and get_rank() == 1: os.kill(os.getpid(), signal.SIGUSR1)\n'
    )
    env = dict(os.environ, PYTHON=sys.executable, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
               OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', PORT='0')  # fmt: skip
    command = ['bash', 'tools/dist_train.sh', str(config), '2', '--work-dir', str(work), '--data-root',
               str(image_folder)]  # fmt: skip
    first = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert first.returncode != 0 and 'SIGUSR1: stopped after iteration 2 of 5' in first.stderr + first.stdout
    assert json.loads((work / 'progress.json').read_text())['stopped'] == 'SIGUSR1'
    second = subprocess.run([*command, '--resume'], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr[-2000:]
    lines = [line.split()[1:] for line in (first.stdout + second.stdout).splitlines() if line.startswith('trained')]
    assert sorted(lines) == sorted([str(rank), str(i), str(i)] for rank in (0, 1) for i in range(5))
