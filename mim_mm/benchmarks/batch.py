"""The largest batch that trains on a GPU: doubled until the memory is full, then narrowed down."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mim_mm.benchmarks.contenders import ARCHS, model_config, ours
from mim_mm.benchmarks.step import machine


def largest(fits: Callable[[int], bool], start: int = 8, multiple: int = 8, limit: int = 1 << 16) -> int:
    """The largest multiple of ``multiple`` for which ``fits`` holds, taking for granted that less always fits too.

    Args:
        fits: called with a batch; may be expensive, so it is asked about twice the binary logarithm of the answer.
        start: first batch that is tried, rounded to the multiple.

    Returns:
        0 when not even ``multiple`` fits.
    """
    step = max(1, start // multiple)
    low = 0  # in multiples, fits
    while step * multiple <= limit and fits(step * multiple):
        low, step = step, 2 * step
    high = step  # does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * multiple) else (low, middle)
    return low * multiple


def arguments(parser) -> None:
    """The options of ``tools/benchmark.py batch``."""
    add = parser.add_argument
    add('--arch', choices=ARCHS, default='B/16')
    add('--parts', type=int, default=4, metavar='K')
    add('--size', type=int, default=224)
    add('--reserve', type=float, default=0.05, metavar='SHARE', help='memory that shall stay free, for fragmentation')
    add('--compile', action='store_true')


def execute(args, say: Callable[[str], None]) -> dict:
    """Needs CUDA: on a CPU memory is not a limit that can be asked for."""
    if not torch.cuda.is_available():
        raise SystemExit('error: no CUDA device: the batch finder measures GPU memory; on a CPU choose by time')
    device = torch.device('cuda')
    arch, patch = ARCHS[args.arch]
    contender = ours(model_config(arch, args.parts, args.size, patch), torch.bfloat16, device, args.compile)
    total = torch.cuda.get_device_properties(device).total_memory
    peaks = {}

    def fits(batch: int) -> bool:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            images = torch.zeros(batch, 3, args.size, args.size, dtype=torch.uint8, device=device)
            for _ in range(2):
                contender.step(images)
            torch.cuda.synchronize()
        except torch.cuda.OutOfMemoryError:
            contender.wrapper.zero_grad()
            say(f'batch {batch}: out of memory')
            return False
        peaks[batch] = torch.cuda.max_memory_reserved()
        say(f'batch {batch}: {peaks[batch] / 2**30:.1f} GiB')
        return peaks[batch] <= (1 - args.reserve) * total

    found = largest(fits)
    memory = peaks.get(found, 0) / 2**30
    what = f'{args.arch}, K={args.parts}, {args.size} px'
    text = f'largest batch {found} ({memory:.1f} of {total / 2**30:.1f} GiB), {what}'
    return dict(text=text, batch=found, peak_gib=memory, machine=machine(device), options=vars(args))
