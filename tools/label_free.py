#!/usr/bin/env python
"""RankMe and LiDAR of a frozen encoder, which need no labels: prints a table, writes label_free.json.

python tools/label_free.py configs/mae/mae_vitb_800e.py CKPT --images photos --amp bf16
python tools/label_free.py configs/mae/mae_vitb_800e.py random --images photos       # the control
"""

import argparse

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import trusting
from mim_mm.evaluation.frozen import command, label_free
from mim_mm.evaluation.frozen.drawn_images import Views
from mim_mm.evaluation.frozen.ranks import DELTA
from mim_mm.files import NotWritten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/probes.md'
    )
    command.add_feature_arguments(parser, data_root=False)
    add, views = parser.add_argument, Views()
    add('--images', help='folder at any depth, list or tar shards (default: the training images of the config)')
    add('--rankme-images', type=int, default=label_free.IMAGES, metavar='N', help='at most (default: %(default)s)')
    add('--lidar-images', type=int, default=label_free.SURROGATES, metavar='N', help='at most (default: %(default)s)')
    add('--views', type=int, default=views.count, metavar='Q', help='of each image of LiDAR (default: %(default)s)')
    area, aspect = '%(default)s: least and largest part of the image that a view shows', 'width / height of a view'
    add('--area', type=float, nargs=2, default=views.area, metavar=('LOW', 'HIGH'), help=area)
    add('--aspect', type=float, nargs=2, default=views.aspect, metavar=('LOW', 'HIGH'), help=aspect)
    add('--flip', type=float, default=views.flip, metavar='P', help='probability of a flip (default: %(default)s)')
    add('--delta', type=float, default=DELTA, help='added to the covariance within classes (default: %(default)s)')
    add('--draw', type=int, default=0, metavar='SEED', help='which images and views (default: %(default)s)')
    args = parser.parse_args()
    try:
        views = Views(args.views, tuple(args.area), tuple(args.aspect), args.flip, args.draw)
        with trusting(args.trust_pickle):
            source, work_dir = command.source_of(args)
            result, provenance = label_free.measure(
                source,
                work_dir / 'features',
                args.images,
                args.rankme_images,
                args.lidar_images,
                views,
                args.delta,
                args.draw,
                begun=lambda found: command.announce(found, source),
                **command.extraction(args),
            )
        command.write_result(work_dir / 'label_free.json', result, provenance)
    except (FileNotFoundError, ValueError, FloatingPointError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None
    print(f'{label_free.table(result)}\nWritten to {work_dir / "label_free.json"}')


if __name__ == '__main__':
    main()
