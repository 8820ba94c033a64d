"""How exact products of fp32 matrices are on a GPU."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook

from mim_mm.registry import HOOKS

PRECISIONS = ('highest', 'high')


@HOOKS.register_module()
class MatmulPrecisionHook(Hook):
    """Products of fp32 matrices by the tensor cores, in TF32 (10 bits behind the point), during training.

    A switch, off by default, in ``custom_hooks``: ``dict(type='mim_mm.MatmulPrecisionHook', precision='high')``. It is
    meant for the prediction head of EMAE's recipes (``decoder.fp32_head``), 0.6 % of a step's FLOPs, which without
    tensor cores take an H100 fifteen times as long as with bf16's. What else is fp32 under autocast changes with it:
    the affinities of salience masks, the heads of the quick probe. docs/speed.md says what TF32 does to the floor of
    the consistency term. No effect on a CPU, where torch knows no TF32.

    Args:
        precision: 'high' (TF32) or 'highest' (fp32), of ``torch.set_float32_matmul_precision``.

    Raises:
        ValueError: another precision; 'medium' would be bf16, which the head is in fp32 to avoid.
    """

    priority = 'HIGHEST'  # before CompileHook, whose graphs are made for one precision

    def __init__(self, precision: str = 'high') -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"MatmulPrecisionHook: precision is {precision!r}: use 'high' (TF32) or 'highest' (fp32)")
        self.precision = precision
        self.before: str | None = None

    def before_train(self, runner) -> None:
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.precision)

    def after_train(self, runner) -> None:
        torch.set_float32_matmul_precision(self.before)
