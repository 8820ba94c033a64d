"""FSDP from where mmengine and torch keep it: packages whose names say that they may move."""

from mmengine._strategy import FSDPStrategy
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

__all__ = ['FSDPStrategy', 'apply_activation_checkpointing']
