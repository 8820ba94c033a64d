"""Bytes of an image, in any format, to an array with as many channels as the model takes.

The one decoder of surveys, training, evaluation and pictures, so that a file looks the same to all of them.
"""

from __future__ import annotations

import io
import os

import cv2
import mmcv
import numpy as np

from mim_mm import files
from mim_mm.data.image_header import TIFFS, UnreadableImage, check_pixels, check_size, pillow_image
from mim_mm.data.pixel_values import ValueRange, to_bytes
from mim_mm.folders import DataError

PLAIN = (1, 3)  # numbers of channels to which anything is converted; others must be in the file
JPEG, PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
ORIENTATION = 0x0112


def decode(data: bytes, channels: int = 3, name: str = '', value_range: ValueRange = None) -> np.ndarray:
    """Decode an image.

    To 3 or 1 channels anything is converted: grey is repeated, colour becomes luminance, opacity is dropped, palettes
    and CMYK become colours, 1 bit becomes 0 and 255; of several frames it is the first. Numbers of more than 8 bits are
    mapped from ``value_range`` to 0..255. Any other number of channels must be what the file has (RGBA and CMYK: 4;
    TIFF and ``.npy``: any); these keep their values, as uint8 or else float32. Orientation noted by a camera (EXIF) is
    applied.

    Args:
        data: the file's content.
        channels: C.
        name: the file's name; ``.npy`` is known by it.
        value_range: of files that are not of 8 bits, see :mod:`mim_mm.data.pixel_values`. A PGM states its own.

    Returns:
        (H, W, C) array, for C = 1 (H, W). Three channels are in the order B, G, R, as everywhere in mmcv; others in
        the file's order. uint8 for 1 and 3 channels; else also float32.

    Raises:
        UnreadableImage: with the reason; also an image above the limit of :mod:`mim_mm.data.image_header`, unread.
        ValueRangeError: more than 8 bits and no range, or values outside of it.
    """
    if not data:
        raise UnreadableImage('the file is empty')
    check_size(data, name)
    raw = name.lower().endswith('.npy')
    if channels in PLAIN and not raw:
        if data[:2] == JPEG or data[:8] == PNG and data[24:25] <= b'\x08' or data[:2] == b'BM':
            image = _by_mmcv(data, 'color' if channels == 3 else 'grayscale')
            if image is not None:
                return image
        image = stored(data)
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise UnreadableImage(f'an array of shape {image.shape} is no image: (H, W) or (H, W, C) is')
        image = image if image.ndim == 2 or image.shape[2] > 2 else image[..., 0]  # grey, without opacity
        if image.ndim == 3 and image.shape[2] > 4:
            raise UnreadableImage(f'it has {image.shape[2]} channels, {channels} are wanted')
        return _plain(to_bytes(image, value_range, name), channels)
    image = _array(data) if raw else stored(data, convert=False)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or 0 in image.shape:
        raise UnreadableImage(f'an array of shape {image.shape} is no image: (H, W) or (H, W, C) is')
    if raw and channels == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, 2)
    if image.shape[2] != channels:
        raise UnreadableImage(f'it has {image.shape[2]} channels, {channels} are wanted')
    _finite(image)
    if channels in PLAIN:
        image = to_bytes(image, value_range, name)
    image = image if image.dtype == np.uint8 else image.astype(np.float32)
    if raw and channels == 3:
        return np.ascontiguousarray(image[..., ::-1])  # stored as R, G, B
    return image[..., 0] if channels == 1 else image


def read_image(path: str | os.PathLike, value_range: ValueRange = None, channels: int = 3) -> np.ndarray:
    """(H, W, 3) uint8 in B, G, R of a file, for pictures; other ``channels`` as :func:`decode` gives them.

    Raises:
        FileNotFoundError: there is no such file. NoRegularFile: a pipe, device or socket.
        UnreadableImage, ValueRangeError: naming it.
    """
    data = files.read_regular(path)
    try:
        return decode(data, channels, str(path), value_range)
    except UnreadableImage as error:
        raise UnreadableImage(f"'{path}' cannot be read: {error}") from error


def bits_of(image, head: bytes) -> tuple[int, bool]:
    """Bits of one number in the file, and whether it is a float.

    Args:
        image: opened by Pillow, not loaded.
        head: the first bytes of the file.
    """
    if image.format == 'PNG':
        return head[24], False
    if image.format == 'TIFF':
        depths, kinds = image.tag_v2.get(258) or (1,), image.tag_v2.get(339) or (1,)
        return max(depths), max(kinds) == 3
    if image.mode == 'F':
        return 32, True
    if image.format == 'PPM':
        return 16 if image.mode == 'I' else 8, False
    return (32 if image.mode == 'I' else 16 if image.mode.startswith('I;16') else 1 if image.mode == '1' else 8), False


def stored(data: bytes, convert: bool = True) -> np.ndarray:
    """The numbers of a file that is not left to OpenCV, upright.

    Args:
        convert: palettes, CMYK and other colour spaces to grey or R, G, B; else the file's channels, and of palettes
            the colours. More than 8 bits are never converted.

    Returns:
        (H, W) or (H, W, C), R, G, B(, A), of the file's type.

    Raises:
        UnreadableImage: with the reason; also for numbers that are not finite.
    """
    from PIL import ImageOps

    try:
        with pillow_image().open(io.BytesIO(data)) as image:
            check_pixels(*image.size, len(image.getbands()))
            bits, floats = bits_of(image, data)
            if image.format == 'PPM' and image.mode == 'I':  # Pillow has mapped the file's own largest value to 65535
                return to_bytes(np.asarray(image).astype(np.uint16), (0, 65535))
            if bits > 8 and convert and image.mode in ('CMYK', 'LAB', 'YCbCr'):
                raise UnreadableImage(f'{image.mode} of {bits} bits is not converted: write it as RGB')
            if bits > 8 and (len(image.getbands()) > 1 or image.mode not in ('I', 'F') and image.mode[:4] != 'I;16'):
                return _deep(data, 1 if image.format == 'TIFF' else orientation_of(image))
            pixels = _pixels(ImageOps.exif_transpose(image), convert)
            if bits > 8 and image.format == 'TIFF' and image.tag_v2.get(262) == 0:  # black is the largest value
                return _inverted(pixels, bits, floats)
            return _finite(pixels)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error
        if data[:4] not in TIFFS and data[:2] != b'BM':
            raise UnreadableImage(reason(error)) from error
    return _deep(data)


def _pixels(image, convert: bool) -> np.ndarray:
    """A loaded image of Pillow's of at most 8 bits, or of one band."""
    if image.mode == 'P':
        image = image.convert('RGBA' if 'transparency' in image.info and not convert else 'RGB')
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
        pixels = np.asarray(image)
        return pixels.astype(np.uint16) if image.mode.startswith('I;16') and pixels.dtype.kind != 'u' else pixels
    if convert and image.mode not in ('L', 'LA', 'RGB', 'RGBA'):
        image = image.convert('L' if image.mode in ('1', 'La') else 'RGB')
    return np.array(image)


def orientation_of(image) -> int:
    """EXIF's orientation as the decoder applies it: 1 is upright, 2 to 8 are turned or mirrored.

    Args:
        image: opened by Pillow, not loaded.
    """
    if image.format == 'TIFF':
        value = image.tag_v2.get(ORIENTATION, 1)
    elif image.format in ('JPEG', 'PNG'):  # OpenCV reads no XMP
        exif = pillow_image().Exif()
        exif.load(image.info.get('exif', b''))
        value = exif.get(ORIENTATION, 1)
    else:
        value = image.getexif().get(ORIENTATION, 1)
    return value if value in range(2, 9) else 1


def _deep(data: bytes, orientation: int = 1) -> np.ndarray:
    """Several channels of more than 8 bits, which Pillow would cut to 8, or a TIFF that it does not know."""
    image = None
    if data[:4] in TIFFS:
        image = _by_tifffile(data)
    if image is None:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise UnreadableImage(reason(error)) from error
        if image is None:
            raise UnreadableImage(
                'Pillow and OpenCV cannot decode it' + '; pip install tifffile reads more' * (data[:4] in TIFFS)
            )
        if image.ndim == 3 and image.shape[2] in (3, 4):
            image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return _finite(upright(image, orientation))


def _by_tifffile(data: bytes) -> np.ndarray | None:
    try:
        import tifffile
    except ImportError:
        return None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            check_pixels(page.imagewidth, page.imagelength, page.samplesperpixel)
            pixels = np.moveaxis(page.asarray(), 0, -1) if 'S' in page.axes[:1] else page.asarray()
            tag = page.tags.get(ORIENTATION)
            return upright(pixels, tag.value if tag is not None else 1)
    except UnreadableImage:
        raise
    except Exception:  # e.g. a compression for which it lacks a package; OpenCV may have it
        return None


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF's orientation (2 to 8; others change nothing) of (H, W, ...). Source: EXIF 2.3, section 4.6.4."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _inverted(pixels: np.ndarray, bits: int, floats: bool) -> np.ndarray:
    return _finite(1 - pixels if floats else (2**bits - 1 - pixels.astype(np.int64)).astype(pixels.dtype))


def _finite(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == 'f' and not np.isfinite(pixels).all():
        raise UnreadableImage('it has values that are not finite (NaN or infinity)')
    return pixels


def _plain(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (H, W), or (H, W, 3 or 4) in R, G, B(, A), to the model's one or three channels."""
    if channels == 1:
        return image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2GRAY)
    return np.repeat(image[..., None], 3, 2) if image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])


def _by_mmcv(data: bytes, flag: str) -> np.ndarray | None:
    try:
        return mmcv.imfrombytes(data, flag=flag)
    except Exception:  # OpenCV has many ways to say that it does not know a format
        return None


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
