"""Safetensors files with checksums: written with one for each tensor in the metadata, compared before they are read.

The format has no checksum of its own, so a file with a flipped bit loads, with other weights. The CRC-32 is that of
:mod:`mim_mm.checkpoint.checksum`, over the type, the shape and the bytes of a tensor, because a flipped bit of the
header may turn one type or name into another. Other libraries ignore the entry; what carries none passes.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from mim_mm import files
from mim_mm.checkpoint.checksum import CHUNK, THREADS

CHECKSUMS = 'crc32'  # the entry of the metadata, JSON: {name: 8 hex digits}; '' is that of the other entries
HEAD = 8  # bytes that hold the length of the header


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write a ``.safetensors`` file with checksums; it appears whole or not at all.

    Args:
        path: of the file.
        tensors: by name; copies are made of those that share memory.
        about: further metadata, text by text.

    Raises:
        NotWritten: the disk does not take it.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    about = {'format': 'pt', **(about or {})}
    header, data = _parts(save(tensors, metadata=about))
    sums = {name: f'{_sum_of(entry, data):08x}' for name, entry in header.items() if name != '__metadata__'}
    sums[''] = f'{_sum_of_text(about):08x}'
    content = save(tensors, metadata={**about, CHECKSUMS: json.dumps(sums)})
    files.write_bytes(path, content)


def metadata(path: str | Path) -> dict[str, str]:
    """What a ``.safetensors`` file says of itself, without the checksums; {} where it says nothing.

    Raises:
        ValueError: the header cannot be read.
    """
    with open(path, 'rb') as file:
        head = file.read(HEAD)
        header = _header(file.read(int.from_bytes(head, 'little')) if len(head) == HEAD else b'')
    return {name: text for name, text in header.get('__metadata__', {}).items() if name != CHECKSUMS}


def tensor_damage(path: str | Path) -> str | None:
    """What is wrong with the bytes of a ``.safetensors`` file, in words; None where they are as they were written.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size <= HEAD:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            try:
                header, data = _parts(view)
            except ValueError:  # no such file at all: safetensors says so
                return None
            with data:
                about = header.pop('__metadata__', {})
                if CHECKSUMS not in about:
                    return None
                try:
                    return _differences(header, data, about, json.loads(about.pop(CHECKSUMS)))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    return f'its header is damaged ({type(error).__name__}: {error})'


def _differences(header: Mapping, data, about: Mapping[str, str], sums: Mapping[str, str]) -> str | None:
    if sums.keys() - {''} != header.keys():
        return f'the names of its tensors are damaged ({sorted(sums.keys() ^ header.keys())[:2]})'
    if f'{_sum_of_text(about):08x}' != sums['']:
        return 'what it says of itself is damaged'

    def compare(item) -> str | None:
        name, entry = item
        found = f'{_sum_of(entry, data):08x}'
        return None if found == sums[name] else f'{name} has the checksum {found}, it was written with {sums[name]}'

    with ThreadPoolExecutor(THREADS) as threads:
        return next((text for text in threads.map(compare, header.items()) if text), None)


def _parts(content) -> tuple[dict, memoryview]:
    """Header and data of a file in memory; ValueError where there is none."""
    length = int.from_bytes(content[:HEAD], 'little')
    return _header(bytes(content[HEAD : HEAD + length])), memoryview(content)[HEAD + length :]


def _header(text: bytes) -> dict:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError('it is no table of tensors')
    return found


def _sum_of(entry: Mapping, data) -> int:
    first, last = entry['data_offsets']
    found = zlib.crc32(f'{entry["dtype"]} {entry["shape"]}'.encode())
    for at in range(first, last, CHUNK):
        found = zlib.crc32(data[at : min(at + CHUNK, last)], found)
    return found


def _sum_of_text(about: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())
