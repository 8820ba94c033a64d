"""Pretraining on a folder of images, as ``tools/transfer.py --images`` does it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mim_mm.checkpoint.read import resolve_checkpoint
from mim_mm.compat.recipes import PREFIX, find
from mim_mm.transfer import Call, run_chain
from mim_mm.transfer.launch import format_option
from mim_mm.transfer.own.own_options import DEFAULT_METHOD, OwnData

__all__ = ['pretrain']


def pretrain(
    folder: str | os.PathLike,
    method: str | os.PathLike = DEFAULT_METHOD,
    *,
    work_dir: str | os.PathLike,
    epochs: int | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    gpus: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Pretrain an encoder on the images of a folder; called again, it goes on where it stopped, or does nothing.

    The training is a process of its own with everything that tools/train.py guards and records; images of any size,
    format and channels are surveyed first.

    Args:
        folder: images at any depth, a list file, or tar shards. No labels are read.
        method: a recipe by its path or name, such as ``'mae/mae_vitb_800e'``.
        work_dir: of the chain; the training is in ``work_dir/pretrain``, the page is ``work_dir/report.html``.
        epochs, batch_size (an accelerator), image_size (pixels): in place of the recipe's.
        options: further settings of the recipe, ``{'model.masker.ratio': 0.6}``.

    Returns:
        The checkpoint, for :func:`mim_mm.api.load_encoder`.

    Raises:
        ChainError: the call cannot work; nothing was started. RuntimeError: the training failed; its log is named.
    """
    path = Path(method)
    method = str(path if path.is_file() else find(str(method).removeprefix(PREFIX).removeprefix('configs/')))
    settings = dict(options or {})
    if epochs is not None:
        settings['train_cfg.max_epochs'] = epochs
    if batch_size is not None:
        settings['train_dataloader.batch_size'] = batch_size
    words = [f'pretrain.{format_option(key, value)}' for key, value in settings.items()]
    own = OwnData(images=str(folder), method=method, image_size=image_size)
    code = run_chain(Call(work_dir=str(work_dir), gpus=gpus, cfg_options=words, own=own))
    run = Path(work_dir) / 'pretrain'
    if code:
        raise RuntimeError(f'the pretraining did not end well (exit code {code}): see {run / "chain.log"}')
    return resolve_checkpoint(run)
