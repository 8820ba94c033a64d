"""Leave every random state as it was found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def generators_of(model: nn.Module | None) -> list[torch.Generator]:
    """Generators that modules of a model hold as attributes, such as the one that pretraining draws its masks from."""
    if model is None:
        return []
    return [v for module in model.modules() for v in vars(module).values() if isinstance(v, torch.Generator)]


@contextmanager
def preserved_random_state(model: nn.Module | None = None) -> Iterator[None]:
    """What is drawn inside does not change what is drawn afterwards.

    Covers Python's ``random``, numpy's global state, torch's generator of the CPU and of every CUDA device that is in
    use, and the generators of ``model`` (see :func:`generators_of`), also when the block raises.
    """
    own = [(generator, generator.get_state()) for generator in generators_of(model)]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # Asking would set CUDA up in a process that does not use it.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for generator, state in own:
            generator.set_state(state)
