"""Parts of a model that keep their weights during the first epochs."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook

from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.hooks.clock_hook import epoch_length
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class FreezeHook(Hook):
    """Take the gradients of some parameters away before each optimizer step of the first epochs.

    Between backward and step, as DINO and iBOT do with the last layer of the head: without gradient there is neither
    an update nor weight decay nor a moment, while DDP still sees every parameter in every step. Gradients are clipped
    before. With accumulation, epochs are those of the iteration of the step.

    Args:
        parts: names, or parts of names, of parameters; each must be found.
        epochs: how many; epochs 0 .. epochs - 1 are frozen.

    Raises:
        ValueError: nothing has such a name, or the training loader has no length.
    """

    priority = 'NORMAL'

    def __init__(self, parts: Sequence[str] = ('last_layer',), epochs: int = 1) -> None:
        if epochs < 0 or not parts or isinstance(parts, str):
            raise ValueError(f'parts={parts!r}, epochs={epochs}: name a list of parameters, and 0 or more epochs')
        self.parts, self.epochs = tuple(parts), epochs

    def before_train(self, runner) -> None:
        named = list(bare_model(runner).named_parameters())
        missing = [part for part in self.parts if not any(part in name for name, _ in named)]
        if missing:
            raise ValueError(f'FreezeHook: no parameter of {type(bare_model(runner)).__name__} is called {missing}')
        if self.epochs and not epoch_length(runner):
            raise ValueError(
                f'FreezeHook freezes {self.parts} for {self.epochs} epochs, and the training loader has no length: '
                'give a data set with a length, or epochs=0'
            )
        frozen = [parameter for name, parameter in named if any(part in name for part in self.parts)]

        def take_away(optimizer, args, kwargs) -> None:
            if runner.iter // epoch_length(runner) < self.epochs:
                for parameter in frozen:
                    parameter.grad = None

        self.handle = runner.optim_wrapper.optimizer.register_step_pre_hook(take_away) if self.epochs else None

    def after_train(self, runner) -> None:
        if self.handle is not None:
            self.handle.remove()
