"""``draw_on_host`` beside a GPU: replayable, different from call to call, in step with what the GPU draws, no wait."""

import ctypes
import os

import torch

from mim_mm.masking.block import BlockMasking
from mim_mm.masking.plan import draw_on_host, true_places

waits = ctypes.c_long.in_dll(ctypes.CDLL(os.environ['LD_PRELOAD']), 'standin_syncs')
tokens = torch.zeros(8, 196, 4, device='cuda')
generator = torch.Generator('cuda')
mask = torch.zeros(8, 196, dtype=torch.bool, device='cuda')
before = waits.value


def draws(seed):
    generator.manual_seed(seed)
    first = draw_on_host((5,), tokens, generator)
    torch.rand(7, device='cuda', generator=generator)  # moves the offset on
    return torch.cat([first, draw_on_host((5,), tokens, generator), draw_on_host((5,), tokens, generator)])


found = draws(1)
assert found.device.type == 'cpu' and len(found.unique()) == 15 and ((found >= 0) & (found < 1)).all()
assert torch.equal(draws(1), found) and not torch.equal(draws(2), found)
state = generator.get_state()
here = draw_on_host((5,), tokens, generator)
generator.set_state(state)
assert torch.equal(draw_on_host((5,), tokens, generator), here), 'a resumed generator draws something else'
torch.manual_seed(3)
alone = draw_on_host((5,), tokens, None)
torch.manual_seed(3)
assert torch.equal(draw_on_host((5,), tokens, None), alone), 'the global generator'
plan = BlockMasking(ratio=(0.1, 0.5), fill='none')(tokens, generator)
assert plan.order.is_cuda and plan.ragged and len(plan.hidden_per_image().unique()) > 1
assert true_places(mask, 40).shape == (40,)
assert waits.value == before, f'{waits.value - before} waits for the device'
