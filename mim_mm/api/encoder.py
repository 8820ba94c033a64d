"""A frozen encoder with its transforms, its load report, and its features."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mim_mm.api.images import Image, as_bgr, as_list
from mim_mm.api.sources import config_of, read_config
from mim_mm.checkpoint.report import LoadReport
from mim_mm.encoders import encoder_of
from mim_mm.evaluation.frozen.features import Source, build_encoder, forward
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.registry import TRANSFORMS

__all__ = ['LoadedEncoder', 'load_encoder']


@dataclass
class LoadedEncoder:
    """A backbone in eval mode without gradients, and what belongs to it.

    Attributes:
        backbone: mmpretrain's module.
        preprocess: how a decoded image becomes what the backbone takes: sizes in pixels, mean, std, channel order.
        report: what was loaded, and what was not; None for a random encoder.
        config: the config that the backbone was built from.
    """

    backbone: nn.Module
    preprocess: Preprocess
    report: LoadReport | None
    config: Config

    def __post_init__(self):
        self._steps = [TRANSFORMS.build(step) for step in self.preprocess.transforms()]

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def to(self, device: str | torch.device) -> LoadedEncoder:
        self.backbone.to(device)
        return self

    def pixels(self, image: Image) -> Tensor:
        """The crop that the encoder sees of an image: uint8 (3, crop, crop) in B, G, R."""
        results = dict(img=as_bgr(image, self.preprocess.value_range))
        for step in self._steps:
            results = step(results)
        return torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))

    def transform(self, image: Image) -> Tensor:
        """An image as the backbone takes it: float32 (3, crop, crop), resized, cropped and normalised."""
        return self.preprocess.normalize(self.pixels(image)[None])[0]

    def tokens(self, batch: Tensor, amp: str | None = None) -> tuple[Tensor | None, Tensor, tuple[int, int]]:
        """Tokens of transformed images.

        Args:
            batch: float (B, 3, H, W) from :meth:`transform`; sizes other than that of the pretraining are resampled
                where the backbone can.
            amp: 'bf16', 'fp16', or None.

        Returns:
            Class token (B, D) or None, patches (B, N, D), and the grid (h, w) of the patches, h * w = N; float32.

        Raises:
            ValueError: the backbone puts out neither tokens nor a map.
        """
        out = forward(self.backbone, batch.to(self.device), amp)
        if out.ndim == 4:  # a map, as of Swin, HiViT and ConvNeXt
            return None, out.flatten(2).transpose(1, 2), tuple(out.shape[-2:])
        if out.ndim != 3:
            raise ValueError(
                f'{type(self.backbone).__name__} puts out {tuple(out.shape)}, no patches: see its out_type'
            )
        extra = getattr(self.backbone, 'num_extra_tokens', 0)
        patches = out[:, extra:]
        height = round(math.sqrt(patches.shape[1] * batch.shape[-2] / batch.shape[-1]))
        return out[:, 0] if extra else None, patches, (height, patches.shape[1] // height)

    def features(
        self, images: Image | Iterable[Image], batch_size: int = 32, amp: str | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Class token and patches of images.

        Returns:
            (B, D), None for an encoder without class token, and (B, N, D); float32, on the CPU, the final norm applied.

        Raises:
            FloatingPointError: a feature is not finite.
        """
        images = as_list(images)
        found = []
        for start in range(0, len(images), batch_size):
            batch = torch.stack([self.transform(image) for image in images[start : start + batch_size]])
            cls, patches, _ = self.tokens(batch, amp)
            if not patches.isfinite().all():
                raise FloatingPointError(f'features of images from number {start} on are not finite (amp={amp})')
            found.append((None if cls is None else cls.cpu(), patches.cpu()))
        classes = None if found[0][0] is None else torch.cat([cls for cls, _ in found])
        return classes, torch.cat([patches for _, patches in found])

    def attention(self, images: Image | Iterable[Image]) -> tuple[Tensor, tuple[int, int]]:
        """How much the class token attends to each patch in the last block, mean of the heads.

        Returns:
            (B, N), at most 1 in all, and the grid (h, w) of the patches.

        Raises:
            UnsupportedBackbone: it has no such attention.
        """
        batch = torch.stack([self.transform(image) for image in as_list(images)]).to(self.device)
        encoder = encoder_of(self.backbone)
        with torch.no_grad():
            found = encoder.cls_attention(encoder.embed(batch))
        return found.cpu(), encoder.grid.of_image(batch)


def load_encoder(
    checkpoint: str | os.PathLike | None,
    config: str | os.PathLike | Config | None = None,
    *,
    size: int | None = None,
    device: str | torch.device = 'cpu',
    entry: str | None = None,
    seed: int = 0,
) -> LoadedEncoder:
    """The encoder of a checkpoint, whole, or an error that says what is missing.

    Args:
        checkpoint: a file or the work dir of a run, of a pretraining or of anything trained from one; also releases of
            MAE, BEiT, DINO, iBOT and timm, with a config. The name of a recipe (``'emae/emae_vitb_800e'``) is its
            encoder with random weights, as is None with a config: the control of every comparison.
        config: what the model is, if the checkpoint does not say it: a path or the name of a recipe, such as
            ``'linear/vitb_linear_90e'``.
        size: side of the crop in pixels; that of the config without it.
        entry: which model of a file with several, such as ``'teacher'``.
        seed: of random weights.

    Raises:
        LoadError: no such file, no config, or weights that do not fill the encoder.
        FileNotFoundError: neither a file nor a recipe has this name.
    """
    path = None
    if checkpoint is None:
        if config is None:
            raise ValueError('neither a checkpoint nor a config was given: give one of them')
        cfg = read_config(config)
    elif config is None and not os.path.exists(checkpoint) and not str(checkpoint).endswith(('.pth', '.safetensors')):
        cfg = read_config(checkpoint)
    else:
        cfg, path = config_of(checkpoint, config)
    init_default_scope(cfg.get('default_scope') or 'mim_mm')
    source = Source(cfg, path, Preprocess.from_config(cfg, crop=size), entry=entry, seed=seed)
    backbone, report = build_encoder(source)
    return LoadedEncoder(backbone.to(device), source.preprocess, report, cfg)
