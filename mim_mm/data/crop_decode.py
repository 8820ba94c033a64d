"""Decode only the box of a JPEG that a crop needs: 60 lines of C over libjpeg-turbo, compiled on demand.

Nothing here is compiled by an installation. ``python tools/build_crop_decode.py`` compiles ``crop_decode.c`` where a C
compiler and libjpeg-turbo's header are, into ``$MIM_MM_CACHE/native`` (``~/.cache/mim_mm/native``); from then on it is
found. Rows above the box pass through the Huffman decoder only, rows below it not at all, and of the rows of the box
only the columns that are wanted go through the inverse transform.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np

from mim_mm import files
from mim_mm.data.image_sources import cache_folder

SOURCE = Path(__file__).with_name('crop_decode.c')
NEEDS = (
    'it needs a C compiler and the header of libjpeg-turbo (Debian, Ubuntu: apt-get install gcc libjpeg-dev; Fedora: '
    'dnf install gcc libjpeg-turbo-devel; conda: conda install c-compiler libjpeg-turbo). Without it images are '
    'decoded whole, which gives the same crops'
)


class CannotBuild(RuntimeError):
    """The C part cannot be compiled or loaded here; the message says what is missing."""


def library_path() -> Path:
    """Where the compiled code is, or would be: its name changes with the source and the processor."""
    mark = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    return cache_folder().parent / 'native' / f'crop_decode-{mark}-{platform.machine()}.so'


def build() -> Path:
    """Compile ``crop_decode.c`` with ``$CC`` (default ``cc``), ``$CFLAGS`` and ``$LDFLAGS``, and try it.

    Returns:
        The shared library; it is there whole or not at all.

    Raises:
        CannotBuild: no compiler, no header, or the result does not load.
    """
    target = library_path()
    words = {name: shlex.split(os.environ.get(name, '')) for name in ('CC', 'CFLAGS', 'LDFLAGS')}
    with files.replacing(target) as made:
        command = [*(words['CC'] or ['cc']), '-O2', '-fPIC', '-shared', *words['CFLAGS'], str(SOURCE)]
        command += ['-o', str(made), *words['LDFLAGS'], '-ljpeg']
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CannotBuild(f"the compiler '{command[0]}' does not start ({error}): {NEEDS}") from error
        if done.returncode:
            raise CannotBuild(f'{shlex.join(command)}\n{done.stderr.strip()}\n{NEEDS}')
        try:
            ctypes.CDLL(str(made)).mim_mm_crop  # noqa: B018  the look-up raises where it is missing
        except (OSError, AttributeError) as error:
            raise CannotBuild(f'{target.name} was compiled and does not load ({error}): {NEEDS}') from error
    _load.cache_clear()
    return target


def available() -> bool:
    """Whether it was built here before."""
    return _load(str(library_path())) is not None


@lru_cache(maxsize=4)
def _load(path: str):
    try:
        function = ctypes.CDLL(path).mim_mm_crop
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_char_p, ctypes.c_ulong, *[ctypes.c_int] * 4, ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function


class CropDecoder:
    """``decoder(data, header, (top, left, height, width))``: the pixels of a box, uint8 (height, width, 3) in B, G, R.

    None where libjpeg meets an error or damage: the caller then decodes the image as a whole, which decides.

    Raises:
        CannotBuild: it was not built.
    """

    def __init__(self) -> None:
        self._path = str(library_path())
        if _load(self._path) is None:
            raise CannotBuild(f'the crop-only decoder is not built: run tools/build_crop_decode.py; {NEEDS}')

    def __call__(self, data: bytes, header, box: tuple[int, int, int, int]) -> np.ndarray | None:
        top, left, height, width = box
        out = np.empty((height, width, 3), np.uint8)
        # Looked up again: a function of ctypes does not travel to a worker that is spawned.
        code = _load(self._path)(data, len(data), left, top, width, height, out.ctypes.data)
        return None if code else out
