"""Stochastic depth that a block applies twice to its MLP, which no release does."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from torch import nn

ONCE = 'layer_cfgs=dict(ffn_cfg=dict(add_identity=False, dropout_layer=None))'


def dropped_twice(model: nn.Module) -> list[str]:
    """Names of the blocks that drop the path of their MLP in the MLP and around it, so that it is kept with (1 - p)^2.

    mmpretrain's BEiT blocks do (its BEiTViT, and what derives from it); their attention is dropped once.
    """
    found = []
    for name, block in model.named_modules():
        mlp = getattr(block, 'ffn', None)
        inner = getattr(getattr(mlp, 'dropout_layer', None), 'drop_prob', 0)
        outer = getattr(getattr(block, 'drop_path', None), 'drop_prob', 0)
        if inner and outer and not getattr(mlp, 'add_identity', True):
            found.append(name)
    return found


def check_drop_paths(runner) -> None:
    """Warn of such blocks; a recipe of mmpretrain's has its figures with them. (A sharded model is not built yet.)"""
    found = dropped_twice(runner.model) if isinstance(runner.model, nn.Module) else []
    if found:
        more = f' and {len(found) - 1} more blocks' if len(found) > 1 else ''
        print_log(
            f'WARNING: {found[0]}{more} drop the path of their MLP twice (mmpretrain does; the releases of BEiT, CAE, '
            f'SimMIM, BootMAE and data2vec do not); once: give that backbone {ONCE}',
            logger=runner.logger,
            level=logging.WARNING,
        )
