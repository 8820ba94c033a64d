"""Every recipe at real size: built, and two iterations on synthetic images where memory allows. ``make test-full``.

Deselected by default. Each recipe runs in a process of its own, so that memory is given back and its peak is its own.
"""

import json
import multiprocessing
import resource
import time

import pytest
import recipe_table as table
import torch

pytestmark = pytest.mark.full


def train(name: str, folder: str, queue) -> None:
    """In the child: (losses, tensors that moved, values, seconds, peak GB)."""
    start = time.time()
    cfg = table.load(name)
    if 'tokenizer' in cfg.model:
        weights = table.MODELS.build(dict(cfg.model.tokenizer)).state_dict()
        torch.save(weights, f'{folder}/dalle.pth')
        cfg.model.tokenizer_checkpoint = f'{folder}/dalle.pth'
    model = table.build(cfg)
    losses, changed = table.two_steps(cfg, model, table.batch_for(cfg, table.real_image(cfg), images_of(cfg)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    values = sum(p.numel() for p in model.parameters())
    queue.put(json.dumps([losses, len(changed), values, time.time() - start, peak]))


def images_of(cfg) -> int:
    return 1 if table.is_detector(cfg) else 2


@pytest.mark.parametrize('name', table.every_recipe())
def test_two_iterations_at_real_size(name, tmp_path, capsys):
    cfg = table.load(name)
    need = table.needed_bytes(cfg, table.real_image(cfg), images_of(cfg)) / table.GB
    room = table.available_bytes() / table.GB
    if need > room:
        pytest.skip(f'{name} needs about {need:.1f} GB for two iterations, {room:.1f} GB are free')
    context = multiprocessing.get_context('spawn')
    queue = context.SimpleQueue()
    child = context.Process(target=train, args=(name, str(tmp_path), queue))
    child.start()
    child.join()
    assert child.exitcode == 0, f'exit code {child.exitcode}; -9 is a lack of memory ({need:.1f} GB were estimated)'
    losses, changed, values, seconds, peak = json.loads(queue.get())
    with capsys.disabled():
        print(f'\n{name}: {values / 1e6:.1f} M values, {seconds:.0f} s, {peak:.1f} GB (estimated {need:.1f})')
    assert len(losses) == 2 and all(abs(loss) < 1e4 for loss in losses) and changed > 0
