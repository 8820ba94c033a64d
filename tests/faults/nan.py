"""A value that is not finite, at a random iteration, in images, weights, the loss or the gradient of one rank.

What is promised: no file with such a value is left; one bad step changes nothing and the run ends with 0, or with an
error where it was the last; what does not end is gone back from or stopped with one error and a non-zero code.
"""

from __future__ import annotations

import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.hooks import Hook

from mim_mm.checkpoint.finite import not_finite_in_file
from mim_mm.engine.bare_model import bare_model
from mim_mm.registry import HOOKS

NAME = 'NaN in images, weights, loss or the gradient of one rank'
ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 24
ARCH = 'dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)'
SMALL = f"""
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
default_hooks = dict(logger=dict(interval=3), checkpoint=dict(interval=1, max_keep_ckpts=2))
model = dict(backbone=dict(arch={ARCH}, img_size=32, patch_size=8{{encoder}}){{more}})
train_cfg = dict(max_epochs=6)
param_scheduler = [dict(type='mim_mm.HalfCosineLR', by_epoch=True, convert_to_iter_based=True)]
"""
DECODER = ', decoder=dict(embed_dims=32, depth=1, num_heads=2)'
HEAD = ', head=dict(num_classes=2, in_channels=32)'
# From random weights.
EVALUATED = """
custom_hooks = []
data_preprocessor = dict(num_classes=2)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_evaluator = dict(topk=1)
_base_.train_dataloader.dataset.pipeline[1].scale = 32
_base_.val_dataloader.dataset.pipeline[1].scale = 36
_base_.val_dataloader.dataset.pipeline[2].crop_size = 32
"""
CROPPED = '_base_.train_dataloader.dataset.pipeline[1].scale = 32\n'
ONE_BATCH = 'optim_wrapper = dict(accumulative_counts=1)\n'
# Family -> recipe and what makes it small.
FAMILIES = {
    'mae': ('mae/mae_vitb_300e', SMALL.format(more=DECODER, encoder='') + CROPPED),
    'emae': (
        'emae/emae_vitb_300e',
        SMALL.format(more=DECODER, encoder='') + CROPPED + ONE_BATCH,
    ),
    'linear': (
        'linear/vitb_linear_90e',
        SMALL.format(more=HEAD + ', neck=dict(input_features=32)', encoder=', frozen_stages=2') + EVALUATED,
    ),
    'finetune': ('finetune/vitb_finetune_100e', SMALL.format(more=HEAD, encoder='') + EVALUATED),
}
PLACES = ('images', 'loss', 'weights', 'gradient', 'images for good')


@HOOKS.register_module()
class Spoil(Hook):
    """Puts a value that is not finite where it is told, and notes whether the step left a trace.

    Args:
        place: one of ``PLACES``.
        at: iteration.
        value: as text, 'nan' or 'inf'.
        rank: the only one on which something happens.
        note: file for the answer, 'same' or 'changed'.
    """

    priority = 0

    def __init__(self, place: str, at: int, value: str, rank: int, note: str) -> None:
        self.place, self.at, self.value, self.note = place, at, float(value), note
        self.here = rank == int(os.environ.get('RANK', 0))

    def state(self, runner) -> list[torch.Tensor]:
        model, optimizer = bare_model(runner), runner.optim_wrapper.optimizer
        values = [*model.state_dict().values(), *(v for s in optimizer.state.values() for v in s.values())]
        return [v.detach().clone() for v in values if isinstance(v, torch.Tensor)]

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        due = runner.iter == self.at or (self.place.endswith('for good') and runner.iter > self.at)
        if runner.iter == self.at:
            self.before = self.state(runner)
        if not (due and self.here):
            return
        model = bare_model(runner)
        if self.place.startswith('images'):
            images = data_batch['inputs']
            images = torch.stack(list(images)).float()
            images[0] = self.value
            data_batch['inputs'] = images
        elif self.place == 'loss':
            plain = model.parse_losses

            def spoilt(losses):
                del model.parse_losses
                loss, logged = plain(losses)
                return loss * self.value, logged

            model.parse_losses = spoilt
        else:
            name, weight = [(n, p) for n, p in model.named_parameters() if p.requires_grad][0]
            if self.place == 'weights':
                weight.data.fill_(self.value)
            else:
                handle = weight.register_hook(lambda grad: (handle.remove(), grad * self.value * 0 + self.value)[1])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter == self.at and not int(os.environ.get('RANK', 0)):
            now = self.state(runner)
            fresh = all(not value.any() for value in now[len(self.before) :])  # state of a first step
            same = all(torch.equal(a, b) for a, b in zip(self.before, now))
            Path(self.note).write_text('same' if same and (fresh or len(now) == len(self.before)) else 'changed')


def write_images(folder: Path) -> None:
    """``folder/{train,val}/{a,b}/*.png``: sixteen and four images."""
    import numpy
    from PIL import Image

    draws = numpy.random.default_rng(0)
    for part, count in (('train', 16), ('val', 4)):
        for i in range(count):
            path = folder / part / 'ab'[i % 2] / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draws.integers(0, 255, (40, 40, 3), dtype=numpy.uint8)).save(path)


def trial(number: int, folder: Path) -> tuple[bool, str]:
    """One training of 24 iterations that is spoilt; every fifth on two ranks."""
    draw, folder = random.Random(number), Path(folder)
    ranks = 2 if number % 5 == 4 else 1
    family, place = list(FAMILIES)[number % 4], PLACES[number // 4 % 5]
    iterations = ITERATIONS // ranks
    spoilt = dict(at=draw.randrange(iterations), rank=draw.randrange(ranks), value=draw.choice(['nan', 'inf']))
    if place == 'loss' and spoilt['value'] == 'inf' and draw.random() < 0.5:
        spoilt['at'] = iterations - 1
    write_images(folder / 'images')
    recipe, more = FAMILIES[family]
    note = folder / 'note.txt'
    hook = dict(type='mim_mm.Spoil', place=place, note=str(note), **spoilt)
    config = folder / 'config.py'
    base = str(ROOT / f'configs/{recipe}.py')
    config.write_text(
        f"_base_ = {base!r}\n{more}\ncustom_imports = dict(imports=['mim_mm', 'nan'], allow_failed_imports=False)\n"
        f"default_hooks['spoil'] = {hook!r}\n"
    )
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(config), '--data-root', str(folder / 'images')]
    command += ['--work-dir', str(folder / 'run')]
    if ranks == 2:
        # A port that the system chooses and nobody gets in between.
        here = ['--master_addr=127.0.0.1', '--master_port=0']
        command[1:1] = ['-m', 'mim_mm.compat.torchrun', '--nproc_per_node=2', *here]
        command += ['--launcher', 'pytorch']
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    said = f'{family}, {ranks} rank(s), {place} {spoilt["value"]} at {spoilt["at"]} on rank {spoilt["rank"]}'
    wrong = faults(done, folder, place, spoilt['at'] == iterations - 1, note)
    return not wrong, f'{said}: exit code {done.returncode}' + (f', but {"; ".join(wrong)}' if wrong else '')


def faults(done: subprocess.CompletedProcess, folder: Path, place: str, last: bool, note: Path) -> list[str]:
    """What of the promises was not kept."""
    log, wrong = done.stdout + done.stderr, []
    files = sorted((folder / 'run').glob('*.pth'))
    bad = [path.name for path in files if not_finite_in_file(path)]
    if bad:
        wrong.append(f'not finite: {bad}')
    errors = set(re.findall(r'^error: .*', log, re.M))
    single = place in ('images', 'loss', 'gradient')
    if 'Traceback' in log or (done.returncode and len(errors) != 1):
        wrong.append(f'no single clear error: {log[-300:]!r}')
    if single and bool(done.returncode) != last:
        wrong.append(f'one bad step {"that was the last" if last else "in the middle"}: {sorted(errors)}')
    if single and 'left out' not in log:
        wrong.append('the step that was left out is not in the log')
    if place != 'weights' and (not note.is_file() or note.read_text() != 'same'):
        wrong.append('the bad step left a trace')
    if place == 'images for good' and not done.returncode:
        wrong.append('a run that ended on bad steps says nothing')
    if not done.returncode:
        losses = re.findall(r'\(train\).* loss: (\S+)', log)
        went_back = 'data and schedules go on' in log  # a line of the log is a mean that has the bad steps in it
        if not files or not (went_back or math.isfinite(float(losses[-1]))):
            wrong.append(f'ended in order with loss {losses[-1:]} and {len(files)} checkpoint(s)')
    return wrong
