"""What a GPU can do at most, from its maker's data sheet; dense figures (sparsity doubles what some sheets
advertise)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """Peaks of one GPU.

    Attributes:
        name: in full.
        bf16: dense matrix rate in bf16 (fp16 where there is no bf16), FLOP/s, fp32 accumulation.
        fp32: fp32 rate without tensor cores, FLOP/s.
        memory: bytes.
        bandwidth: of the memory, bytes/s.
        power: board limit in watts.
        link: to GPUs of the same node, bytes/s in one direction.
        nic: of a usual cluster node's network for each GPU, bytes/s; not a property of the GPU, hence adjustable.
    """

    name: str
    bf16: float
    fp32: float
    memory: float
    bandwidth: float
    power: float
    link: float
    nic: float
    note: str = ''


def _gpu(name, bf16, fp32, memory, bandwidth, power, link, gbit, note='') -> GPU:
    """TFLOP/s, TFLOP/s, GB, TB/s, W, GB/s, Gbit/s."""
    return GPU(name, bf16 * 1e12, fp32 * 1e12, memory * 1e9, bandwidth * 1e12, power, link * 1e9, gbit / 8 * 1e9, note)


GPUS = {
    # NVIDIA V100 data sheet (SXM2): 125 TFLOP/s tensor fp16, NVLink 300 GB/s both ways.
    'v100': _gpu('V100 SXM2 32 GB', 125, 15.7, 32, 0.9, 300, 150, 25, 'no bf16: the peak is that of fp16'),
    # NVIDIA A100 data sheet (SXM4): 312 dense, NVLink 600 GB/s both ways; 40 GB: 1555 GB/s, 80 GB: 2039 GB/s.
    'a100-40': _gpu('A100 SXM4 40 GB', 312, 19.5, 40, 1.555, 400, 300, 200),
    'a100-80': _gpu('A100 SXM4 80 GB', 312, 19.5, 80, 2.039, 400, 300, 200),
    # NVIDIA H100 data sheet: SXM5 1979 with sparsity = 989 dense, NVLink 900 GB/s both ways; PCIe 1513 = 756 dense.
    'h100': _gpu('H100 SXM5 80 GB', 989, 67, 80, 3.35, 700, 450, 400),
    'h100-pcie': _gpu('H100 PCIe 80 GB', 756, 51, 80, 2.0, 350, 50, 200),
    # NVIDIA H200 data sheet (SXM): the H100's rates, 141 GB at 4.8 TB/s.
    'h200': _gpu('H200 SXM 141 GB', 989, 67, 141, 4.8, 700, 450, 400),
    # NVIDIA HGX B200 data sheet, an eighth of it: 4.5 PFLOP/s with sparsity = 2250 dense, NVLink 1.8 TB/s both ways.
    'b200': _gpu('B200 SXM 180 GB', 2250, 75, 180, 8.0, 1000, 900, 400),
    # GA102 whitepaper: 71 TFLOP/s with fp32 accumulation. Consumer cards: PCIe 4 x16, about 25 GB/s, no peer access.
    'rtx3090': _gpu('GeForce RTX 3090', 71, 35.6, 24, 0.936, 350, 25, 10),
    # Ada whitepaper: 165.2 TFLOP/s with fp32 accumulation.
    'rtx4090': _gpu('GeForce RTX 4090', 165.2, 82.6, 24, 1.008, 450, 25, 10),
    # NVIDIA L40S data sheet: 733 with sparsity = 366 dense; L4: 242 = 121 dense. PCIe 4 x16.
    'l40s': _gpu('L40S 48 GB', 366, 91.6, 48, 0.864, 350, 25, 100),
    'l4': _gpu('L4 24 GB', 121, 30.3, 24, 0.3, 72, 25, 100),
}


def gpu(name: str) -> GPU:
    """The GPU called so.

    Raises:
        ValueError: not in the table; the message lists those that are.
    """
    if name.lower() not in GPUS:
        raise ValueError(f'GPU {name!r} is not in the table: known are {", ".join(GPUS)} (mim_mm/cost/hardware.py)')
    return GPUS[name.lower()]
