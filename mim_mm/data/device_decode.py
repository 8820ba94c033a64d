"""JPEGs decoded on the training device: workers draw boxes and send bytes, the data preprocessor does the rest.

For hosts with too few cores for their GPUs. Tried on a CPU only, where it decodes with torchvision; how fast it is on a
GPU has not been measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor
from torch.nn.functional import interpolate

from mim_mm.data.fast_crop import FastRandomResizedCrop, read_jpeg_header
from mim_mm.registry import MODELS, TRANSFORMS


@TRANSFORMS.register_module()
class CropOnDevice(FastRandomResizedCrop):
    """Draw the box and the flip, and leave the pixels of colour JPEGs to :class:`DecodingPreprocessor`.

    Takes ``img_bytes``; gives ``dict(inputs, box, flip)``: ``inputs`` is the file, uint8 (bytes,), and ``box`` its
    (top, left, height, width); or, for what a GPU decoder does not take (other formats, grey, CMYK, turned, damaged in
    the header), the crop made here, uint8 RGB (3, h, w), with a ``box`` of zeros. The loader needs
    ``collate_fn=dict(type='pseudo_collate')``. No ``RandomFlip`` and no ``PackImage`` behind it.

    Args:
        flip_prob: of a horizontal flip.
        scale and others: of :class:`FastRandomResizedCrop`; the same seed gives the same boxes and flips.
    """

    def __init__(self, scale, flip_prob: float = 0.5, **kwargs) -> None:
        super().__init__(scale, **kwargs)
        if not 0 <= flip_prob <= 1:
            raise ValueError(f'flip_prob={flip_prob} must be a probability, 0 to 1')
        self.flip_prob = flip_prob

    def transform(self, results: dict) -> dict | None:
        data = results.get('img_bytes')
        header = read_jpeg_header(data) if data else None
        if header is not None and header.simple and header.components == 3:
            box = self.draw(header.height, header.width)
            inputs = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        else:
            results = super().transform(results)
            if results is None:
                return None
            box = (0, 0, 0, 0)
            image = results['img'][..., ::-1].transpose(2, 0, 1)
            inputs = torch.from_numpy(np.ascontiguousarray(image))
        return dict(inputs=inputs, box=torch.tensor(box), flip=bool(np.random.random_sample() < self.flip_prob))


@MODELS.register_module()
class DecodingPreprocessor(BaseDataPreprocessor):
    """Decode, crop, resize, flip and standardise on the device what :class:`CropOnDevice` sends.

    A file that the device's decoder refuses is decoded on the host. On a GPU the resizing is done in fp32 and rounded
    to 8 bits, which is nearer to the exact value than what a CPU does in integers.

    Args:
        mean, std: three values each, R, G, B, in 8-bit numbers.
        size: side of the crops in pixels, or (h, w).
        interpolation: ``bicubic`` or ``bilinear``, antialiased.
        non_blocking: copy without waiting.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | tuple[int, int] = 224,
        interpolation: str = 'bicubic',
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        self.non_blocking = non_blocking
        if len(mean) != 3 or len(std) != 3 or not all(s > 0 for s in std):
            raise ValueError(f'mean={list(mean)} and std={list(std)}: three values each, std above 0')
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.interpolation = interpolation
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """``inputs``, ``box`` and ``flip``, lists of B -> ``dict(inputs=fp32 (B, 3, h, w))``."""
        files = [i for i, item in enumerate(data['inputs']) if item.ndim == 1]
        decoded = dict(zip(files, self._decode([data['inputs'][i] for i in files])))
        crops = []
        for index, (item, box, flip) in enumerate(zip(data['inputs'], data['box'], data['flip'])):
            if index in decoded:
                top, left, height, width = box.tolist()
                item = self._resize(decoded[index][:, top : top + height, left : left + width])
            else:
                item = item.to(self.device, non_blocking=self.non_blocking)
            crops.append(item.flip(-1) if flip else item)
        images = torch.stack(crops) if crops else torch.empty(0, 3, *self.size, device=self.device)
        return dict(inputs=(images.float() - self.mean) / self.std)

    def _decode(self, files: list[Tensor]) -> list[Tensor]:
        """Files as uint8 (3, H, W) on the device; the whole batch in one call where that is possible."""
        from torchvision.io import ImageReadMode, decode_jpeg

        device = torch.device(self.device)
        files = [file.cpu() for file in files]  # torchvision wants the bytes on the host
        if device.type != 'cuda' or not files:
            return [decode_jpeg(file, ImageReadMode.RGB) for file in files]
        try:
            return decode_jpeg(files, ImageReadMode.RGB, device)
        except RuntimeError:  # one of them is beyond the GPU's decoder: that one comes from the host
            return [self._decode_one(file, device) for file in files]

    def _decode_one(self, file: Tensor, device: torch.device) -> Tensor:
        from torchvision.io import ImageReadMode, decode_jpeg

        try:
            return decode_jpeg(file, ImageReadMode.RGB, device)
        except RuntimeError:
            return decode_jpeg(file, ImageReadMode.RGB).to(device)

    def _resize(self, image: Tensor) -> Tensor:
        kind = dict(size=self.size, mode=self.interpolation, antialias=True, align_corners=False)
        if image.is_cuda:  # no 8-bit kernel there
            return interpolate(image[None].float(), **kind)[0].round_().clamp_(0, 255).to(torch.uint8)
        return interpolate(image[None].contiguous(memory_format=torch.channels_last), **kind)[0]
