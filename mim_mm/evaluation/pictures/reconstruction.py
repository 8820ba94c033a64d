"""What a pretrained model makes of images: the arrays behind the reconstruction figure."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mim_mm.checkpoint.read import read_checkpoint
from mim_mm.clock import Clock
from mim_mm.data.decode import read_image
from mim_mm.registry import MODELS
from mim_mm.targets import patchify, unpatchify

__all__ = ['disagreement', 'load_pretraining_model', 'read_images', 'reconstruct_files']


def load_pretraining_model(config: str | Path, checkpoint: str | Path) -> tuple[nn.Module, Config]:
    """A pretraining model with *all* of a checkpoint's weights, in eval mode, on the CPU, and its config.

    Raises ValueError when weights are missing, the decoder's above all: an exported encoder loads into a pretraining
    model without complaint, and its pictures would be those of a random decoder.
    """
    cfg = Config.fromfile(str(config))
    init_default_scope(cfg.get('default_scope', 'mim_mm'))
    model = MODELS.build(cfg.model)
    state = read_checkpoint(checkpoint)
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    decoder = [key for key in missing if key.startswith('decoder.')]
    if decoder:
        raise ValueError(
            f'{checkpoint} lacks {len(decoder)} weights of the decoder ({decoder[0]}, ...), so there is nothing to '
            'reconstruct with; give a checkpoint of the pretraining run, not an exported encoder'
        )
    if missing:
        raise ValueError(f'{checkpoint} lacks {missing[:3]} ({len(missing)} in all): is it a checkpoint of {config}?')
    wrong = [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        raise ValueError(
            f'{checkpoint}: {wrong[0]} has shape {tuple(state[wrong[0]].shape)}, {config} wants '
            f'{tuple(own[wrong[0]].shape)}; use the config the checkpoint was trained with'
        )
    model.load_state_dict(state, strict=False)
    model.eval()
    if warm_up := getattr(model.masker, 'random_epochs', 0):
        model.masker.set_clock(Clock.at_epoch(math.ceil(warm_up)))  # the masks that follow it
    return model, cfg


def read_images(files: list, height: int, width: int, value_range=None, channels: int = 3) -> Tensor:
    """RGB uint8 (B, 3, height, width), or other ``channels`` in the order and numbers of the file; other sizes are
    resized. FileNotFoundError, UnreadableImage name the file."""
    images = []
    for file in files:
        image = read_image(file, value_range, channels)
        if image.shape[:2] != (height, width):
            image = shrink(image, (width, height))
        images.append(as_tensor(image))
    return torch.stack(images)


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, C) in another size (width, height), by areas; OpenCV takes four channels at most."""
    parts = [image] if image.ndim == 2 else np.split(image, range(4, image.shape[2], 4), axis=2)
    parts = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in parts]
    return parts[0] if len(parts) == 1 else np.dstack(parts)


def as_tensor(image: np.ndarray) -> Tensor:
    """A decoded image, (H, W) or (H, W, C), as (C, H, W); three channels from B, G, R to R, G, B."""
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., ::-1] if image.shape[2] == 3 else image
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def shown_range(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Black and white of pictures of images (B, C, H, W), (B, 1, 1, 1) each: 0 and 255 of bytes, else the extremes."""
    if raw.dtype == torch.uint8:
        return torch.zeros(len(raw), 1, 1, 1), torch.full((len(raw), 1, 1, 1), 255.0)
    shown = raw[:, :3].float()
    low, high = (f(shown, dim=(1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    return low, torch.where(high > low, high, low + 1)


def colours(images: Tensor) -> Tensor:
    """(..., C, H, W) as (..., H, W, 3): one channel as grey, of more the first three."""
    channels = min(images.shape[-3], 3)
    index = {1: [0, 0, 0], 2: [0, 1, 1], 3: [0, 1, 2]}[channels]
    return images.movedim(-3, -1)[..., index]


def disagreement(pred: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference between parts, patch by patch.

    Args:
        pred: (B, K, N, P).
        mask: (B, K, N), True where hidden. Only pairs of parts to which a patch is hidden count.

    Returns:
        (B, N), mean over those pairs and over P; NaN where no pair has the patch hidden (always for K = 1).
    """
    total = pred.new_zeros(mask[:, 0].shape)
    count = torch.zeros_like(total)
    for a, b in combinations(range(mask.shape[1]), 2):
        both = mask[:, a] & mask[:, b]
        total += (pred[:, a] - pred[:, b]).abs().mean(-1) * both
        count += both
    return torch.where(count > 0, total / count.clamp(min=1), torch.full_like(total, float('nan')))


@torch.no_grad()
def reconstruct_files(model: nn.Module, files: list, seed: int = 0, value_range=None) -> list[dict]:
    """For each file a dict of arrays for :func:`mim_mm.report.figures_reconstruction.draw_reconstructions`.

    Keys: ``original`` (H, W, 3) in 0..1; ``visible`` (K, H, W, 3), NaN where hidden; ``reconstructed`` (K, H, W, 3):
    visible patches as they are, hidden ones as predicted, brought back to pixels with the *true* mean and spread of
    each patch where the model predicts normalised ones (then ``borrowed`` is True); ``disagreement`` (rows, columns).
    ``value_range``: of files of more than 8 bits, the config's. Of more than three channels the first three are drawn.
    """
    grid, patch = model.grid, model.grid.patch_size
    rows, columns = grid.height, grid.width
    raw = read_images(files, rows * patch, columns * patch, value_range, grid.in_channels)
    black, white = shown_range(raw)
    images = model.data_preprocessor(dict(inputs=raw), False)['inputs']
    out = model.reconstruct(images, generator=torch.Generator().manual_seed(seed))
    hidden = out['plan'].mask[..., None]
    true = patchify(images.float(), patch)[:, None]
    guess = out['pred'] * out['std'][:, None] + out['mean'][:, None]
    shown = dict(reconstructed=torch.where(hidden, guess, true), visible=torch.where(hidden, torch.nan, true))
    scale = getattr(model.data_preprocessor, 'std', 1.0)
    shift = getattr(model.data_preprocessor, 'mean', 0.0)

    def pixels(patches: Tensor) -> np.ndarray:
        picture = unpatchify(patches.flatten(0, 1), patch, (rows, columns)) * scale + shift
        picture = picture.unflatten(0, patches.shape[:2])
        return colours((picture - black[:, None]) / (white - black)[:, None]).clamp(0, 1).numpy()

    pictures = {name: pixels(value) for name, value in shown.items()}
    maps = disagreement(out['pred'], out['plan'].mask).unflatten(1, (rows, columns)).numpy()
    original = colours((raw - black) / (white - black)).numpy()
    return [
        dict(
            original=original[i],
            visible=pictures['visible'][i],
            reconstructed=pictures['reconstructed'][i],
            disagreement=maps[i],
            borrowed=bool(model.norm_pix),
        )
        for i in range(len(files))
    ]
