"""What the device reaches at best: matrix products, copies, attention. Nothing of ours can be faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from mim_mm.benchmarks.timing import Timing, take_turns

BACKENDS = dict(
    flash=SDPBackend.FLASH_ATTENTION,
    cudnn=SDPBackend.CUDNN_ATTENTION,
    efficient=SDPBackend.EFFICIENT_ATTENTION,
    plain=SDPBackend.MATH,
)


def products(
    shapes: Sequence[tuple[int, int, int]], device: torch.device, dtype: torch.dtype, rounds: int, say: Callable
) -> list[dict]:
    """TFLOP/s of (M, K) @ (K, N) for each (M, K, N)."""
    found = []
    for m, k, n in shapes:
        left, right = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
        name = f'{m:,} x {k:,} x {n:,}'
        timing = take_turns({name: lambda a=left, b=right: a @ b}, device, rounds, 3, 2, say=say)[name]
        found.append(_row(name, timing, lambda t, w=2 * m * k * n: dict(tflops=w / t / 1e12)))
        del left, right
    return found


def copies(size: int, device: torch.device, rounds: int, say: Callable) -> dict:
    """GB/s, read and written, of copying a tensor of ``size`` bytes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    name = f'copy of {size / 2**20:,.0f} MiB'
    timing = take_turns({name: lambda: target.copy_(source)}, device, rounds, 3, 2, say=say)[name]
    return _row(name, timing, lambda t: dict(gb_s=2 * size / t / 1e9))


def attention(
    shapes: dict[str, tuple[int, int, int, int]], device: torch.device, dtype: torch.dtype, rounds: int, say: Callable
) -> list[dict]:
    """Milliseconds of attention, forward and backward, by backend.

    Args:
        shapes: name -> (sequences, heads, tokens, channels of a head).
    """
    found = []
    for what, shape in shapes.items():
        q, k, v = (torch.randn(shape, device=device).to(dtype).requires_grad_() for _ in range(3))
        upstream = torch.randn(shape, device=device).to(dtype)
        contenders = {f'{what}, {name}': _attend(q, k, v, upstream, backend) for name, backend in BACKENDS.items()}
        contenders[f"{what}, torch's choice"] = _attend(q, k, v, upstream, None)
        timings = take_turns(contenders, device, rounds, 3, 2, say=say)
        found += [_row(name, timing, lambda t: dict(ms=1e3 * t)) for name, timing in timings.items()]
    return found


def _attend(q: Tensor, k: Tensor, v: Tensor, upstream: Tensor, backend: SDPBackend | None) -> Callable[[], None]:
    def once() -> None:
        if backend is None:
            out = scaled_dot_product_attention(q, k, v)
        else:
            with sdpa_kernel(backend):
                out = scaled_dot_product_attention(q, k, v)
        torch.autograd.grad(out, (q, k, v), upstream)

    return once


def _row(name: str, timing: Timing | str, figures: Callable[[float], dict]) -> dict:
    if isinstance(timing, str):
        return dict(name=name, error=timing)
    return dict(name=name, spread=timing.spread, **figures(timing.median))
