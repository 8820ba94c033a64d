"""Several views of an image from one decoding: multi-crop (DINO, iBOT) and shifted windows (CMAE).

Both leave ``inputs``, a list of uint8 RGB tensors (3, h, w), in the order in which the recipe states its views: that of
mmpretrain's ``MultiView``, large ones first. ``default_collate`` makes it a list of (B, 3, h, w), which mmpretrain's
``SelfSupDataPreprocessor`` normalises and a method gets as a list. Masks are the model's: it draws them for each view
from its own generator, so that a step can be replayed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from PIL import Image

from mim_mm.data.colours import Colours, on_pillow
from mim_mm.data.decode import UnreadableImage, decode
from mim_mm.data.fast_crop import Box, FastRandomResizedCrop, choose_decoder, cut, resize
from mim_mm.data.image_header import read_jpeg_header
from mim_mm.registry import TRANSFORMS


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of them."""
    top, left = (min(box[i] for box in boxes) for i in (0, 1))
    bottom, right = (max(box[i] + box[i + 2] for box in boxes) for i in (0, 1))
    return top, left, bottom - top, right - left


def finish(view: torch.Tensor, colours) -> torch.Tensor:
    """A uint8 RGB tensor (3, h, w) after its colour operations."""
    if not colours.transforms:
        return view.contiguous()
    image = colours(Image.fromarray(view.permute(1, 2, 0).contiguous().numpy()))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def three_channels(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) in R, G, B of pixels (h, w), (h, w, 1) or (h, w, 3) in B, G, R.

    Raises:
        UnreadableImage: another number of channels.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] not in (1, 3):
        raise UnreadableImage(f'it has {pixels.shape[2]} channels, and colours have 3: leave multi-crop out')
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., ::-1]


@TRANSFORMS.register_module()
class MultiCrop(BaseTransform):
    """Random crops of several kinds, cut out of one decoding of the image.

    Boxes are known from a JPEG's header, so no more is decoded than what holds all of them. Takes the place of
    :class:`mim_mm.data.fast_crop.FastRandomResizedCrop` behind ``LazyLoadImageFromFile``; :class:`PackViews` follows.

    Adds ``views``, a list of uint8 RGB tensors (3, h, w); ``boxes``, (top, left, height, width) of each in pixels of
    the image; ``flips``, whether each was mirrored, after cutting.

    Args:
        views: options of each kind of view: ``num`` (1) of them; ``scale``, the side of the result, and
            ``crop_ratio_range`` and ``aspect_ratio_range`` as ``FastRandomResizedCrop``; ``flip`` (0.5), a probability;
            ``colours``, options of :class:`mim_mm.data.colours.Colours`.
        interpolation, decoder, skip_unreadable: as ``FastRandomResizedCrop``.

    Raises:
        UnreadableImage: nothing can decode it, unless ``skip_unreadable``.
        ValueError: no views, or options that make none.
    """

    def __init__(
        self,
        views: Sequence[dict],
        interpolation: str = 'bicubic',
        decoder: str = 'auto',
        skip_unreadable: bool = False,
    ) -> None:
        self.crops, self.flip_probs, self.colours = [], [], []
        for view in views:
            options = dict(view)
            num, flip = options.pop('num', 1), options.pop('flip', 0.5)
            colours = on_pillow(Colours(**options.pop('colours', {})))
            if num < 1 or not 0 <= flip <= 1:
                raise ValueError(f'num={num}, flip={flip}: at least one view, and a probability between 0 and 1')
            # The box alone is asked of it; decoding is done here, once.
            crop = FastRandomResizedCrop(interpolation=interpolation, decoder='opencv', **options)
            self.crops += [crop] * num
            self.flip_probs += [flip] * num
            self.colours += [colours] * num
        if not self.crops:
            raise ValueError('views is empty: state at least one, e.g. [dict(scale=224, num=2), dict(scale=96, num=8)]')
        self.interpolation = interpolation
        self.decode_box = choose_decoder(decoder)
        self.skip_unreadable = skip_unreadable

    def decode(self, results: dict) -> tuple[np.ndarray, list[Box], Box]:
        """Pixels (h, w, C), the boxes of the views in the image, and which box of it the pixels are."""
        if 'img' in results:
            image, header = results['img'], None
        else:
            data, name = results['img_bytes'], str(results.get('name') or results.get('img_path', ''))
            header = read_jpeg_header(data) if self.decode_box else None
            if header and header.simple:
                boxes = [crop.draw(header.height, header.width) for crop in self.crops]
                whole = around(boxes)
                pixels = self.decode_box(data, header, whole)
                if pixels is not None:
                    return pixels, boxes, whole
            image = decode(data, 3, name, results.get('value_range'))
        height, width = image.shape[:2]
        return image, [crop.draw(height, width) for crop in self.crops], (0, 0, height, width)

    def transform(self, results: dict) -> dict | None:
        try:
            pixels, boxes, (top, left, *_) = self.decode(results)
            pixels = three_channels(pixels)
        except UnreadableImage as error:
            where = results.get('name') or results.get('img_path', 'an image')
            if not self.skip_unreadable:
                raise UnreadableImage(f"'{where}' cannot be read: {error}") from error
            print_log(f"'{where}' cannot be read and is passed over: {error}", logger='current')
            return None
        views, flips = [], []
        for box, crop, flip_prob, colours in zip(boxes, self.crops, self.flip_probs, self.colours):
            here = cut(pixels, (box[0] - top, box[1] - left, box[2], box[3]))
            view = resize(here, tuple(crop.scale), self.interpolation)
            flips.append(random.random() < flip_prob)
            views.append(finish(view.flip(2) if flips[-1] else view, colours))
        results.pop('img_bytes', None)
        results.update(views=views, boxes=boxes, flips=flips)
        return results


@TRANSFORMS.register_module()
class ShiftedViews(BaseTransform):
    """Windows of one size at random offsets of a crop that is a little larger (CMAE's pixel shift).

    Takes ``img`` (H, W, C) in B, G, R and its ``flip``, behind ``FastRandomResizedCrop`` and ``FastRandomFlip``. Adds
    ``views``, ``boxes`` (in pixels of the crop, after the flip) and ``flips`` as :class:`MultiCrop` does.

    Args:
        views: options of each view: ``shift`` (0), its largest offset in pixels, down and to the right, each drawn
            evenly from 0..shift; ``colours``, options of :class:`mim_mm.data.colours.Colours`.
        size: side of a window in pixels.

    Raises:
        ValueError: no view, a negative shift; when an image comes, one that a window may reach out of.
    """

    def __init__(self, views: Sequence[dict], size: int = 224) -> None:
        if not views:
            raise ValueError('views is empty: state at least one, e.g. [dict(), dict(shift=31)]')
        unknown = sorted({key for view in views for key in view} - {'shift', 'colours'})
        if unknown:
            raise ValueError(f'views have unknown options {unknown}: use shift and colours')
        self.size = size
        self.shifts = [view.get('shift', 0) for view in views]
        if min(self.shifts) < 0:
            raise ValueError(f'shifts are {self.shifts}: give the largest offset in pixels, 0 for the top left corner')
        self.colours = [on_pillow(Colours(**view.get('colours', {}))) for view in views]

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        needed = self.size + max(self.shifts)
        if min(height, width) < needed:
            raise ValueError(
                f'a window of {self.size} px shifted by up to {max(self.shifts)} does not fit an image of '
                f'{height} x {width}: crop to at least {needed} px before'
            )
        whole = torch.from_numpy(np.ascontiguousarray(three_channels(results['img']))).permute(2, 0, 1)
        views, boxes = [], []
        for shift, colours in zip(self.shifts, self.colours):
            top, left = random.randint(0, shift), random.randint(0, shift)
            views.append(finish(whole[:, top : top + self.size, left : left + self.size], colours))
            boxes.append((top, left, self.size, self.size))
        results.update(views=views, boxes=boxes, flips=[bool(results.get('flip', False))] * len(views))
        return results


@TRANSFORMS.register_module()
class PackViews(BaseTransform):
    """``dict(inputs=[uint8 (3, h, w), ...], data_samples=dict(boxes=(V, 4), flips=(V,)))``, large views first.

    Of V views ``data_samples`` says where each was cut (top, left, height, width) and whether it is mirrored.
    """

    def transform(self, results: dict) -> dict:
        if 'views' not in results:
            raise KeyError("PackViews: no 'views'; MultiCrop or ShiftedViews comes before it")
        placed = dict(boxes=torch.tensor(results['boxes']), flips=torch.tensor(results['flips']))
        return dict(inputs=results['views'], data_samples=placed)
