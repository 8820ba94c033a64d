"""A run that is resumed with one setting changed, added or taken out, anywhere in a config."""

import copy
import pathlib
import random

from mim_mm.engine.start.checks.same_run import compare

NAME = 'resumed with other settings'
NAMES = ['type', 'lr', 'ratio', 'depth', 'pipeline', 'masker', 'betas', 'loss', 'begin', 'scale']
TOP = ['model', 'optim_wrapper', 'train_dataloader', 'data_preprocessor']
HARMLESS = ['work_dir', 'log_level', 'visualizer', 'env_cfg', 'test_dataloader', 'mine']


def settings(draw: random.Random, depth: int = 3):
    """A random tree of plain values."""
    if depth == 0 or draw.random() < 0.2:
        return draw.choice([1, 2.5, 'word', None, True, (1, 2), [], 'a/b'])
    if draw.random() < 0.3:
        return [settings(draw, depth - 1) for _ in range(draw.randint(1, 3))]
    return {name: settings(draw, depth - 1) for name in draw.sample(NAMES, draw.randint(1, 4))}


def change(draw: random.Random, tree: dict) -> None:
    """Change, add or take out one entry somewhere below."""
    key = draw.choice(list(tree))
    if isinstance(tree[key], dict) and tree[key] and draw.random() < 0.8:
        return change(draw, tree[key])
    kind = draw.choice(['other', 'added', 'gone'])
    if kind == 'added':
        tree['added'] = 0
    elif kind == 'gone' and len(tree) > 1:
        del tree[key]
    else:
        tree[key] = 'something else'


def trial(number: int, folder: pathlib.Path) -> tuple[bool, str]:
    """Held: refused where it changes learning, by a key that --allow-change takes; said where it does not."""
    draw = random.Random(number)
    config = {name: {name: settings(draw), 'other': 1} for name in [*TOP, *HARMLESS]}
    new, matters = copy.deepcopy(config), draw.random() < 0.7
    top = draw.choice(TOP if matters else HARMLESS)
    change(draw, new[top])
    refused, said = compare(config, new, (1, 1), [], set(TOP) | set(HARMLESS) - {'mine'})
    keys = [line.split(':')[0] for line in refused]
    if not matters:
        return not refused and len(said) == 1, f'{top}: {said}'
    allowed = compare(config, new, (1, 1), keys, set(TOP))[0]
    return len(refused) == 1 and keys[0].startswith(top) and not allowed, f'{top}: {refused}'
