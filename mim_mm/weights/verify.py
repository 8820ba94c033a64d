"""Whether another library computes from a written file what we computed before it was written.

Both run in float64 on the same random images, so that what differs is the function and not the rounding. The library
opens the file by its own call, the one that a user is told.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import load_checkpoint
from mmpretrain.models import SwinTransformer
from torch import Tensor, nn

from mim_mm.checkpoint.load import load_encoder
from mim_mm.encoders import encoder_of
from mim_mm.registry import MODELS

TOLERANCE = 1e-5  # of the largest feature, or of 1


class Missing(Exception):
    """The library is not installed, so nothing was compared."""


def library(name: str):
    """An optional library.

    Raises:
        Missing: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f'{name} is not installed') from error


def difference(backbone: nn.Module, theirs: Callable[[Tensor], Tensor], config: Mapping[str, Any]) -> float:
    """The largest difference of features, over the largest feature or 1.

    Args:
        backbone: ours, filled.
        theirs: images (2, C, H, W) -> what ``backbone`` gives: tokens (2, P+N, D), a map (2, D, h, w) or means (2, D).
        config: of the backbone.
    """
    size = config.get('img_size', 224)
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, config.get('in_channels', 3), height, width, generator=generator, dtype=torch.float64)
    kind = next(backbone.parameters()).dtype
    try:
        with torch.no_grad():
            wanted, found = features_of(backbone.double(), config)(images), theirs(images)
    finally:
        backbone.to(kind)
    if found.shape != wanted.shape:
        return float('inf')
    return ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1)).item()


def features_of(backbone: nn.Module, config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """What a canonical backbone puts out; of another family, which is kept as it was trained, its last tokens."""
    if 'out_type' in config or isinstance(backbone, SwinTransformer):
        return lambda images: backbone(images)[-1]
    return lambda images: torch.cat(encoder_of(backbone, 'encode_whole').encode_whole(images), dim=1)


def open_timm(folder: Path, architecture: str, args: Mapping[str, Any], pooled: bool) -> Callable[[Tensor], Tensor]:
    """``timm.create_model(..., checkpoint_path=)``; ``pooled``: the norm stands after the mean."""
    timm = library('timm')
    model = timm.create_model(architecture, checkpoint_path=str(folder / 'model.safetensors'), **args)
    model.double().eval()

    def features(images: Tensor) -> Tensor:
        out = model.forward_features(images)
        if pooled:
            return model.forward_head(out, pre_logits=True)
        return out.permute(0, 3, 1, 2) if out.ndim == 4 else out  # Swin: (B, H, W, C)

    return features


def open_hugging_face(folder: Path, name: str, pooled: bool) -> Callable[[Tensor], Tensor]:
    """``transformers.<name>.from_pretrained``."""
    transformers = library('transformers')
    options = {} if pooled or name not in ('ViTModel', 'BeitModel') else dict(add_pooling_layer=False)
    model, told = getattr(transformers, name).from_pretrained(folder, output_loading_info=True, **options)
    wrong = {what: list(names) for what, names in told.items() if names}
    if wrong:
        raise RuntimeError(f'transformers does not take every tensor: {wrong}')
    model.double().eval()

    def features(images: Tensor) -> Tensor:
        out = model(images)
        return out.pooler_output if pooled else out.last_hidden_state

    return features


def open_torchvision(folder: Path, args: Mapping[str, Any], eps: float) -> Callable[[Tensor], Tensor]:
    """``torchvision.models.VisionTransformer`` without its head, filled by ``load_state_dict``."""
    from torchvision.models import VisionTransformer

    model = VisionTransformer(**args, norm_layer=partial(nn.LayerNorm, eps=eps))
    model.heads = nn.Identity()
    model.load_state_dict(torch.load(folder / 'model.pth', weights_only=True))
    model.double().eval()

    def features(images: Tensor) -> Tensor:
        x = model._process_input(images)
        return model.encoder(torch.cat((model.class_token.expand(len(x), -1, -1), x), dim=1))

    return features


def open_ours(file: Path, config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """The backbone of the config, filled by our own loader."""
    backbone = MODELS.build(dict(config))
    load_encoder(backbone, file, min_loaded=1.0)
    backbone.double().eval()
    return features_of(backbone, config)


def open_mmpretrain(file: Path, config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """The backbone of the config, filled by mmengine from ``backbone.*``."""
    holder = nn.ModuleDict(dict(backbone=MODELS.build(dict(config))))
    load_checkpoint(holder, str(file), strict=True, logger='silent')
    holder.double().eval()
    return features_of(holder['backbone'], config)
