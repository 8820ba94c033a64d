"""Image files with flipped, cut or doubled bytes: each loader gives an image or says in our words that it cannot."""

import contextlib
import io
import os
import random
import warnings

import numpy as np
from mutated import damage
from PIL import Image

from mim_mm.data.fast_crop import FastRandomResizedCrop, LazyLoadImageFromFile
from mim_mm.data.image_look import Look, look_at
from mim_mm.data.image_sources import Place
from mim_mm.data.loading import LoadImageFromFile
from mim_mm.data.own_images import LoadAnyImage
from mim_mm.folders import DataError

NAME = 'mutated images, 40 a trial through five readers'
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM')
MUTATIONS = 40


def _written(form, rng):
    """A small picture in a format, colour, grey or with a palette."""
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(rng.choice(('RGB', 'RGB', 'L')))
    file = io.BytesIO()
    image.save(file, form, **(dict(quality=rng.randrange(5, 96)) if form in ('JPEG', 'WEBP') else {}))
    return file.getvalue()


def _lazily(path):
    results = LazyLoadImageFromFile()(dict(img_path=path))
    return FastRandomResizedCrop(16)(results)['img']


READERS = dict(
    any=lambda path: LoadAnyImage()(dict(img_path=path))['img'],
    grey=lambda path: LoadAnyImage(channels=1)(dict(img_path=path))['img'],
    plain=lambda path: LoadImageFromFile()(dict(img_path=path))['img'],
    fast=_lazily,
    survey=lambda path: look_at(Place('x', path), 3, full=True),
)


@contextlib.contextmanager
def quiet():
    """Without what the libraries in C write of each file."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def trial(number, folder):
    with quiet():
        return _trial(number, folder)


def _trial(number, folder):
    rng, read, refused = random.Random(number), 0, 0
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(MUTATIONS):
        form = rng.choice(FORMATS)
        path = str(folder / f'x.{form.lower()}')
        with open(path, 'wb') as file:
            file.write(damage(_written(form, rng), rng))
        for name, reader in READERS.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    found = reader(path)
            except (DataError, ValueError) as error:
                if not isinstance(error, DataError):
                    return False, f'{form} {i}, {name}: {type(error).__name__}: {error}'
                refused += 1
                continue
            except Exception as error:
                return False, f'{form} {i}, {name}: {type(error).__name__}: {error}'
            if isinstance(found, Look):
                read, refused = read + (not found.error), refused + bool(found.error)
            elif np.asarray(found).ndim not in (2, 3) or not np.isfinite(np.asarray(found, dtype=float)).all():
                return False, f'{form} {i}, {name}: {np.asarray(found).shape}'
            else:
                read += 1
    return True, f'{MUTATIONS} files: {read} times read, {refused} times refused'
