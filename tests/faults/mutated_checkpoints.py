"""Checkpoints with flipped, cut or doubled bytes: refused in our words, or the tensors that were saved."""

import random

import torch
from mutated import damage

from mim_mm.checkpoint.read import LoadError, read_content

NAME = 'mutated checkpoints, 50 a trial'
MUTATIONS = 50
GENERATOR = torch.Generator().manual_seed(0)
CONTENT = dict(
    meta=dict(epoch=3, iter=30, time='20260101_000000', cfg='model = dict(type="MAE")'),
    state_dict={f'layers.{i}.weight': torch.randn(4, 8, generator=GENERATOR) for i in range(4)},
    optimizer=dict(state={0: dict(exp_avg=torch.randn(4, 8, generator=GENERATOR))}, param_groups=[dict(lr=0.1)]),
)


def trial(number, folder):
    rng, refused = random.Random(number), 0
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'epoch_3.pth'
    torch.save(CONTENT, path)
    whole = path.read_bytes()
    for i in range(MUTATIONS):
        path.write_bytes(damage(whole, rng))
        try:
            found = read_content(path, mmap=rng.random() < 0.5)
        except LoadError:
            refused += 1
            continue
        except Exception as error:
            return False, f'{i}: {type(error).__name__}: {error}'
        same = found['meta'] == CONTENT['meta'] and found['state_dict'].keys() == CONTENT['state_dict'].keys()
        if not same or any(not torch.equal(found['state_dict'][k], v) for k, v in CONTENT['state_dict'].items()):
            return False, f'{i}: other content was read'
    return True, f'{MUTATIONS} files: {refused} refused, {MUTATIONS - refused} as they were saved'
