"""Fully sharded training (FSDP) with ordinary checkpoints: what mmengine's strategy lacks for that."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import mmengine
import torch
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.optim import BaseOptimWrapper, build_optim_wrapper
from mmengine.runner.checkpoint import save_checkpoint
from mmengine.utils import get_git_hash
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from mim_mm.checkpoint.read import read_content
from mim_mm.compat.sharding import FSDPStrategy as _FSDPStrategy
from mim_mm.compat.sharding import apply_activation_checkpointing
from mim_mm.registry import STRATEGIES

_WRAPPERS = ('_fsdp_wrapped_module.', '_checkpoint_wrapped_module.')


def plain_name(name: str) -> str:
    """A parameter's name without what FSDP and activation checkpointing put into it."""
    for part in _WRAPPERS:
        name = name.replace(part, '')
    return name


def clip_sharded_norm(model: FSDP, params: list, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
    """Clip by the norm of the whole gradient; torch's own function would see this rank's shard only.

    Args:
        params: not used: the norm is over all parameters of ``model``.

    Returns:
        The norm before clipping, equal on all ranks.
    """
    return model.clip_grad_norm_(max_norm, norm_type)


@STRATEGIES.register_module()
class FSDPStrategy(_FSDPStrategy):
    """Shard parameters, gradients and optimizer state over all processes, one transformer block at a time.

    A checkpoint is what a run without sharding writes: one file, full tensors, plain names, an optimizer state that
    any number of processes, sharded or not, can resume. All ranks help to gather it, the first one writes it,
    atomically. What is different from mmengine's strategy of the same name:

    - Parameter groups are made before wrapping. Afterwards every parameter is a flat piece of one dimension, and rules
      by dimension (no decay for biases and norms) would apply to all of them.
    - ``clip_grad`` clips by the norm over all ranks.
    - Every block of a class in ``blocks`` is a unit of its own; none found is an error, as is a block that was to be
      checkpointed and is not.
    - A resumed checkpoint must match the model; it is read by memory mapping, so that the ranks of a node share it.
    - Runs on the CPU (gloo) as well.

    Args:
        blocks: names of the classes of the transformer blocks.
        activation_checkpointing: recompute each block in the backward pass: activations of one block instead of all.
        model_wrapper: further arguments of ``MMFullyShardedDataParallel``, such as ``sharding_strategy``,
            ``cpu_offload`` or ``mixed_precision``.
        **kwargs: as mmengine's ``FSDPStrategy``.

    Raises:
        ValueError: an argument that this class sets itself.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] = ('TransformerEncoderLayer',),
        activation_checkpointing: bool = False,
        model_wrapper: dict | None = None,
        **kwargs,
    ) -> None:
        wrapper = dict(model_wrapper or {})
        taken = {'auto_wrap_policy', 'use_orig_params', 'device_id'} & set(wrapper)
        taken |= {'state_dict_cfg', 'skip_init_weights'} & set(kwargs)
        if taken:
            raise ValueError(
                f'strategy sets {sorted(taken)}, which FSDPStrategy chooses itself: leave it out (blocks=[...] says '
                'what is wrapped; checkpoints are always whole)'
            )
        if not isinstance(activation_checkpointing, bool):
            raise ValueError(
                f'activation_checkpointing is {activation_checkpointing!r}: True or False; blocks says of what'
            )
        super().__init__(model_wrapper=wrapper, state_dict_cfg='full', **kwargs)
        if not is_distributed():
            raise ValueError('FSDPStrategy shards over processes: start it with tools/dist_train.sh CONFIG GPUS')
        # torch gathers all optimizer states in one buffer, and "offloading" from CPU to CPU does not copy out of it, so
        # that every exp_avg would be saved as exp_avg_sq. Without offloading it is cloned.
        self.optim_state_dict_config.offload_to_cpu = get_device() != 'cpu'
        self.blocks = tuple(blocks)
        self.checkpoint_blocks = activation_checkpointing
        # Called with the bare model between initialisation and wrapping; ShardedRunner asks its hooks.
        self.before_wrap: Callable[..., None] | None = None
        self._optim_cfg: dict | None = None
        self._resuming = False

    def prepare(self, model: nn.Module | dict, *, optim_wrapper=None, **kwargs):
        """As mmengine's; the optimizer must come as a config."""
        if isinstance(optim_wrapper, BaseOptimWrapper):
            raise ValueError('FSDPStrategy builds the optimizer itself, before wrapping: give optim_wrapper as a dict')
        self._optim_cfg = optim_wrapper
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def _wrap_model(self, model: nn.Module) -> FSDP:
        if getattr(getattr(model, 'masker', None), 'needs_attention', False):
            raise ValueError(
                f'{type(model.masker).__name__} reads the attention of a block, whose weights FSDP gathers for '
                "the block's own forward only: train it with a recipe without FSDP, or take another masker"
            )
        if getattr(model, 'teachers', ()):
            raise ValueError(
                f'{type(model).__name__} has a teacher that follows the encoder weight by weight, and FSDP cuts both '
                'into shards of their own: train it with a recipe without FSDP'
            )
        if self.before_wrap is not None:
            self.before_wrap(model=model)
        kinds = {type(m) for m in model.modules() if type(m).__name__ in self.blocks}
        if not kinds:
            raise ValueError(
                f'{type(model).__name__} has no module of a class in strategy.blocks={list(self.blocks)}: name the '
                'class of its transformer blocks'
            )
        if self._optim_cfg is not None:
            self._group_parameters(model)
        count = sum(type(m) in kinds for m in model.modules())
        self.model_wrapper = dict(
            self.model_wrapper,
            type='MMFullyShardedDataParallel',
            auto_wrap_policy=ModuleWrapPolicy(kinds),
            use_orig_params=True,
            **({'device_id': torch.device('cpu')} if get_device() == 'cpu' else {}),
        )
        wrapped = super()._wrap_model(model)
        if self.checkpoint_blocks:
            apply_activation_checkpointing(wrapped, check_fn=lambda module: type(module) in kinds)
        done = sum('_checkpoint_wrapped_module' in dict(m.named_children()) for m in wrapped.modules())
        if done != (count if self.checkpoint_blocks else 0):
            raise RuntimeError(f'{done} of {count} blocks are checkpointed: nested blocks cannot be')
        self.logger.info(f'FSDP: {count} blocks sharded one by one, {done} of them recomputed in the backward pass')
        return wrapped

    # ---- optimizer

    def _group_parameters(self, model: nn.Module) -> None:
        """Build the optimizer on the bare model, and remember which parameters are in which group by their names."""
        cfg = self._optim_cfg
        if cfg.get('type') == 'AmpOptimWrapper':
            cfg.setdefault('use_fsdp', True)
        names = {id(param): name for name, param in model.named_parameters()}
        self._built = build_optim_wrapper(model, cfg)
        self.group_names = [[names[id(p)] for p in g['params']] for g in self._built.optimizer.param_groups]

    def build_optim_wrapper(self, optim_wrapper: dict, model: nn.Module | None = None) -> BaseOptimWrapper:
        """The optimizer of :meth:`_group_parameters`, with the sharded parameters in place of the whole ones."""
        built, sharded = self._built, {plain_name(name): p for name, p in model.named_parameters()}
        for group, names in zip(built.optimizer.param_groups, self.group_names, strict=True):
            group['params'] = [sharded[name] for name in names]
        if built.clip_grad_kwargs and built.clip_func is torch.nn.utils.clip_grad_norm_:
            unknown = sorted(set(built.clip_grad_kwargs) - {'max_norm', 'norm_type'})
            if unknown:
                raise ValueError(f'clip_grad has {unknown}: with FSDP only max_norm and norm_type can be set')
            built.clip_func = partial(clip_sharded_norm, model)
        return built

    # ---- checkpoints

    def optim_state_dict(self) -> dict:
        """The state of the unsharded optimizer, as ``OptimWrapper.state_dict`` gives it; empty on all but rank 0."""
        full = FSDP.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        if not is_main_process():
            return {}
        ids = {name: i for i, name in enumerate(n for names in self.group_names for n in names)}
        groups = [
            {**{k: v for k, v in group.items() if k != 'params'}, 'params': [ids[name] for name in names]}
            for group, names in zip(self.optim_wrapper.optimizer.param_groups, self.group_names, strict=True)
        ]
        state = {ids[name]: full['state'][name] for name in ids if name in full['state']}
        base = self.optim_wrapper.base_param_settings
        return {**({} if base is None else {'base_param_settings': base}), 'state': state, 'param_groups': groups}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Take a whole optimizer state, of a sharded run or not.

        Raises:
            ValueError: the groups are not those of this run.
        """
        state_dict = dict(state_dict)
        base = state_dict.pop('base_param_settings', None)
        sizes = [len(group['params']) for group in state_dict['param_groups']]
        if sizes != [len(names) for names in self.group_names]:
            raise ValueError(
                f'the checkpoint has parameter groups of {sizes} tensors, this run of '
                f'{[len(names) for names in self.group_names]}: resume with the optim_wrapper of that run'
            )
        names = {}
        groups = []
        for group, own in zip(state_dict['param_groups'], self.group_names, strict=True):
            names.update(zip(group['params'], own, strict=True))
            groups.append({**group, 'params': own})
        state = {names[i]: dict(value) for i, value in state_dict['state'].items()}
        sharded = FSDP.optim_state_dict_to_load(
            model=self.model,
            optim=self.optim_wrapper.optimizer,
            optim_state_dict={'state': state, 'param_groups': groups},
        )
        self.optim_wrapper.load_state_dict({**sharded, **({} if base is None else {'base_param_settings': base})})

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: dict | None = None,
        callback: Callable[[dict], None] | None = None,
    ) -> None:
        """Gather everything on the first rank, which writes it to ``filename`` by rename. Called by all ranks."""
        content = {'state_dict': self.model_state_dict()}
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            content['optimizer'] = self.optim_state_dict()
        if not is_main_process():
            return
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            content['param_schedulers'] = self.scheduler_state_dict()
        content.update(extra_ckpt or {})
        content['meta'] = dict(
            content.get('meta') or {},
            seed=self.seed,
            time=time.strftime('%Y%m%d_%H%M%S', time.localtime()),
            mmengine_version=mmengine.__version__ + get_git_hash(),
        )
        if callback is not None:
            callback(content)
        save_checkpoint(content, filename, backend_args=dict(backend='atomic_local'))

    def resume(self, filename: str, **kwargs) -> dict:
        """As mmengine's, but the weights must fit exactly."""
        self._resuming = True
        try:
            return super().resume(filename, **kwargs)
        finally:
            self._resuming = False

    def load_checkpoint(self, filename: str, *, callback: Callable | None = None, strict=False, **kwargs) -> dict:
        """Load a whole checkpoint on every rank, from local files without a copy of it in each process."""
        if not Path(filename).is_file():
            kwargs['map_location'] = 'cpu'
            return super().load_checkpoint(filename, callback=callback, strict=strict, **kwargs)
        self.logger.info(f'Load checkpoint from {filename}')
        checkpoint = read_content(filename, mmap=True)
        if callback is not None:
            callback(checkpoint)
        weights = checkpoint.pop('state_dict') if 'state_dict' in checkpoint else checkpoint
        self.load_model_state_dict(weights, strict=strict or self._resuming)
        return checkpoint

    def load_model_state_dict(
        self, state_dict: dict, *, strict: bool = False, revise_keys: Sequence = ((r'^module\.', ''),)
    ) -> None:
        """Load whole tensors into the sharded model; what was not filled or not used is logged.

        Raises:
            RuntimeError: ``strict`` and the names differ; a shape differs; nothing fits.
        """
        for pattern, replacement in revise_keys:
            state_dict = {re.sub(pattern, replacement, name): value for name, value in state_dict.items()}
        result = self.model.load_state_dict(state_dict, strict=strict)
        if len(result.unexpected_keys) == len(state_dict):
            raise RuntimeError(
                f'no name of the checkpoint ({", ".join(list(state_dict)[:3])} ...) is one of the model '
                f'({", ".join(result.missing_keys[:3])} ...): to start from an encoder use mim_mm.LoadPretrainedHook'
            )
        for what, keys in (('not filled', result.missing_keys), ('not used', result.unexpected_keys)):
            if keys:
                self.logger.warning(f'{len(keys)} parameters were {what}: {", ".join(map(plain_name, keys))}')
