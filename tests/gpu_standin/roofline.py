"""What a step cannot be faster than in eager mode: OUT/run.sh python roofline.py RECIPE[:BATCH] ...

Every kernel that a step starts on the stand-in GPU (build_standin.py) is counted at the longer of two times: its FLOPs
at what an H100 reaches in large products, and the bytes that it reads and writes at the rate of its copies. Views cost
nothing, and neither does the host. One JSON line a recipe: images/s, and milliseconds by kind of kernel.
"""

from __future__ import annotations

import collections
import json
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# FLOP/s of products of bf16 and of fp32 without tensor cores, bytes/s: large products and copies measured on H100.
PRODUCTS, EXACT_PRODUCTS, COPIES = 790e12, 54e12, 3.0e12
NO_KERNEL = ('empty', 'new_empty', 'empty_like', 'empty_strided', '_unsafe_view', 'detach', 'lift_fresh')


class Roofline(TorchDispatchMode):
    """Adds up ``seconds`` by the name of the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = collections.Counter()
        self.bytes = self.flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function._overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor) and t.is_cuda]
        if function.is_view or name in NO_KERNEL or not tensors:
            return out
        moved = sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)
        flops = 0
        if function._overloadpacket in flop_registry:
            flops = flop_registry[function._overloadpacket](*args, **(kwargs or {}), out_val=out)
        rate = EXACT_PRODUCTS if tensors[0].dtype == torch.float32 else PRODUCTS
        self.seconds[name] += max(flops / rate, moved / COPIES)
        self.bytes, self.flops = self.bytes + moved, self.flops + flops
        return out


def roofline(name: str, batch: int | None = None) -> dict:
    """The third step of configs/NAME.py, with ``batch`` images a GPU."""
    from peaks import stepper

    step, batch = stepper(name, batch)
    step()
    step()
    with Roofline() as found:
        step()
    seconds = sum(found.seconds.values())
    most = {k: round(1e3 * v, 1) for k, v in sorted(found.seconds.items(), key=lambda item: -item[1])[:12]}
    images = round(batch / seconds)
    return dict(recipe=name, batch=batch, images_per_second=images, GB=round(found.bytes / 1e9), milliseconds=most)


if __name__ == '__main__':
    for word in sys.argv[1:]:
        recipe_name, _, images = word.partition(':')
        print(json.dumps(roofline(recipe_name, int(images) if images else None)), flush=True)
        torch.cuda.empty_cache()
