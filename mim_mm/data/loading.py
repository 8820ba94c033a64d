"""``LoadImageFromFile`` of every OpenMMLab config, through the decoder that surveys and pretraining use.

mmcv's own keeps 16 grey levels of a 12-bit scan, makes black pictures of floats, and leaves some EXIF orientations
alone. Importing this module registers ours under mmcv's name (mmengine's root and mmpretrain), so that linear probes,
fine-tuning and detection see a file as pretraining does; 8-bit JPEG and PNG come out bit for bit as before.
"""

from __future__ import annotations

import mmcv.transforms
import numpy as np
from mmengine import fileio
from mmengine.registry import TRANSFORMS as ROOT
from mmpretrain.datasets import transforms as _registers_its_own  # noqa: F401
from mmpretrain.registry import TRANSFORMS as MMPRETRAIN

from mim_mm import files
from mim_mm.data.decode import UnreadableImage, decode
from mim_mm.data.image_header import check_any_size
from mim_mm.data.pixel_values import ValueRange
from mim_mm.registry import TRANSFORMS

CHANNELS = dict(color=3, grayscale=1)


def read_bytes(path: str, backend_args: dict | None = None) -> bytes:
    """A file by mmengine's ``fileio``; one on a mounted disk must be a regular file.

    Raises:
        OSError: there is none, or it is a pipe, device or socket (:class:`mim_mm.files.NoRegularFile`).
    """
    backend = fileio.get_file_backend(path, backend_args=backend_args, enable_singleton=True)
    if isinstance(backend, fileio.LocalBackend):
        return files.read_regular(path)
    return bytes(backend.get(path))


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's, decoding by :func:`mim_mm.data.decode.decode`.

    Args:
        value_range: black and white of files of more than 8 bits, see :mod:`mim_mm.data.pixel_values`.
        others: of mmcv. Another ``color_type`` than ``color`` and ``grayscale``, and another ``imdecode_backend`` than
            ``cv2``, are left to mmcv.

    Raises:
        UnreadableImage, ValueRangeError: naming the file; also for an image above the limit of pixels.
    """

    def __init__(self, *args, value_range: ValueRange = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.value_range = value_range

    def transform(self, results: dict) -> dict | None:
        path = results['img_path']
        if self.file_client_args is not None:  # of mmcv before 2.0; the file may be anywhere
            return super().transform(results)
        try:
            data = read_bytes(path, self.backend_args)
            if self.color_type not in CHANNELS or self.imdecode_backend != 'cv2':
                check_any_size(data, str(path))
                return super().transform(results)
            image = decode(data, CHANNELS[self.color_type], str(path), self.value_range)
        except (OSError, UnreadableImage) as error:
            if self.ignore_empty:
                return None
            if isinstance(error, UnreadableImage):
                raise UnreadableImage(f"'{path}' cannot be read: {error}") from error
            raise
        image = image.astype(np.float32) if self.to_float32 else image
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results


# mmpretrain has registered mmcv's a second time, in its own scope.
for _registry in (ROOT, MMPRETRAIN):
    _registry.register_module(name='LoadImageFromFile', module=LoadImageFromFile, force=True)
