#!/usr/bin/env python
"""Accuracy and calibration of a trained classifier on other versions of its test set; docs/robustness.md.

python tools/robustness.py configs/finetune/vitb_finetune_100e.py CKPT --sets val=data/imagenet/val a=imagenet-a \
    r=imagenet-r v2=imagenetv2-matched-frequency-format-val sketch=sketch c=imagenet-c --real real.json
"""

import argparse
from pathlib import Path

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import add_trust_argument, trusting
from mim_mm.evaluation.robustness.measure import measure, table
from mim_mm.files import NotWritten, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('config', help='classification config (fine-tuning, or a probe)')
    add('checkpoint', help='checkpoint trained with it')
    add('--sets', nargs='+', required=True, metavar='NAME=DIR', help='val, v2, sketch, a, r, c')
    add('--real', metavar='JSON', help='real.json of ImageNet-ReaL, for the set val')
    add('--classes', metavar='DIR', help="training folder, whose names number the classes (default: the config's)")
    add('--out', metavar='JSON', help='file to write (default: robustness.json beside the checkpoint)')
    add('--batch-size', type=int, default=64, metavar='N', help='images at a time (default: %(default)s)')
    add('--workers', type=int, default=4, metavar='N', help='loader processes (default: %(default)s)')
    add('--device', default='cpu', help='e.g. cuda (default: %(default)s)')
    add_trust_argument(parser)
    args = parser.parse_args()
    try:
        with trusting(args.trust_pickle):
            loading = dict(batch_size=args.batch_size, workers=args.workers)
            found = measure(
                args.config, args.checkpoint, args.sets, args.real, args.classes, args.device, loading, print
            )
        out = Path(args.out or Path(args.checkpoint).parent / 'robustness.json')
        write_json(out, found)
        print(f'{table(found)}\nWritten to {out}')
    except (FileNotFoundError, ValueError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
