"""Reading, cropping and resizing in one go: the size comes from a JPEG's header, so the box is known before decoding.

Boxes are drawn by mmpretrain's own ``RandomResizedCrop``, with the same random calls, so a seed gives the same boxes.
Pixels: the box is decoded (crop-only decoder), or the image (simplejpeg, else OpenCV) and the box cut out; then
antialiased resizing by torch, which follows Pillow's filter and rounds otherwise in the last bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import Image

from mim_mm.data import crop_decode
from mim_mm.data.decode import UnreadableImage, decode
from mim_mm.data.image_header import JpegHeader, read_jpeg_header
from mim_mm.data.image_sources import Place
from mim_mm.data.pixel_values import ValueRange
from mim_mm.registry import TRANSFORMS

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


def _simplejpeg():
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


class WholeDecoder:
    """The box out of the whole image, decoded by simplejpeg; None where it meets an error or damage.

    The result is a view of memory that the next call overwrites: fresh memory for every image costs a sixth of the
    time, since the system has to clear it. Images above ``KEPT`` bytes get memory of their own.

    Raises:
        ImportError: simplejpeg is not installed.
    """

    KEPT = 1 << 26

    def __init__(self) -> None:
        if _simplejpeg() is None:
            raise ImportError("decoder='simplejpeg' needs that package: pip install 'mim_mm[fast]'")

    def __call__(self, data: bytes, header: JpegHeader, box: Box) -> np.ndarray | None:
        needed = header.height * header.width * 3
        try:
            image = _simplejpeg().decode_jpeg(data, 'BGR', buffer=_memory(needed) if needed <= self.KEPT else None)
        except ValueError:
            return None
        return cut(image, box)


_kept = threading.local()


def _memory(size: int) -> np.ndarray:
    """At least ``size`` bytes, this thread's own."""
    held = getattr(_kept, 'memory', None)
    if held is None or held.size < size:
        held = _kept.memory = np.empty(size, np.uint8)
    return held


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """The box (top, left, height, width) of an image (H, W, ...), as a view."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


DECODERS = dict(crop=crop_decode.CropDecoder, simplejpeg=WholeDecoder, opencv=None)
Decoder = Callable[[bytes, JpegHeader, Box], 'np.ndarray | None']


def choose_decoder(name: str) -> Decoder | None:
    """The decoder of simple JPEGs; None means ``decode``, which takes every format.

    Args:
        name: ``auto`` (the first of the others that is there), ``crop``, ``simplejpeg`` or ``opencv``.

    Raises:
        ValueError: another name. CannotBuild, ImportError: that decoder is not there.
    """
    if name == 'auto':
        name = 'crop' if crop_decode.available() else 'simplejpeg' if _simplejpeg() else 'opencv'
    if name not in DECODERS:
        raise ValueError(f"decoder='{name}' is not one of auto, {', '.join(DECODERS)}")
    return DECODERS[name]() if DECODERS[name] else None


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str = 'bicubic') -> torch.Tensor:
    """Resize with antialiasing, as Pillow does.

    Args:
        image: (H, W, C), uint8 or float32.
        size: height and width of the result.
        interpolation: ``bicubic`` or ``bilinear``.

    Returns:
        (C, height, width) of the same dtype.
    """
    batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    out = torch.nn.functional.interpolate(batch, size=size, mode=interpolation, antialias=True, align_corners=False)
    return out[0].contiguous()


@TRANSFORMS.register_module()
class LazyLoadImageFromFile(BaseTransform):
    """Read the bytes of an image, and leave decoding to :class:`FastRandomResizedCrop`, which has to come later.

    Reads ``img_path``, with ``offset`` and ``size`` out of a tar (see ``OwnImages``); adds ``img_bytes``. Samples that
    have ``img_bytes`` already, as streamed ones do, pass through.

    Args:
        backend_args: of mmengine's ``fileio``, for files that are not on a mounted disk.
        skip_unreadable: a file that cannot be read is logged once a worker and another one takes its place.
        value_range: black and white of files of more than 8 bits, see :mod:`mim_mm.data.pixel_values`; travels with
            the sample to where it is decoded.
    """

    def __init__(
        self, backend_args: dict | None = None, skip_unreadable: bool = False, value_range: ValueRange = None
    ) -> None:
        self.backend_args = backend_args
        self.skip_unreadable = skip_unreadable
        self.value_range = value_range

    def transform(self, results: dict) -> dict | None:
        if self.value_range is not None:
            results['value_range'] = self.value_range
        if 'img_bytes' in results:
            return results
        path = results['img_path']
        try:
            if self.backend_args is not None:
                results['img_bytes'] = bytes(fileio.get(path, backend_args=self.backend_args))
            else:
                results['img_bytes'] = Place(path, path, results.get('offset', 0), results.get('size', -1)).read()
        except OSError as error:
            if not self.skip_unreadable:
                raise
            print_log(f"'{path}' cannot be read and is passed over: {error}", logger='current')
            return None
        return results


@TRANSFORMS.register_module()
class FastRandomResizedCrop(RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop`` (Pillow), decoding no more than it has to.

    Takes ``img_bytes`` or, where an earlier transform has decoded already, ``img``; gives ``img`` (h, w, C) in B, G, R
    and ``img_shape``. Its memory is laid out as (C, h, w), so that packing costs nothing.

    JPEGs that a camera has turned, CMYK, damaged files and other formats go through :func:`mim_mm.data.decode.decode`,
    as the plain path does.

    Args:
        scale: side of the result in pixels, or (h, w).
        crop_ratio_range, aspect_ratio_range, max_attempts: as in mmpretrain.
        interpolation: ``bicubic`` or ``bilinear``, always antialiased.
        decoder: see :func:`choose_decoder`.
        skip_unreadable: an image that cannot be decoded is logged and another one takes its place.

    Raises:
        UnreadableImage: nothing can decode it, unless ``skip_unreadable``.
    """

    def __init__(
        self,
        scale: int | tuple[int, int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        decoder: str = 'auto',
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(scale, crop_ratio_range, aspect_ratio_range, max_attempts, interpolation, backend='pillow')
        if interpolation not in ('bicubic', 'bilinear'):
            raise ValueError(f"interpolation='{interpolation}': bicubic or bilinear; others by RandomResizedCrop")
        self.decode_box = choose_decoder(decoder)
        self.skip_unreadable = skip_unreadable

    def draw(self, height: int, width: int) -> Box:
        """A random box in an image of that size, by mmpretrain's random calls."""
        return self.rand_crop_params(np.broadcast_to(np.uint8(0), (height, width)))

    def crop(self, results: dict) -> np.ndarray:
        """The pixels of a random box, (height, width, C) or (height, width)."""
        if 'img' in results:
            image = results['img']
            return cut(image, self.draw(*image.shape[:2]))
        data, name = results['img_bytes'], str(results.get('name') or results.get('img_path', ''))
        header = read_jpeg_header(data) if self.decode_box else None
        box = self.draw(header.height, header.width) if header and header.simple else None
        pixels = self.decode_box(data, header, box) if box else None
        if pixels is None:
            image = decode(data, 3, name, results.get('value_range'))
            fits = box and image.shape[:2] == (header.height, header.width)
            pixels = cut(image, box if fits else self.draw(*image.shape[:2]))
        return pixels

    def sized(self, pixels: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """A box (height, width, C) or (height, width) at the size of the result."""
        flat = pixels.ndim == 2
        out = resize(pixels[..., None] if flat else pixels, tuple(self.scale), self.interpolation)
        return out[0].numpy() if flat else out.permute(1, 2, 0).numpy()

    def transform(self, results: dict) -> dict | None:
        try:
            pixels = self.crop(results)
        except UnreadableImage as error:
            where = results.get('name') or results.get('img_path', 'an image')
            if not self.skip_unreadable:
                raise UnreadableImage(f"'{where}' cannot be read: {error}") from error
            print_log(f"'{where}' cannot be read and is passed over: {error}", logger='current')
            return None
        results.pop('img_bytes', None)
        results['img'] = self.sized(pixels)
        results['img_shape'] = tuple(self.scale)
        return results


@TRANSFORMS.register_module()
class TwoSizeRandomResizedCrop(FastRandomResizedCrop):
    """One random box at two sizes: for an encoder, and for the tokenizer that makes its targets (BEiT, CAE).

    ``img`` is the list of both, each (h, w, 3), uint8; ``mmpretrain.PackInputs`` makes them two inputs. Both are
    resized with antialiasing, as the releases do by Pillow. mmpretrain's
    ``RandomResizedCropAndInterpolationWithTwoPic`` has none, and its boxes never reach the right and lower side.

    Args:
        scale: side of the first image in pixels, or (h, w).
        second_scale: of the second.
        second_interpolation: of the second, by Pillow: ``lanczos``, ``bicubic`` or ``bilinear``.
        **kwargs: as :class:`FastRandomResizedCrop`.
    """

    def __init__(
        self,
        scale: int | tuple[int, int],
        second_scale: int | tuple[int, int],
        second_interpolation: str = 'lanczos',
        **kwargs,
    ) -> None:
        super().__init__(scale, **kwargs)
        if second_interpolation not in ('lanczos', 'bicubic', 'bilinear'):
            raise ValueError(f"second_interpolation is '{second_interpolation}': take lanczos, bicubic or bilinear")
        self.second_scale = (second_scale, second_scale) if isinstance(second_scale, int) else tuple(second_scale)
        self.filter = Image.Resampling[second_interpolation.upper()]

    def sized(self, pixels: np.ndarray) -> list[np.ndarray]:
        second = Image.fromarray(np.ascontiguousarray(pixels)).resize(self.second_scale[::-1], self.filter)
        return [super().sized(pixels), np.asarray(second)]


@TRANSFORMS.register_module()
class FastRandomFlip(BaseTransform):
    """mmpretrain's horizontal ``RandomFlip``: the same images from the same seed, in a tenth of its time.

    Takes one number of numpy's generator, as the ``choice`` there does, and makes ``img`` (H, W, ...) a view.

    Args:
        prob: of a flip, 0 to 1.
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob} must be a probability, 0 to 1')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        results['flip'] = bool(np.random.random_sample() < self.prob)
        if results['flip']:
            results['img'] = results['img'][:, ::-1]
        return results
