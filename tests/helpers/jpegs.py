"""Pictures with detail at every scale as JPEG files of every kind, and the fast path that reads them."""

import io

import numpy as np
from mmengine.dataset import Compose
from PIL import Image

RATIOS = dict(crop_ratio_range=(0.2, 1.0))
KINDS = {
    '420': dict(subsampling='4:2:0'),
    '422': dict(subsampling='4:2:2'),
    '444': dict(subsampling='4:4:4', quality=95),
    'progressive': dict(progressive=True),
    'restart markers': dict(restart_marker_blocks=3),
    'kept as RGB': dict(keep_rgb=True, subsampling='4:4:4'),
    'grey': dict(mode='L'),
    'CMYK': dict(mode='CMYK'),
}


def photo(height, width, seed=0):
    """Colourful, with detail at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cells in (3, 9, 27, 81):
        coarse = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        image += np.asarray(coarse.resize((width, height), Image.BICUBIC), float) * 3 / cells
    image -= image.min()
    return np.uint8(image * (255 / image.max()))


def encoded(pixels, mode='RGB', **options):
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(out, options.pop('format', 'JPEG'), **options)
    return out.getvalue()


def fast(path, scale, seed, decoder='auto', flip=0.0):
    np.random.seed(seed)
    steps = [
        dict(type='mim_mm.LazyLoadImageFromFile'),
        dict(type='mim_mm.FastRandomResizedCrop', scale=scale, decoder=decoder, **RATIOS),
        dict(type='mim_mm.FastRandomFlip', prob=flip),
        dict(type='mim_mm.PackImage'),
    ]
    return Compose(steps)(dict(img_path=str(path)))['inputs']


def psnr(a, b):
    mse = ((np.asarray(a, float) - np.asarray(b, float)) ** 2).mean()
    return 10 * np.log10(255**2 / mse) if mse else np.inf
