"""Data-parallel training on n GPUs: what the gradients, the input and the slowest GPU cost.

Step = slowest compute + optimizer + host + exposed communication, and no faster than the images can be read.
Every constant is a field of :class:`Assumptions` and printed with the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist

from mim_mm.cost.hardware import GPU
from mim_mm.cost.work import Work


@dataclass(frozen=True)
class Assumptions:
    """What the scaling model takes for granted.

    Attributes:
        node: GPUs of a node.
        link_efficiency: share of a link's rate that an all-reduce reaches.
        latency_us: of one hop of a ring or tree, microseconds.
        overlap: share of the backward pass behind which communication can hide.
        bucket_mb: the last bucket of gradients, which nothing hides.
        grad_bytes: bytes of a gradient on the wire; DDP sends what is in memory, fp32 under autocast.
        sigma: standard deviation of one GPU's compute time over its mean; steps wait for the slowest.
        host_ms: part of a step that does not depend on the batch (launches, Python), milliseconds.
        cores: CPU cores for each GPU; 0 for as many as are needed.
    """

    node: int = 8
    link_efficiency: float = 0.8
    latency_us: float = 10.0
    overlap: float = 0.8
    bucket_mb: float = 25.0
    grad_bytes: int = 4
    sigma: float = 0.02
    host_ms: float = 3.0
    cores: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f'{item.name}={value} must be a number, 0 or more')
        if self.node < 1 or not 0 < self.link_efficiency <= 1 or self.overlap > 1:
            raise ValueError(
                f'node={self.node} must be 1 or more, link_efficiency={self.link_efficiency} and '
                f'overlap={self.overlap} shares up to 1 (the first above 0)'
            )


@dataclass(frozen=True)
class Step:
    """Seconds of one step on n GPUs, and images a second of all of them."""

    gpus: int
    batch: float  # images on one GPU
    compute: float
    straggle: float  # what waiting for the slowest adds
    fixed: float  # optimizer and host
    reduce: float  # the all-reduce alone
    exposed: float  # what of it nothing hides
    loader: float  # time to read the batch, 0 when not limited
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.gpus * self.batch / self.seconds


def expected_maximum(count: int) -> float:
    """Mean of the largest of ``count`` independent standard normals, by Simpson's rule (error below 1e-6)."""
    if count <= 1:
        return 0.0
    normal, low, high, steps = NormalDist(), -9.0, 9.0, 3600
    width = (high - low) / steps
    total = 0.0
    for index in range(steps + 1):
        x = low + index * width
        value = x * count * normal.pdf(x) * normal.cdf(x) ** (count - 1)
        total += value * (1 if index in (0, steps) else 4 if index % 2 else 2)
    return total * width / 3


def all_reduce(size: float, gpus: int, gpu: GPU, nic: float, a: Assumptions) -> float:
    """Seconds to sum ``size`` bytes over all GPUs, first inside the nodes, then between them.

    Inside a node of g: a ring, ``2 (g-1)/g size / link`` and ``2 (g-1)`` hops. Between m nodes each GPU has its own
    share size/g and network port: ``2 (m-1)/m (size/g) / nic``, with ``2 (m-1)`` hops for a ring or ``2 ceil(log2
    m)`` for a tree, of which the shorter is taken (the bandwidth term is the same).
    """
    inside = min(gpus, a.node)
    nodes = math.ceil(gpus / a.node)
    seconds, hops = 0.0, 0.0
    if inside > 1:
        seconds += 2 * (inside - 1) / inside * size / (gpu.link * a.link_efficiency)
        hops += 2 * (inside - 1)
    if nodes > 1:
        seconds += 2 * (nodes - 1) / nodes * (size / inside) / (nic * a.link_efficiency)
        hops += min(2 * (nodes - 1), 2 * math.ceil(math.log2(nodes)))
    return seconds + hops * a.latency_us * 1e-6


def step(
    work: Work,
    gpu: GPU,
    gpus: int,
    batch: float,
    rate: float,
    loader: float,
    nic: float,
    a: Assumptions,
    states: int = 2,
) -> Step:
    """One training step.

    Args:
        work: what an image costs.
        gpus: n.
        batch: images on each GPU.
        rate: images a second that the kernels of one GPU do, without optimizer, host and network.
        loader: images a second that one CPU core reads.
        nic: bytes/s of the network for each GPU.
        states: fp32 values of the optimizer for each parameter.
    """
    compute = batch / rate
    straggle = compute * a.sigma * expected_maximum(gpus)
    # weights, gradient and states are read, weights and states written
    traffic = 4 * (2 + states) + 4 * (1 + states)
    fixed = work.trainable * traffic / gpu.bandwidth + a.host_ms * 1e-3
    size = work.trainable * a.grad_bytes
    whole = all_reduce(size, gpus, gpu, nic, a)
    last = all_reduce(min(size, a.bucket_mb * 1e6), gpus, gpu, nic, a)
    backward = compute * (1 - work.forward / work.train)
    exposed = max(last, whole - a.overlap * backward) if gpus > 1 else 0.0
    reading = batch / (a.cores * loader) if a.cores else 0.0
    seconds = max(compute + straggle + fixed + exposed, reading)
    return Step(gpus, batch, compute, straggle, fixed, whole, exposed, reading, seconds)


def kernel_rate(work: Work, gpu: GPU, seconds: float, batch: float, a: Assumptions, states: int = 2) -> float:
    """Images a second of the kernels alone, from the seconds of a whole step on one GPU with that batch.

    What a step costs besides is the model's; at most half of the step is believed to be that.
    """
    probe = step(work, gpu, 1, batch, 1e9, 1.0, gpu.nic, Assumptions(**{**vars(a), 'cores': 0.0}), states)
    return batch / max(seconds - probe.fixed, seconds / 2)


def curve(
    work: Work, gpu: GPU, counts: Sequence[int], total: int, rate: float, loader: float, nic: float, a: Assumptions,
    weak: bool = False, states: int = 2,
) -> list[Step]:  # fmt: skip
    """Steps for several numbers of GPUs.

    Args:
        total: images of a step on all GPUs together (the recipe's batch); with ``weak`` images on each GPU.
        weak: the batch grows with the number of GPUs.

    Numbers of GPUs that leave less than one image for each are left out.
    """
    chosen = [n for n in counts if weak or total >= n]
    return [step(work, gpu, n, total if weak else total / n, rate, loader, nic, a, states) for n in chosen]


def efficiencies(steps: Sequence[Step]) -> list[float]:
    """Images a second for each GPU over those of the first entry."""
    base = steps[0].images_per_second / steps[0].gpus if steps else 1.0
    return [s.images_per_second / s.gpus / base for s in steps]
