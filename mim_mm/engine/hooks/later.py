"""Numbers of the device that the host reads when they have arrived."""

from __future__ import annotations

import torch
from torch import Tensor


class Later:
    """A copy of a small tensor on its way to the host; of a tensor on a CPU, the values of now.

    Args:
        values: 1-D.
    """

    def __init__(self, values: Tensor) -> None:
        values = values.detach()
        if values.device.type != 'cuda':
            self._there, self._event = values.clone(), None
            return
        self._there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._there.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    @property
    def arrived(self) -> bool:
        """Whether :meth:`tolist` would not wait."""
        return self._event is None or self._event.query()

    def tolist(self) -> list:
        """The numbers; waits for the device if they have not arrived."""
        if not self.arrived:
            self._event.synchronize()
        return self._there.tolist()
