"""The options of ``tools/transfer.py`` that say which data of one's own and which method."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

DEFAULT_METHOD = 'configs/emae/emae_vitb_300e.py'


@dataclass
class OwnData:
    """The options of ``tools/transfer.py`` that say which data and which method."""

    images: str | None = None
    classes: str | None = None
    boxes: str | None = None
    boxes_images: str | None = None
    boxes_val: str | None = None
    boxes_val_images: str | None = None
    masks: str | None = None
    method: str = DEFAULT_METHOD
    channels: int = 3
    val_fraction: float = 0.2
    decode: bool = False
    max_unreadable: float = 0.1
    value_range: list[float] | None = None
    image_size: int | None = None
    small: bool = False
    no_scratch: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`OwnData` to a parser."""
    group = parser.add_argument_group('own data, in place of a chain config', 'More: docs/own_data.md')
    add = group.add_argument
    add('--images', metavar='DIR|LIST|TAR', help='unlabelled images: a folder, a list file, tar shards (quote a glob)')
    add('--classes', metavar='DIR', help='DIR/train/<class>/*, DIR/val/<class>/*, or DIR/<class>/*')
    add('--boxes', metavar='JSON', help='annotations in COCO format; divided by a seed without --boxes-val')
    add('--boxes-images', metavar='DIR', help="where the annotations' images lie")
    add('--boxes-val', metavar='JSON', help='annotations to evaluate on')
    add('--boxes-val-images', metavar='DIR', help='where their images lie, if elsewhere')
    add('--masks', metavar='DIR', help='semantic segmentation: DIR/images/*, DIR/masks/* (docs/segmentation.md)')
    add('--method', default=DEFAULT_METHOD, metavar='CONFIG', help='pretraining recipe (default: %(default)s)')
    add('--channels', type=int, default=3, metavar='N', help='channels of the model; to 1 and 3 all is converted')
    add('--val-fraction', type=float, default=0.2, metavar='F', help='held out where no validation set is given')
    add('--decode', action='store_true', help='survey by decoding every image, not by its header')
    add('--max-unreadable', type=float, default=0.1, metavar='F', help='stop if more of the images cannot be read')
    add(
        '--value-range', type=float, nargs=2, metavar=('BLACK', 'WHITE'),
        help='of files of more than 8 bits (default: found by the survey, e.g. 0 4095, or 0 1 for floats)',
    )  # fmt: skip
    add('--image-size', type=int, metavar='PX', help="side of the images in every stage (default: the method's)")
    add('--small', action='store_true', help="every stage, detection too, on images of half the method's side")
    add(
        '--no-scratch',
        action='store_true',
        help='leave out the runs from a random encoder, which say what pretraining adds',
    )


def take_options(args: dict[str, Any]) -> OwnData:
    """Take these options out of the parsed ones, so that the others are those of a call of the chain."""
    return OwnData(**{name: args.pop(name) for name in OwnData.__dataclass_fields__})
