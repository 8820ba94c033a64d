#!/usr/bin/env python
"""Draw what maskers hide on your images, or measure how much of the annotated objects they hide.

    python tools/visualize_masks.py IMAGES... --masker RandomMasking SalienceMasking:noise=0.2 --out masks.png
    python tools/visualize_masks.py --coco instances_val2017.json --images DIR --masker RandomMasking SalienceMasking

Without --checkpoint the patch embedding is random, as at the start of a pretraining; the figure says so.
"""

import argparse
from pathlib import Path

import torch

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import add_trust_argument, trusting
from mim_mm.data.unlabelled import list_images
from mim_mm.evaluation.pictures.mask_diagnostics import coco_foreground
from mim_mm.evaluation.pictures.mask_gallery import MaskView, compare_foreground, foreground_table, gallery
from mim_mm.files import NotWritten, write_text
from mim_mm.report.figures_masks import draw_gallery


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('files', nargs='*', metavar='IMAGES', help='images, or folders of which the first --count are taken')
    add(
        '--masker',
        nargs='+',
        default=['RandomMasking', 'SalienceMasking'],
        metavar='[LABEL=]NAME[:key=value,...]',
        help='e.g. AMR=SalienceMasking:ratio.type=AdaptiveRatio,ratio.base=0.75,ratio.delta_r=0.1,ratio.threshold=0.1',
    )
    add('--config', help='pretraining config (default: MAE, ViT-B/16, 224 px)')
    add('--checkpoint', metavar='CKPT', help='whose encoder gives the tokens; without it they come from random weights')
    add('--seeds', type=int, default=3, metavar='N', help='masks of each masker on each image (default: %(default)s)')
    add('--count', type=int, default=4, help='images taken of each folder (default: %(default)s)')
    add('--out', help='PNG to write; with --coco the Markdown file (default: print)')
    add('--coco', metavar='ANN', help='COCO-format annotations: report the hidden share of boxes and object masks')
    add('--images', metavar='DIR', help='folder of the images of --coco')
    add('--limit', type=int, metavar='N', help='with --coco: only the first N images')
    add_trust_argument(parser)
    args = parser.parse_args()
    if args.coco and not args.images:
        parser.error('--coco needs --images DIR, the folder of its images')
    if bool(args.coco) == bool(args.files):
        parser.error('give IMAGES to draw, or --coco ANN --images DIR to measure')
    if args.files and not args.out:
        parser.error('--out FILE is needed to draw')
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(min(4, torch.get_num_threads()))
    try:
        with trusting(args.trust_pickle):
            view = MaskView(args.config, args.checkpoint)
        if args.coco:
            items = list(coco_foreground(args.coco, args.images, (view.rows, view.columns), args.limit))
            text = foreground_table(compare_foreground(view, items, args.masker, args.seeds), view.note)
            print(text)
            if args.out:
                write_text(args.out, text + '\n')
            return
        files = [f for path in args.files for f in (list_images(path)[: args.count] if Path(path).is_dir() else [path])]
        print(draw_gallery(gallery(view, files, args.masker, args.seeds), args.out))
    except (FileNotFoundError, KeyError, NotImplementedError, TypeError, ValueError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
