"""Optimizer groups for many heads trained together, each with its own learning rate."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mim_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ProbeHeadsConstructor(DefaultOptimWrapperConstructor):
    """Learning rate of a head = ``optimizer.lr`` x the head's own rate; nothing but the heads is optimised.

    The heads' rates are for 256 images, so ``optimizer.lr`` is the batch / 256 and ``--auto-scale-lr`` scales all.
    The model offers ``param_groups()``, a list of dicts with ``params``, ``name`` and ``lr_scale``.

    Raises:
        TypeError: The model has no ``param_groups``.
        ValueError: ``paramwise_cfg`` is given; gradients are clipped (by the norm over all heads, which would couple
            them); a trainable parameter belongs to no head, or to two.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        if paramwise_cfg:
            raise ValueError(f'paramwise_cfg={paramwise_cfg}: the rates are those of model.head.lrs; leave it out')
        if optim_wrapper_cfg.get('clip_grad'):
            raise ValueError(
                f'clip_grad={optim_wrapper_cfg["clip_grad"]} clips by the norm over all heads, so that one head would '
                'change the others: set it to None'
            )
        # An empty dict would make mmengine hand over all parameters in one group, without asking add_params.
        super().__init__(optim_wrapper_cfg, {'heads': True})
        if self.base_lr is None:
            raise ValueError('optimizer.lr is missing: set it to the batch / 256')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append one group a learning rate to ``params``: ``heads`` names those in it.

        One group a head would be the same arithmetic, in twelve times as many small steps on a GPU.
        """
        if not hasattr(module, 'param_groups'):
            raise TypeError(f'{type(module).__name__} has no param_groups(): this constructor is for mim_mm.MultiProbe')
        heads = module.param_groups()
        groups = []
        for scale in dict.fromkeys(head['lr_scale'] for head in heads):
            same = [head for head in heads if head['lr_scale'] == scale]
            tensors = [p for head in same for p in head['params']]
            names = [head['name'] for head in same]
            groups.append(dict(params=tensors, heads=names, lr_scale=scale, lr=self.base_lr * scale))
        grouped = [id(p) for group in groups for p in group['params']]
        trainable = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
        if sorted(grouped) != sorted(trainable):
            lost = [name for key, name in trainable.items() if grouped.count(key) != 1]
            raise ValueError(
                f'every trainable parameter must belong to exactly one head; wrong: {lost or "frozen ones"}'
            )
        params += groups
        rates = sorted(group['lr'] for group in groups)
        print_log(f'{len(heads)} heads, learning rates {rates[0]:.3g} to {rates[-1]:.3g}', logger='current')
