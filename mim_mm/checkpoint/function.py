"""What decides the features of an encoder and stands in no tensor: heads, the epsilon of its norms, its activation.

Two ViTs with the same tensors may be two functions: 384 wide with 6 heads (DINO) or 12 (MoCo v3), norms with 1e-6
(timm) or 1e-12 (Hugging Face), GELU or its approximations. A file that says so (``meta['encoder']``, which
``tools/import_weights.py`` and ``tools/export.py`` write) is compared with the backbone before its weights are taken.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

FACTS = {  # what a file says -> how a config sets it
    'num_heads': 'model.backbone.arch as a dict with num_heads={}',
    'norm_eps': "model.backbone.norm_cfg=dict(type='LN', eps={})",
    'activation': 'model.backbone.layer_cfgs.act_cfg to {}',
}
_ACTIVATIONS = {nn.GELU: 'gelu', nn.SiLU: 'silu', nn.ReLU: 'relu', nn.Tanh: 'tanh'}


def function_of(module: nn.Module) -> dict[str, object]:
    """The facts of a backbone; what its blocks do not agree on, or what it does not have, is left out.

    Returns:
        ``num_heads``, ``norm_eps`` and ``activation`` ('gelu', 'gelu_tanh', 'quick_gelu', 'silu', ...).
    """
    heads = {m.num_heads for m in module.modules() if isinstance(getattr(m, 'num_heads', None), int)}
    epsilons = {m.eps for m in module.modules() if isinstance(m, nn.LayerNorm)}
    names = {_activation(m) for m in module.modules()} - {None}
    found = {'num_heads': heads, 'norm_eps': epsilons, 'activation': names}
    return {name: next(iter(values)) for name, values in found.items() if len(values) == 1}


def _activation(module: nn.Module) -> str | None:
    if isinstance(module, nn.GELU):
        return 'gelu' if module.approximate == 'none' else f'gelu_{module.approximate}'
    if type(module).__name__ == 'QuickGELU':
        return 'quick_gelu'
    return _ACTIVATIONS.get(type(module))


def differences(said: Mapping, module: nn.Module) -> list[str]:
    """Where a file and a backbone are different functions, a sentence with the fix for each.

    Args:
        said: what the file says, names as of :func:`function_of`; others are ignored.
        module: the backbone.
    """
    own = function_of(module)
    return [
        f'{name} is {said[name]} in the file and {own[name]} in the model, which would compute other features from the '
        f'same weights: set {fix.format(said[name])} (meta.encoder.config of the file has the whole backbone)'
        for name, fix in FACTS.items()
        if name in said and name in own and said[name] != own[name]
    ]
