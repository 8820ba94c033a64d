"""What every training does, on the stand-in: says quickly whether this torch can run on it at all."""

import torch
from torch.nn import functional

assert torch.cuda.is_available() and torch.cuda.get_device_name() == 'Stand-in GPU', 'no stand-in'
assert torch.cuda.get_device_capability() == (9, 0)
values = torch.arange(6.0).pin_memory().to('cuda', non_blocking=True)
assert values.cpu().tolist() == [0, 1, 2, 3, 4, 5], 'copies to the device and back'
model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 16, 16), torch.nn.Flatten(2), torch.nn.LayerNorm(4)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
before = torch.cuda.memory_allocated()
for _ in range(2):
    with torch.autocast('cuda', torch.bfloat16):
        tokens = model(torch.rand(8, 3, 32, 32, device='cuda')).reshape(8, 4, 4, 16)
        mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens)
    assert mixed.dtype == torch.bfloat16 and mixed.shape == (8, 4, 4, 16)
    mixed.float().pow(2).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
assert torch.cuda.memory_allocated() > before
assert torch.rand(8, device='cuda').gt(2).nonzero().shape == (4, 1), 'site/sitecustomize.py is not in effect'
try:
    torch.cuda.FloatTensor(2**38)
    raise SystemExit('a terabyte fitted')
except torch.OutOfMemoryError:
    pass
assert torch.ones(3, device='cuda').bool().all() and torch.zeros(3, device='cuda').bool().any().item() is False
assert torch.backends.cudnn.version() > 0
