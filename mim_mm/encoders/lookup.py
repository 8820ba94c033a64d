"""From a backbone, or the config of one, to its Encoder."""

from __future__ import annotations

import torch
from torch import nn

from mim_mm.encoders.base import Encoder
from mim_mm.encoders.families import FAMILIES, nearest, refusal
from mim_mm.registry import MODELS


def family_of(kind: type[nn.Module], *needs: str) -> type[Encoder]:
    """The family of a class of backbones, of exactly this class.

    By inheritance mmpretrain's DistilledVisionTransformer (a second prefix token), RevVisionTransformer (two streams)
    and ViTEVA02 (rotary positions) would be encoded wrongly.

    Args:
        needs: methods of :class:`Encoder` that the family must have.

    Raises:
        UnsupportedBackbone: there is none, or it lacks one of ``needs``.
    """
    family = FAMILIES.get(kind)
    for name in needs or ('grid',):
        if family is None or not family.can(name):
            raise refusal(kind, name)
    return family


def encoder_of(backbone: nn.Module, *needs: str) -> Encoder:
    """The Encoder of a backbone; see :func:`family_of`, which refuses."""
    return family_of(type(backbone), *needs)(backbone)


def reader_of(backbone: nn.Module) -> Encoder:
    """An Encoder to *read* a backbone with, also one of a class derived from a family's.

    Reading (blocks, norm, prefix, grid and :meth:`Encoder.read`) runs the backbone's own pass, so that a subclass which
    embeds or attends otherwise is read rightly. Do not encode with it: that is what :func:`encoder_of` is strict for.

    Raises:
        UnsupportedBackbone: neither the class nor one that it derives from has a family.
    """
    family = nearest(type(backbone))
    if family is None:
        raise refusal(type(backbone), 'blocks')
    return family(backbone)


def grid_of(backbone: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of a backbone's position table, for loading one of another size; None where it has no family."""
    family = nearest(type(backbone))
    if family is None or not family.can('grid'):
        return None
    grid = family(backbone).grid
    return grid.height, grid.width


def build_backbone(config: dict, *needs: str) -> nn.Module:
    """Build a backbone of a config, once :func:`family_of` has not refused its class for lacking one of ``needs``."""
    kind = class_of(config)
    if kind is not None:
        family_of(kind, *needs)
    return MODELS.build(config)


def class_of(config: dict) -> type[nn.Module] | None:
    """The class that a config names; None where it names none that is registered."""
    with MODELS.switch_scope_and_registry(config.get('_scope_')) as registry:
        kind = config.get('type')
        kind = registry.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else None


def sketch(config: dict) -> nn.Module:
    """A backbone of a config to be asked for its sizes: without memory where it can be, and with no checkpoint read."""
    settings = {key: value for key, value in config.items() if key != 'init_cfg'}
    try:
        with torch.device('meta'):
            return MODELS.build(dict(settings))
    except (RuntimeError, NotImplementedError):  # Swin and HiViT read values of tensors while they are built
        return MODELS.build(dict(settings))
