"""bf16 autocast without a loss scaler, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from mim_mm.engine.optim.clipping import clip_each_
from mim_mm.registry import OPTIM_WRAPPERS


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices itself; without that, autocast is about four times slower."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return False
    return 'amx_bf16' in text or 'avx512_bf16' in text


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Forward passes under autocast, plain backward.

    bf16 has the range of fp32, so it needs no scaler and none of its host synchronisations. mmengine's
    ``AmpOptimWrapper`` builds one anyway and refuses to run on a CPU.

    Args:
        dtype: 'bfloat16', or 'float32' for no autocast. (fp16 needs a scaler: use ``AmpOptimWrapper``.)
        clip_grad: as mmengine's, or ``dict(type='tensor', max_norm=3.0)``: each gradient by itself, see
            :func:`mim_mm.engine.optim.clipping.clip_each_`. Parameter groups with ``clip=False`` (``custom_keys`` of
            ``LayerDecayConstructor``) are neither clipped nor counted in the norm.
        on_cpu: 'auto' uses autocast on processors with bf16 matrix instructions only; True or False force it.
        **kwargs: as mmengine's ``OptimWrapper``.

    Raises:
        ValueError: for another dtype.
        RuntimeError: on a GPU without bf16.
    """

    def __init__(
        self, dtype: str = 'bfloat16', on_cpu: bool | str = 'auto', clip_grad: dict | None = None, **kwargs
    ) -> None:
        each = bool(clip_grad) and clip_grad.get('type') == 'tensor'
        super().__init__(clip_grad=dict(clip_grad, type='norm') if each else clip_grad, **kwargs)
        if each:
            self.clip_func = clip_each_
        if dtype not in ('bfloat16', 'float32'):
            raise ValueError(
                f"dtype is '{dtype}': this wrapper has no loss scaler, which only bfloat16 can do without; "
                'for fp16 use optim_wrapper.type=AmpOptimWrapper, for no autocast float32'
            )
        if on_cpu not in (True, False, 'auto'):
            raise ValueError(f"on_cpu is {on_cpu!r}: use True, False or 'auto'")
        self.device_type = get_device().split(':')[0]
        self.enabled = dtype == 'bfloat16'
        if not self.enabled:
            return
        if self.device_type == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise RuntimeError(
                f'{torch.cuda.get_device_name()} has no bf16: train in fp16 with --cfg-options '
                'optim_wrapper.type=AmpOptimWrapper, or in fp32 with optim_wrapper.type=OptimWrapper'
            )
        if self.device_type == 'cpu':
            self.enabled = cpu_has_bf16() if on_cpu == 'auto' else on_cpu
            if not self.enabled:
                print_log('This CPU has no bf16 matrix instructions: training in fp32', logger='current')

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass and the loss."""
        with super().optim_context(model), torch.autocast(self.device_type, torch.bfloat16, enabled=self.enabled):
            yield

    def _clip_grad(self) -> None:
        """As mmengine's, of the groups that are to be clipped."""
        everything = self.optimizer.param_groups
        self.optimizer.param_groups = [group for group in everything if group.get('clip', True)]
        try:
            super()._clip_grad()
        finally:
            self.optimizer.param_groups = everything
