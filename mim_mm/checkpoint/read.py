"""Read the tensors of a checkpoint file without running code from it."""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mim_mm.checkpoint.entries import choose, models_in


class LoadError(RuntimeError):
    """The weights could not be loaded as asked; the message names the value, the rule and the fix."""


@dataclass(frozen=True)
class Weights:
    """The tensors of one model of a file.

    tensors: by name. entry: where they lay in the file, '' for the top. notes: sentences for the load report.
    """

    tensors: dict[str, Tensor]
    entry: str
    notes: tuple[str, ...]


# Modules that torch puts around others; their names say nothing about the model.
_WRAPPERS = re.compile(r'(?:^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')


def resolve_checkpoint(checkpoint: str | os.PathLike) -> Path:
    """Path of a checkpoint file; a work dir stands for the file that its ``last_checkpoint`` names.

    Raises:
        LoadError: Nothing is there, or the work dir has no checkpoint.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        pointer = path / 'last_checkpoint'
        if not pointer.is_file():
            raise LoadError(f'{path} is a folder without last_checkpoint: give a .pth file or a finished work dir.')
        named = Path(pointer.read_text(encoding='utf-8').strip())
        # The folder may have been moved since it was written; the file then lies beside the pointer.
        path = named if named.is_file() else path / named.name
    if not path.is_file():
        raise LoadError(f'The checkpoint {path} does not exist: give the path of a local .pth or .safetensors file.')
    return path


def read_checkpoint(path: str | os.PathLike, trust: bool = False, entry: str | None = None) -> dict[str, Tensor]:
    """All tensors of a model in a checkpoint file, on the CPU; see :func:`read_weights`."""
    return read_weights(path, trust, entry).tensors


def read_weights(path: str | os.PathLike, trust: bool = False, entry: str | None = None) -> Weights:
    """The tensors of a model in a checkpoint file, on the CPU, and which of the models in it they are.

    Tried as tensors and plain types first, then with mmengine's log buffers and argparse's namespace, which training
    files of mmengine, MAE and DINO contain. Anything else may run code while it is read and needs ``trust=True``.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote, of any ending.
        trust: read a file that holds other classes.
        entry: which model, where the file holds several: ``'model_ema'``, ``'student'``.

    Raises:
        LoadError: The file is missing, unreadable, holds other classes and is not trusted, or holds no tensors, or not
            the entry.
    """
    path = resolve_checkpoint(path)
    content = _read_safetensors(path) if path.suffix == '.safetensors' else _read_pickle(path, trust)
    try:
        models = models_in(content)
        taken, sentence = choose(models, entry, str(path))
    except ValueError as error:
        raise LoadError(str(error)) from error
    tensors, removed = _without_wrappers(models[taken])
    notes = [sentence] if sentence else []
    if removed:
        notes.append(f'Names were read without {", ".join(removed)}, which torch adds when it wraps a module.')
    return Weights(tensors, taken, tuple(notes))


def _without_wrappers(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    found = sorted({match for name in tensors for match in _WRAPPERS.findall(name)})
    bare = {_WRAPPERS.sub('', name): value for name, value in tensors.items()}
    return (bare, found) if len(bare) == len(tensors) else (dict(tensors), [])


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        message = f'{path} cannot be read as safetensors ({error}): the file is damaged or of another kind.'
        raise LoadError(message) from error


def _read_pickle(path: Path, trust: bool):
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        return _read_with_known_classes(path, error, trust)
    except (RuntimeError, EOFError) as error:
        raise LoadError(f'{path} cannot be read as a checkpoint ({error}): the file is damaged or no .pth.') from error


def _read_with_known_classes(path: Path, error: Exception, trust: bool):
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(_harmless_classes())  # torch 2.4 has no context manager for it
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError:
        if trust:
            return torch.load(path, map_location='cpu', weights_only=False)
        raise LoadError(
            f'{path} holds more than tensors and plain types ({str(error).splitlines()[0]}). Reading it could run '
            f'code: if you trust its author, pass trust=True (custom_hooks.0.trust=True), else convert it.'
        ) from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _harmless_classes() -> list:
    """argparse's namespace, and mmengine's log buffers with the numpy arrays and method names that they pickle."""
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    core = np._core if hasattr(np, '_core') else np.core
    kinds = {type(np.dtype(name)) for name in ('f8', 'f4', 'i8', 'i4', 'u4', 'u1', '?')}
    numpy_parts = [core.multiarray._reconstruct, core.multiarray.scalar, np.ndarray, np.dtype, *kinds]
    return [argparse.Namespace, HistoryBuffer, getattr, slice, *numpy_parts]
