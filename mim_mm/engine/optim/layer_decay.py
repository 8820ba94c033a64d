"""Parameter groups with layer-wise learning rates and exact rules for weight decay, merged into few groups."""

from __future__ import annotations

from collections.abc import Callable

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from mim_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
OPTIONS = {'layer_decay_rate', 'norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult', 'no_decay', 'custom_keys'}
NO_DECAY = ('pos_embed', 'cls_token', 'register_tokens', 'mask_token')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Learning rate of a layer = lr * rate ** (layers above it), as in BEiT and MAE; works for detectors too.

    ``paramwise_cfg`` may hold:

    - ``layer_decay_rate`` (float, default 1): the scale is rate ** (depth + 1 - id) with id 0 for patch embedding,
      class token and positions, i + 1 for block i, depth + 1 for everything above. The model must offer
      ``get_layer_depth`` when the rate is not 1.
    - ``no_decay`` (names, default pos_embed, cls_token, register_tokens, mask_token): parameters, or modules, without
      weight decay.
      A name matches whole dotted parts of a parameter name, so ``pos_embed`` finds ``backbone.pos_embed`` as well
      (upstream's constructors miss it in a detector) and ``ln1`` does not find ``ln12``.
    - ``norm_decay_mult``, ``bias_decay_mult``, ``flat_decay_mult`` (float): weight decay factor of norms, of biases
      outside of norms, of other parameters with one dimension.
    - ``custom_keys`` (dict): substring of a name -> dict(lr_mult, decay_mult, anything else the optimizer reads, such
      as ``lars_exclude``). The longest substring wins, and the other decay rules are then not applied.

    Differences from mmpretrain's constructor of the same purpose: parameters with equal settings share one group (28
    groups for ViT-B instead of 152), and unknown options are refused.

    Raises:
        ValueError: Unknown option; layer decay asked for, but all parameters report the same depth.
        NotImplementedError: Layer decay asked for, but the model cannot tell the depth of its parameters.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        # An empty dict would make mmengine hand all parameters, frozen ones included, to the optimizer.
        paramwise_cfg = dict(paramwise_cfg or {'layer_decay_rate': 1.0})
        unknown = sorted(set(paramwise_cfg) - OPTIONS)
        if unknown:
            raise ValueError(f'paramwise_cfg has unknown keys {unknown}: use {sorted(OPTIONS)}.')
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Append the groups of ``module``'s trainable parameters to ``params``."""
        rate = self.paramwise_cfg.get('layer_decay_rate', 1.0)
        depth_of = self._depth_function(module, rate)
        groups: dict[tuple, dict] = {}
        layers = set()
        seen = set()
        for owner_name, owner in module.named_modules():
            for short_name, param in owner.named_parameters(recurse=False):
                name = '.'.join(part for part in (prefix, owner_name, short_name) if part)
                layer, count = depth_of(name)
                layers.add(layer)  # frozen ones too: with one tuned block there is nothing wrong with the depths
                if not param.requires_grad or id(param) in seen:
                    continue
                seen.add(id(param))
                settings = self._settings(name, short_name, param, owner, rate ** (count - 1 - layer))
                key = tuple(sorted((k, repr(v)) for k, v in settings.items()))
                groups.setdefault(key, {'params': [], **settings})['params'].append(param)
        if rate != 1 and len(layers) < 3:
            raise ValueError(
                f'layer_decay_rate={rate} has no effect: get_layer_depth of {type(module).__name__} sorts all '
                f'parameters into {len(layers)} layers. Correct that method or set the rate to 1.'
            )
        params += sorted(groups.values(), key=lambda g: (g['lr_scale'], g.get('weight_decay', 0.0)))
        lines = [
            f'  lr_scale {g["lr_scale"]:.4g}, weight decay {g.get("weight_decay")}: {len(g["params"])} tensors, '
            f'{sum(p.numel() for p in g["params"]):,} values'
            for g in params
        ]
        print_log('Parameter groups:\n' + '\n'.join(lines), logger='current')

    @staticmethod
    def _depth_function(module: nn.Module, rate: float) -> Callable[[str], tuple[int, int]]:
        if rate == 1:
            return lambda name: (0, 1)
        if not hasattr(module, 'get_layer_depth'):
            raise NotImplementedError(
                f'layer_decay_rate={rate} needs get_layer_depth, which {type(module).__name__} lacks: use '
                f'mim_mm.MIMMaskRCNN or mim_mm.MIMCascadeRCNN for detectors, or set the rate to 1.'
            )
        return module.get_layer_depth

    def _settings(self, name: str, short_name: str, param: nn.Parameter, owner: nn.Module, scale: float) -> dict:
        """Options of one parameter: lr, lr_scale, weight_decay and what its custom key adds."""
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        matching = [k for k in custom_keys if k in name]
        custom = dict(custom_keys[max(matching, key=lambda k: (len(k), k))]) if matching else None
        if custom is not None:
            scale *= custom.pop('lr_mult', 1.0)
            decay = custom.pop('decay_mult', 1.0)
        else:
            decay = self._decay_mult(name, short_name, param, owner)
        settings = {'lr_scale': scale, **(custom or {})}
        if self.base_lr is not None:
            settings['lr'] = self.base_lr * scale
        if self.base_wd is not None:
            settings['weight_decay'] = self.base_wd * decay
        return settings

    def _decay_mult(self, name: str, short_name: str, param: nn.Parameter, owner: nn.Module) -> float:
        dotted = f'.{name}.'
        if any(f'.{n}.' in dotted for n in self.paramwise_cfg.get('no_decay', NO_DECAY)):
            return 0.0
        rules = (
            ('norm_decay_mult', isinstance(owner, NORMS)),
            ('bias_decay_mult', short_name == 'bias' and not isinstance(owner, NORMS)),
            ('flat_decay_mult', param.ndim <= 1),
        )
        for option, applies in rules:
            value = self.paramwise_cfg.get(option)
            if applies and value is not None:
                return value
        return 1.0
