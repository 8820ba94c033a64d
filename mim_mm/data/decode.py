"""Bytes of an image, in any format, to an array with as many channels as the model takes."""

from __future__ import annotations

import io

import mmcv
import numpy as np

PLAIN = (1, 3)  # numbers of channels to which anything is converted; others must be in the file


class UnreadableImage(ValueError):
    """An image that cannot be decoded, or not to the channels that are wanted."""


def decode(data: bytes, channels: int = 3, name: str = '') -> np.ndarray:
    """Decode an image.

    To 3 or 1 channels anything is converted: grey is repeated, colour becomes luminance, opacity is dropped, 16 bits
    become 8. Any other number must be what the file has (RGBA and CMYK: 4; TIFF and ``.npy``: any); these keep their
    values, as uint8 or else float32. Orientation noted by a camera (EXIF) is applied with 1 and 3 channels.

    Args:
        data: the file's content.
        channels: C.
        name: the file's name; ``.npy`` is known by it.

    Returns:
        (H, W, C) array, for C = 1 (H, W). Three channels are in the order B, G, R, as everywhere in mmcv; others in
        the file's order. uint8, or float32 where the file has other numbers and is TIFF or ``.npy``.

    Raises:
        UnreadableImage: with the reason.
    """
    if not data:
        raise UnreadableImage('the file is empty')
    raw = name.lower().endswith('.npy')
    if channels in PLAIN and not raw:
        image = _by_mmcv(data, 'color' if channels == 3 else 'grayscale')
        return _by_pillow(data, 'RGB' if channels == 3 else 'L') if image is None else image
    image = _array(data) if raw else _as_stored(data)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or 0 in image.shape:
        raise UnreadableImage(f'an array of shape {image.shape} is no image: (H, W) or (H, W, C) is')
    if raw and channels == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, 2)
    if image.shape[2] != channels:
        raise UnreadableImage(f'it has {image.shape[2]} channels, {channels} are wanted')
    image = image if image.dtype == np.uint8 else image.astype(np.float32)
    if raw and channels == 3:
        return np.ascontiguousarray(image[..., ::-1])  # stored as R, G, B
    return image[..., 0] if channels == 1 else image


def _by_mmcv(data: bytes, flag: str) -> np.ndarray | None:
    try:
        return mmcv.imfrombytes(data, flag=flag)
    except Exception:  # OpenCV has many ways to say that it does not know a format
        return None


def _by_pillow(data: bytes, mode: str) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert(mode))
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error
        raise UnreadableImage(reason(error)) from error
    return np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels


def _as_stored(data: bytes) -> np.ndarray:
    """All channels of the file, unconverted: Pillow, or tifffile where a TIFF has more than Pillow can hold."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == 'P':
                image = image.convert('RGBA' if 'transparency' in image.info else 'RGB')
            return np.array(image)
    except Exception as error:
        if data[:4] not in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
            raise UnreadableImage(reason(error)) from error
    try:
        import tifffile
    except ImportError as error:
        raise UnreadableImage('a TIFF of more channels than Pillow reads: pip install tifffile') from error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            return np.moveaxis(page.asarray(), 0, -1) if 'S' in page.axes[:1] else page.asarray()
    except Exception as error:
        raise UnreadableImage(reason(error)) from error


def _array(data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise UnreadableImage(reason(error)) from error


def reason(error: BaseException) -> str:
    """One line that says what went wrong, without the address of a buffer."""
    lines = str(error).strip().splitlines()
    text = lines[0].split('<_io.BytesIO')[0].strip() if lines else ''
    return text or type(error).__name__
