"""mmengine's FlexibleRunner, with the one moment that sharded training needs, and nothing ignored in silence."""

from __future__ import annotations

from functools import partial

from mmengine.runner import FlexibleRunner

from mim_mm.compat.internals import resumes
from mim_mm.registry import RUNNERS

# What Runner reads from a config and FlexibleRunner.from_cfg does not.
IGNORED = ['activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters']
IGNORED += ['model_wrapper_cfg', 'sync_bn']
# Hooks that copy the model or run parts of it outside of its forward pass, where its parameters are shards.
UNUSABLE_HOOKS = ('EMAHook', 'SWAHook')


@RUNNERS.register_module()
class ShardedRunner(FlexibleRunner):
    """Runs a config with ``strategy=dict(type='mim_mm.FSDPStrategy')``: ``runner_type='mim_mm.ShardedRunner'``.

    Hooks may have a method ``before_wrap(runner, model)``, called with the whole model on every rank after its
    initialisation, before it is sharded and before a checkpoint is loaded. Afterwards no process holds a whole
    parameter outside of the forward pass.

    Raises:
        ValueError: the config has a key or a hook that cannot work here.
    """

    def __init__(self, *args, cfg=None, **kwargs) -> None:
        ignored = [key for key in IGNORED if (cfg or {}).get(key)]
        if ignored:
            raise ValueError(
                f'{ignored} of the config would be ignored under {type(self).__name__}: remove it; activation '
                'checkpointing and wrapping are options of strategy (strategy.activation_checkpointing=True)'
            )
        super().__init__(*args, cfg=cfg, **kwargs)
        unusable = [type(hook).__name__ for hook in self.hooks if type(hook).__name__ in UNUSABLE_HOOKS]
        if unusable:
            raise ValueError(
                f'{unusable} copies the model, which no process holds under FSDP: remove it from custom_hooks, or '
                'train with a recipe without FSDP'
            )
        if hasattr(self.strategy, 'before_wrap'):
            self.strategy.before_wrap = partial(self.call_hook, 'before_wrap')

    @property
    def resuming(self) -> bool:
        """Whether this run goes on from a checkpoint of its own; ``iter`` is not known before that is loaded."""
        return resumes(self)
