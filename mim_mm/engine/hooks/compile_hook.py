"""The training step as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from mim_mm.engine.bare_model import bare_model
from mim_mm.registry import HOOKS

# Modes of torch.compile whose graphs keep their results, gradients included, in memory that the next step writes over.
WITH_CUDA_GRAPHS = ('reduce-overhead', 'max-autotune')


@HOOKS.register_module()
class CompileHook(Hook):
    """Run the step from the mask on (``loss_under_plan`` of MAE and EMAE) as one graph of ``torch.compile``.

    Embedding and masking, a hundredth of the work, stay outside, with everything that is random: a compiled run sees
    the masks of an eager one and its loss differs by rounding only. A step that cannot be captured whole is an error,
    never a silent return to eager code. Packed plans (images that hide different numbers of patches) run eagerly.
    A batch of another size than the first (of this size of image) is compiled once more, for all sizes of batch.

    Under DDP torch cuts the graph where the buckets of gradients end, so that each is on its way while the backward
    pass goes on (docs/speed.md).

    Args:
        mode: of ``torch.compile``; 'reduce-overhead' adds CUDA graphs, which pays for small models and batches.
        backend: of ``torch.compile``.

    Raises:
        TypeError: before training, for an algorithm without ``loss_under_plan``.
        ValueError: before training, for a sharded model, or CUDA graphs with accumulated gradients.
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
        if isinstance(runner.model, FSDP):
            raise ValueError(
                'CompileHook (--compile): FSDP gathers the parameters of a block when it is called, which one graph of '
                'the whole step cannot hold: leave --compile out, or take the recipe without FSDP'
            )
        steps = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if self.mode in WITH_CUDA_GRAPHS and steps > 1:
            raise ValueError(
                f"CompileHook(mode='{self.mode}') with optim_wrapper.accumulative_counts={steps}: each micro-batch "
                'replays a CUDA graph that writes over the gradients of the one before: leave mode out, or set '
                'accumulative_counts=1 and a larger batch_size'
            )
        compiled = torch.compile(step, fullgraph=True, dynamic=False, mode=self.mode, backend=self.backend)
        model.captured = for_all_batches(compiled)

    def after_train(self, runner) -> None:
        model = bare_model(runner)
        model.captured = None  # a compiled function cannot be pickled with the model


def for_all_batches(compiled: Callable) -> Callable:
    """A step compiled for static shapes that takes batches of any size without being compiled for each.

    The first size, that of nearly all batches, has a graph of its own. From the second on the number of images is left
    open, in one more graph; torch gives up after eight.

    Args:
        compiled: a function of images (B, C, H, W), tokens (B, N, D) and a uniform plan.
    """
    first: dict[torch.Size, int] = {}

    def step(inputs: Tensor, tokens: Tensor, plan):
        if first.setdefault(inputs.shape[1:], len(inputs)) != len(inputs) and len(inputs) > 1:
            for tensor in (inputs, tokens, plan.order):
                torch._dynamo.mark_dynamic(tensor, 0)
        return compiled(inputs, tokens, plan)

    return step
