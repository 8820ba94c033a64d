"""The training step as one compiled graph."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook

from mim_mm.engine.bare_model import bare_model
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Run the step from the mask on (``loss_under_plan`` of MAE and EMAE) as one graph of ``torch.compile``.

    Embedding and masking, a hundredth of the work, stay outside, with everything that is random: a compiled run sees
    the masks of an eager one and its loss differs by rounding only. A step that cannot be captured whole is an error,
    never a silent return to eager code. Packed plans (images that hide different numbers of patches) run eagerly.

    Args:
        mode: of ``torch.compile``; 'reduce-overhead' adds CUDA graphs, which pays for small models and batches.
        backend: of ``torch.compile``.

    Raises:
        TypeError: before training, for an algorithm without ``loss_under_plan``.
    """

    # Before ClockHook and all others that look at the model.
    priority = 'HIGHEST'

    def __init__(self, mode: str | None = None, backend: str = 'inductor') -> None:
        self.mode = mode
        self.backend = backend

    def before_train(self, runner) -> None:
        model = bare_model(runner)
        step = getattr(model, 'loss_under_plan', None)
        if step is None:
            raise TypeError(
                f'{type(model).__name__} has no loss_under_plan to compile: leave CompileHook (--compile) out; '
                'MAE and EMAE have one'
            )
        model.captured = torch.compile(step, fullgraph=True, dynamic=False, mode=self.mode, backend=self.backend)

    def after_train(self, runner) -> None:
        model = bare_model(runner)
        model.captured = None  # a compiled function cannot be pickled with the model
