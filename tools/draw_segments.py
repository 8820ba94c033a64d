#!/usr/bin/env python
"""Draw the classes that a segmentation model predicts, and the truth, on images of its test set.

python tools/draw_segments.py configs/seg/upernet_vitb_160k.py CKPT [IMAGE...] --out figure.png
"""

import argparse

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import add_trust_argument, trusting
from mim_mm.evaluation.pictures.segments import segment_scenes
from mim_mm.files import NotWritten
from mim_mm.report.figures_segments import draw_segments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='segmentation config')
    parser.add_argument('checkpoint', help='checkpoint trained with it')
    parser.add_argument('images', nargs='*', help='file names in the test set (default: its first images)')
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--count', type=int, default=6, help='images when none is named (default: %(default)s)')
    add_trust_argument(parser)
    args = parser.parse_args()
    try:
        with trusting(args.trust_pickle):
            result = segment_scenes(args.config, args.checkpoint, args.images, args.count)
        print(draw_segments(result, args.out))
    except (FileNotFoundError, ValueError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
