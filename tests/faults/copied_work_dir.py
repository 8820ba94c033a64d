"""A work dir that was copied, with checkpoints cut off or gone and a ``last_checkpoint`` of any kind."""

import pathlib
import random
import shutil

import torch

from mim_mm.checkpoint.atomic import find_checkpoint

NAME = 'copied work dir'


def trial(number: int, folder: pathlib.Path) -> tuple[bool, str]:
    """Held: what is resumed lies in the copy and is whole; the one named, or the newest by what the files say."""
    draw = random.Random(number)
    old, new = folder / f'{number}' / 'old', folder / f'{number}' / 'new'
    old.mkdir(parents=True)
    names = [f'{kind}_{i}.pth' for i, kind in enumerate(draw.choices(['epoch', 'iter', 'stopped_iter'], k=5))]
    times = draw.sample(range(10, 60), len(names))
    for name, second in zip(names, times, strict=True):
        torch.save({'meta': {'time': f'20260101_0000{second}'}}, old / name)
    noted = draw.choice([*names, 'epoch_99.pth', ''])
    note = draw.choice([str(old / noted), noted, f'/gone/{noted}', f'../old/{noted}'])
    (old / 'last_checkpoint').write_text(note)
    shutil.copytree(old, new)
    whole = dict(zip(names, times, strict=True))
    for name in draw.sample(names, draw.randint(0, 4)):
        whole.pop(name)
        path = new / name
        if draw.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size - 22)])
    found, said = find_checkpoint(new)
    right = noted if noted in whole else max(whole, key=whole.get)
    held = found == new / right and (not noted or noted in whole or bool(said))
    return held, f'last_checkpoint {note!r}, whole {sorted(whole)}: {found and found.name}'
