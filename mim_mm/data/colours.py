"""Colour operations of joint-embedding methods, by one short statement: jitter, grey, blur and solarise, in that order.

On the CPU torchvision's transforms on Pillow images, as the releases of DINO, iBOT and MoCo v3 have them; on the GPU
kornia's, which draw from the same distributions (:class:`ColourViews`, ``pip install 'mim_mm[colour]'``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmpretrain.models.utils.data_preprocessor import SelfSupDataPreprocessor
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision import transforms

from mim_mm.registry import MODELS


@dataclass(frozen=True)
class Colours:
    """What happens to the colours of a view; all of it is off by default.

    Attributes:
        jitter: brightness, contrast, saturation and hue as torchvision's ``ColorJitter`` takes them, in random order.
        jitter_prob, grey_prob, blur_prob, solarise_prob: how often each happens, 0 to 1, independently.
        blur_sigma: the range of the Gaussian's standard deviation in pixels, drawn evenly. (Pillow's ``radius``.)

    Raises:
        ValueError: a probability outside [0, 1], a negative or empty range.
    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_prob: float = 0.0
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise_prob: float = 0.0

    def __post_init__(self) -> None:
        for name in ('jitter_prob', 'grey_prob', 'blur_prob', 'solarise_prob'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} is {getattr(self, name)}: a probability lies between 0 and 1')
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(
                f'jitter is {self.jitter}: give brightness, contrast, saturation and hue, none below 0 and hue at most '
                '0.5, e.g. (0.4, 0.4, 0.2, 0.1)'
            )
        if len(self.blur_sigma) != 2 or not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f'blur_sigma is {self.blur_sigma}: give (least, largest), both positive, e.g. (0.1, 2.0)')

    @property
    def none(self) -> bool:
        return not (self.jitter_prob or self.grey_prob or self.blur_prob or self.solarise_prob)


class Blur:
    """Pillow's Gaussian blur of a random sigma, as DINO, iBOT and MoCo v3 blur."""

    def __init__(self, sigma: Sequence[float]) -> None:
        self.sigma = tuple(sigma)

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


def on_pillow(colours: Colours) -> transforms.Compose:
    """The operations on a Pillow RGB image; those that never happen are left out."""
    steps = []
    if colours.jitter_prob:
        steps.append(transforms.RandomApply([transforms.ColorJitter(*colours.jitter)], colours.jitter_prob))
    if colours.grey_prob:
        steps.append(transforms.RandomGrayscale(colours.grey_prob))
    if colours.blur_prob:
        steps.append(transforms.RandomApply([Blur(colours.blur_sigma)], colours.blur_prob))
    if colours.solarise_prob:
        steps.append(transforms.RandomSolarize(128, colours.solarise_prob))
    return transforms.Compose(steps)


def on_device(colours: Colours) -> nn.Module:
    """The operations on RGB batches (B, 3, H, W) in [0, 1], each image drawn on its own, by kornia.

    Two things are not Pillow's: nothing is rounded to 8 bits in between, and the order of a jitter is drawn for the
    batch and not for each image.

    Raises:
        ImportError: kornia is not installed.
    """
    try:
        import kornia.augmentation as augmentation
    except ImportError as error:
        raise ImportError(
            "colours on the device need kornia: pip install 'mim_mm[colour]', or state the colours in the pipeline"
        ) from error
    # Wide enough for three standard deviations on either side.
    kernel = 2 * int(3 * colours.blur_sigma[1] + 0.5) + 1
    steps = [
        (colours.jitter_prob, augmentation.ColorJitter, colours.jitter, {}),
        (colours.grey_prob, augmentation.RandomGrayscale, (), {}),
        (colours.blur_prob, augmentation.RandomGaussianBlur, ((kernel, kernel), tuple(colours.blur_sigma)), {}),
        # Thresholds are drawn around a half, additions around zero: here neither varies.
        (colours.solarise_prob, augmentation.RandomSolarize, (), dict(thresholds=(0.5, 0.5), additions=(0.0, 0.0))),
    ]
    return nn.Sequential(*(kind(*args, **options, p=prob) for prob, kind, args, options in steps if prob))


@MODELS.register_module()
class ColourViews(SelfSupDataPreprocessor):
    """Colour operations of views on the device that trains, then normalisation as mmpretrain's preprocessor does.

    The pipeline then states no ``colours`` of its own; views arrive as uint8 RGB.

    Args:
        colours: options of :class:`Colours` for each view, in the order of ``inputs``; None for a view left alone.
        **kwargs: ``mean``, ``std`` and the others of ``SelfSupDataPreprocessor``.

    Raises:
        ImportError: kornia is not installed. ValueError: other than as many views as ``colours``, when a batch comes.
    """

    def __init__(self, colours: Sequence[dict | None], **kwargs) -> None:
        super().__init__(**kwargs)
        self.colours = nn.ModuleList(on_device(Colours(**(options or {}))) for options in colours)

    def forward(self, data: dict, training: bool = False) -> dict:
        """``data['inputs']``, a list of (B, 3, H, W) uint8, to the same as normalised fp32."""
        data = self.cast_data(data)
        if training:
            if len(data['inputs']) != len(self.colours):
                raise ValueError(
                    f'a sample has {len(data["inputs"])} views and data_preprocessor.colours states '
                    f'{len(self.colours)}: give one entry for each, None for a view left alone'
                )
            data['inputs'] = [self._colour(view, own) for view, own in zip(data['inputs'], self.colours)]
        return super().forward(data, training)

    @staticmethod
    @torch.no_grad()
    def _colour(view: Tensor, own: nn.Sequential) -> Tensor:
        return own(view.float() / 255) * 255 if len(own) else view
