"""Whether the bytes of a checkpoint are those that were written.

``torch.save`` writes a zip archive and a CRC-32 of each tensor into it; ``torch.load`` never compares them, so a file
with a flipped bit loads, with other weights. Here they are compared, by zlib (1 to 2 GB/s a thread), before anything of
the file is used. What carries no checksum passes: files of torch's older form, and archives that were written with
``torch.serialization.set_crc32_options(False)``. Safetensors: :mod:`mim_mm.checkpoint.tensor_file`.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 4
CHUNK = 1 << 24  # bytes that a thread compares at once: few pages are mapped at a time
_LOCAL_SIGNATURE = b'PK\x03\x04'
_LOCAL = struct.Struct('<4s22xHH')  # signature, length of the name, length of what follows it


def damage(source) -> str | None:
    """What is wrong with the bytes of an archive, in words; None where all of them are as they were written.

    Args:
        source: path of a file that ``torch.save`` wrote, or such a file in memory (``BytesIO``).

    Raises:
        OSError: the file cannot be read.
    """
    if hasattr(source, 'getbuffer'):
        return _damage(source, source.getbuffer())
    if not isinstance(source, (str, os.PathLike)):
        return None
    with open(source, 'rb') as file:
        if not is_archive(file):
            return _no_archive(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            return _damage(file, view)


def _no_archive(file) -> str | None:
    """torch takes a file for an archive by its beginning alone, and reads it also where its end is damaged."""
    file.seek(0)
    return 'its end is damaged' if file.read(4) == _LOCAL_SIGNATURE else None


def _damage(file, content: memoryview) -> str | None:
    try:
        if not is_archive(file):
            return _no_archive(file)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, UnicodeError, OverflowError) as error:
        return f'its directory is damaged ({error})'
    if len(members) != _entries(content):
        return 'its directory is damaged (entries are missing)'
    if not any(member.CRC for member in members):
        return None
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(lambda member: _damage_of(member, content), members)
        return next((text for text in found if text), None)


def _entries(content: memoryview) -> int:
    """How many members the end of an archive says there are; torch writes no comment behind it."""
    if content[-98:-94] == b'PK\x06\x06' and content[-42:-38] == b'PK\x06\x07':
        return int.from_bytes(content[-98 + 32 : -98 + 40], 'little')
    return int.from_bytes(content[-22 + 10 : -22 + 12], 'little')


def _damage_of(member: zipfile.ZipInfo, content: memoryview) -> str | None:
    name, start = member.orig_filename, member.header_offset
    head = content[start : start + 30]
    if len(head) < 30:
        return f'{name} lies beyond its end'
    signature, name_length, more = _LOCAL.unpack(head)
    first = start + 30 + name_length + more
    flags_utf8 = member.flag_bits & 0x800
    stored = bytes(content[start + 30 : start + 30 + name_length])
    if member.external_attr & 0x10:  # torch would take it for a folder and leave its memory as it is
        return f'the entry of {name} is damaged'
    if signature != _LOCAL_SIGNATURE or stored != name.encode('utf-8' if flags_utf8 else 'cp437'):
        return f'the header of {name} is damaged'
    data = content[first : first + member.compress_size]
    if member.compress_type == zipfile.ZIP_DEFLATED:  # of other people's archives; torch packs nothing
        try:
            data = zlib.decompress(data, wbits=-15, bufsize=max(1, min(member.file_size, CHUNK)))
        except zlib.error as error:
            return f'{name} is damaged ({error})'
        return None if zlib.crc32(data) == member.CRC and len(data) == member.file_size else f'{name} is damaged'
    if member.compress_type != zipfile.ZIP_STORED or not len(data) == member.compress_size == member.file_size:
        return f'the size of {name} is damaged'
    found = 0
    for at in range(0, len(data), CHUNK):
        found = zlib.crc32(data[at : at + CHUNK], found)
    return None if found == member.CRC else f'{name} has the checksum {found:08x}, it was written with {member.CRC:08x}'


def is_archive(source) -> bool:
    """Whether a file, or an opened one, ends as a zip archive does."""
    try:
        return zipfile.is_zipfile(source)
    except zipfile.BadZipFile:  # a damaged end
        return False


def is_whole(path: str | Path) -> bool:
    """Whether a checkpoint file is complete: torch writes zip archives, whose directory stands at the end."""
    return os.path.isfile(path) and is_archive(path)


def is_sound(path: str | Path) -> bool:
    """Whether a checkpoint file is complete and holds the bytes that were written; reads all of it."""
    try:
        return is_whole(path) and damage(path) is None
    except OSError:
        return False


def numbered(folder: str | Path) -> list[tuple[int, Path]]:
    """The ``epoch_*.pth`` and ``iter_*.pth`` in a folder that are complete, with their numbers, in no order."""
    found = []
    for path in Path(folder).glob('*.pth'):
        match = re.fullmatch(r'(?:epoch|iter|stopped_iter)_(\d+)\.pth', path.name)
        if match and is_whole(path):
            found.append((int(match[1]), path))
    return found


def older_sound(path: str | Path) -> Path | None:
    """The newest sound checkpoint beside one that is damaged."""
    others = [(other.stat().st_mtime, number, other) for number, other in numbered(Path(path).parent)]
    newest_first = (other for *_, other in sorted(others, reverse=True))
    return next((other for other in newest_first if other != Path(path) and is_sound(other)), None)
