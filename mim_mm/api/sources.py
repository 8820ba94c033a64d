"""Where the config of a checkpoint is: given, in the file (read as data, never run), or beside it."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config

from mim_mm.checkpoint.config_text import parse_config
from mim_mm.checkpoint.read import LoadError, read_content, resolve_checkpoint
from mim_mm.compat.recipes import PREFIX, find

__all__ = ['config_of', 'read_config']


def read_config(config: str | os.PathLike | Config) -> Config:
    """A config by its path, or by the name of a recipe: ``'linear/vitb_linear_90e'``, with or without ``mim_mm::``.

    Raises:
        FileNotFoundError: naming the recipes that are spelt alike.
    """
    if isinstance(config, Config):
        return config
    path = Path(config)
    return Config.fromfile(str(path if path.is_file() else find(str(config).removeprefix(PREFIX))))


def config_of(checkpoint: str | os.PathLike, config: str | os.PathLike | Config | None = None) -> tuple[Config, Path]:
    """The config that a checkpoint was trained with, and the checkpoint's file.

    Args:
        checkpoint: a file, or the work dir of a run.
        config: in place of the one that the checkpoint carries, which is read as data, or of the only one beside it.

    Raises:
        LoadError: no such file, or no config anywhere.
    """
    path = resolve_checkpoint(checkpoint)
    if config is not None:
        return read_config(config), path
    content = read_content(path, mmap=path.suffix != '.safetensors')
    meta = content.get('meta') if isinstance(content, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if isinstance(text, str):
        try:
            found = parse_config(text)
            if found.get('model'):
                return Config(found), path
        except ValueError:  # a config that is no data; the one beside the file may be read
            pass
    beside = sorted(path.parent.glob('*.py'))
    if len(beside) == 1:
        return Config.fromfile(str(beside[0])), path
    raise LoadError(
        f'{path} carries no config, and there {"is none" if not beside else "are several"} beside it: give the one '
        "that says what the model is, e.g. config='linear/vitb_linear_90e' for a ViT-B/16"
    )
