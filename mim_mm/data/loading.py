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

from mim_mm.data.decode import UnreadableImage, decode
from mim_mm.data.pixel_values import ValueRange
from mim_mm.registry import TRANSFORMS

CHANNELS = dict(color=3, grayscale=1)


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's, decoding by :func:`mim_mm.data.decode.decode`.

    Args:
        value_range: black and white of files of more than 8 bits, see :mod:`mim_mm.data.pixel_values`.
        others: of mmcv. Another ``color_type`` than ``color`` and ``grayscale``, and another ``imdecode_backend`` than
            ``cv2``, are left to mmcv.

    Raises:
        UnreadableImage, ValueRangeError: naming the file.
    """

    def __init__(self, *args, value_range: ValueRange = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.value_range = value_range

    def transform(self, results: dict) -> dict | None:
        if self.color_type not in CHANNELS or self.imdecode_backend != 'cv2' or self.file_client_args is not None:
            return super().transform(results)
        path = results['img_path']
        try:
            data = fileio.get(path, backend_args=self.backend_args)
            image = decode(bytes(data), CHANNELS[self.color_type], str(path), self.value_range)
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
