#!/usr/bin/env python
"""Measure every checkpoint of a pretraining as it appears: k-NN and many linear heads on frozen features.

    python tools/watch.py WORK_DIR --data data/imagenet --device cuda      # until the training has finished
    python tools/watch.py WORK_DIR --config configs/linear/vitb_linear_90e.py --once

Writes WORK_DIR/quality.jsonl and quality.png. Without --data and --config the run's QualityHook says what to measure.
"""

import argparse
import sys
from pathlib import Path

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import trusting
from mim_mm.evaluation.frozen.command import add_load_arguments
from mim_mm.evaluation.quality.quality_watch import WatchCall, watch
from mim_mm.files import NotWritten
from mim_mm.report.figures_quality import draw_quality

SETTINGS = dict(
    data='folder with train/<class>/* and val/<class>/*',
    max_train_per_class='training images of a class, 0 for all (default: 50)',
    max_val_per_class='test images of a class, 0 for all (default: 20)',
    resize='short edge in pixels (default: crop * 256 / 224)',
    crop="centre crop in pixels (default: the backbone's img_size)",
    batch_size='images of a forward pass (default: 128)',
    workers='loader processes (default: 2)',
    amp='bf16 or fp16 autocast of the encoder (default: float32)',
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/quality.md'
    )
    add = parser.add_argument
    add('work_dir', help='of the pretraining')
    add('--config', help='config whose backbone, preprocessing and data_root are used, e.g. of a linear probe')
    add('--once', action='store_true', help='measure what is there and end')
    add('--every', type=float, default=30.0, metavar='S', help='seconds between looks (default: %(default)s)')
    add('--device', default='cpu', help='cpu or cuda (default: %(default)s, beside a training that has the GPUs)')
    for name, text in SETTINGS.items():
        add(f'--{name.replace("_", "-")}', type=str if name in ('data', 'amp') else int, help=text)
    add_load_arguments(parser)
    args = vars(parser.parse_args())
    settings = {name: args.pop(name) for name in SETTINGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    for name in ('max_train_per_class', 'max_val_per_class'):
        if settings.get(name) == 0:
            settings[name] = None
    once, every, folder = args.pop('once'), args.pop('every'), Path(args['work_dir'])
    draw = lambda: draw_quality(folder, folder / 'quality.png')  # noqa: E731
    try:
        with trusting(args['trust_pickle']):
            code = watch(WatchCall(settings=settings, **args), once, every, lambda text: print(text, flush=True), draw)
        picture = draw()
        print(picture or f'nothing was measured: {folder} has no whole epoch_*.pth or iter_*.pth')
        return code
    except (FileNotFoundError, ValueError, LoadError, NotWritten) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped; what is measured stands, and the next call goes on from there', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
