"""Read a checkpoint file without running code of it; nothing else of the package reads one."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mim_mm import files
from mim_mm.checkpoint.checksum import damage, is_archive, older_sound
from mim_mm.checkpoint.entries import choose, models_in
from mim_mm.checkpoint.records import RecordError, restored, stand_ins
from mim_mm.checkpoint.tensor_file import metadata, tensor_damage
from mim_mm.checkpoint.trust import trusted


class LoadError(RuntimeError):
    """The weights could not be loaded as asked; the message names the value, the rule and the fix."""


@dataclass(frozen=True)
class Weights:
    """The tensors of one model of a file.

    tensors: by name. entry: where they lay in the file, '' for the top. notes: sentences for the load report.
    about: what the file says of its encoder (see :mod:`mim_mm.checkpoint.function`), {} where it says nothing.
    """

    tensors: dict[str, Tensor]
    entry: str
    notes: tuple[str, ...]
    about: Mapping = field(default_factory=dict)


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
        named = Path(files.known_text(pointer).strip())
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

    See :func:`read_content` for what is read.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote, of any ending.
        trust: read a file that holds other classes.
        entry: which model, where the file holds several: ``'model_ema'``, ``'student'``.

    Raises:
        LoadError: The file is missing, unreadable, holds other classes and is not trusted, or holds no tensors, or not
            the entry.
    """
    path = resolve_checkpoint(path)
    content = read_content(path, trust)
    try:
        models = models_in(content)
        taken, sentence = choose(models, entry, str(path))
    except ValueError as error:
        raise LoadError(str(error)) from error
    tensors, removed = _without_wrappers(models[taken])
    notes = [sentence] if sentence else []
    if removed:
        notes.append(f'Names were read without {", ".join(removed)}, which torch adds when it wraps a module.')
    return Weights(tensors, taken, tuple(notes), about_of(path, content))


def about_of(path: Path, content) -> Mapping:
    """What a file that is read says of its encoder: the entry ``encoder`` of its ``meta``, or of its metadata."""
    if path.suffix == '.safetensors':
        text = metadata(path).get('encoder')
        try:
            said = json.loads(text) if text else {}
        except ValueError:
            said = {}
    else:
        meta = content.get('meta') if isinstance(content, Mapping) else None
        said = meta.get('encoder') if isinstance(meta, Mapping) else None
    return said if isinstance(said, Mapping) else {}


def _without_wrappers(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    found = sorted({match for name in tensors for match in _WRAPPERS.findall(name)})
    bare = {_WRAPPERS.sub('', name): value for name, value in tensors.items()}
    return (bare, found) if len(bare) == len(tensors) else (dict(tensors), [])


def read_content(source, trust: bool = False, map_location='cpu', mmap: bool = False, verify: bool = True):
    """Everything in a checkpoint file, without running code of it: the one place of the package that reads one.

    Read are tensors and plain types, and the plain records of :mod:`mim_mm.checkpoint.records`; anything else is
    refused unless ``trust`` or :func:`mim_mm.checkpoint.trust.trusting` says that the file may run code.

    Args:
        source: path of what ``torch.save`` wrote, or of ``.safetensors``; or such a file, opened.
        trust: let the file run code, where it cannot be read otherwise.
        map_location: as of ``torch.load``.
        mmap: leave the tensors on disk until they are used, if the file is of a kind that allows it.
        verify: compare the checksums that torch wrote with the bytes first (see :mod:`mim_mm.checkpoint.checksum`);
            False for who looks at the plain values only, and reads no tensor.

    Raises:
        LoadError: The file is damaged or of another kind, or holds more than is read.
        FileNotFoundError: There is no such file.
    """
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    name = str(path or getattr(source, 'name', 'the checkpoint'))
    if path and not path.is_file():
        raise FileNotFoundError(f'{name} can not be found.')  # mmengine's words
    if path and path.suffix == '.safetensors':
        return _read_safetensors(path, map_location, verify)
    if verify:
        _check_bytes(path or source, name)
    load = partial(_load, path or source, map_location=map_location, mmap=bool(mmap and path and is_archive(path)))
    try:
        return _without_code(load)
    except _Refused as refusal:
        if trust or trusted():
            with _damage_named(name):
                return load(weights_only=False)
        raise LoadError(
            f'{name} holds more than tensors and plain types ({refusal}): reading it may run code of the file. If you '
            'trust its author pass --trust-pickle (a tool), trust_pickle=True (a config) or trust=True (in Python); '
            'else get a file of tensors, such as safetensors.'
        ) from refusal
    except Exception as error:
        raise _damaged(name, error) from error


def _check_bytes(source, name: str) -> None:
    try:
        found = damage(source)
    except OSError as error:
        raise _damaged(name, error) from error
    if found:
        other = older_sound(source) if isinstance(source, Path) else None
        advice = f'the newest sound one beside it is {other}' if other else 'copy it again, or take another one'
        raise LoadError(f'{name} is damaged: {found}. Its weights are not those that were saved; {advice}.')


class _Refused(Exception):
    """What a file holds that is not read."""


def _load(source, **options):
    if hasattr(source, 'seek'):
        source.seek(0)
    return torch.load(source, **options)


def _without_code(load):
    before = torch.serialization.get_safe_globals()
    ours = stand_ins()
    names = {_name(part) for part in ours}
    # Other names that the process allows stay allowed; mmengine allows the real things around its own call.
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([part for part in before if _name(part) not in names] + ours)
    try:
        return restored(load(weights_only=True))
    except RecordError as error:
        raise _Refused(str(error)) from error
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise (_refusal(error) or error) from None
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _name(part) -> str:
    return part[1] if isinstance(part, tuple) else f'{part.__module__}.{part.__qualname__}'


def _refusal(error: Exception) -> _Refused | None:
    found = _UNREAD.search(str(error))
    return found and _Refused(found[1] or found[0])


# How torch says that only code of the file could read it: a global, an opcode, a legacy or a script archive.
_UNREAD = re.compile(
    r'(?:Unsupported global: )?GLOBAL (\S+)|unrecognized function|Can only (?:build|create)[^\n]*|Unsupported [^\n]*|'
    r'legacy \.tar format|TorchScript archives?'
)


@contextmanager
def _damage_named(name: str):
    try:
        yield
    except Exception as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> LoadError:
    text = next((line for line in str(error).splitlines() if line), '')
    return LoadError(
        f'{name} cannot be read as a checkpoint ({type(error).__name__}: {text}): the file is damaged or of another '
        'kind. Give a .pth file that torch.save wrote, or .safetensors.'
    )


def _read_safetensors(path: Path, map_location, verify: bool) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        found = tensor_damage(path) if verify else None
    except OSError as error:
        raise _damaged(str(path), error) from error
    if found:
        raise LoadError(
            f'{path} is damaged: {found}. Its weights are not those that were saved: copy it again, or take another.'
        )
    try:
        device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
        return load_file(path, device=str(device))
    except Exception as error:
        message = f'{path} cannot be read as safetensors ({error}): the file is damaged or of another kind.'
        raise LoadError(message) from error
