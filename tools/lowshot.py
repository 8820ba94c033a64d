#!/usr/bin/env python
"""Accuracy from few labels: logistic regression on frozen features; prints tables, writes lowshot.json.

python tools/lowshot.py CONFIG CKPT --list 1percent.txt 10percent.txt     # published splits
python tools/lowshot.py CONFIG CKPT --fraction 0.01 0.1 --draws 0 1 2     # our own draws
"""

import argparse

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import trusting
from mim_mm.evaluation.frozen import knn, lowshot
from mim_mm.files import NotWritten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/probes.md'
    )
    knn.add_feature_arguments(parser)
    parser.add_argument('--list', nargs='+', metavar='FILE', help='files that name the labelled training images')
    parser.add_argument('--fraction', type=float, nargs='+', help='part of each class to draw (default: 0.01 0.1)')
    parser.add_argument('--draws', type=int, nargs='+', default=[0], help='seeds of the draws (default: 0)')
    args = parser.parse_args()
    fractions = args.fraction or ([] if args.list else [0.01, 0.1])
    try:
        with trusting(args.trust_pickle):
            train, val, work_dir = knn.frozen_features(args)
        splits = [lowshot.read_split(file, train.names) for file in args.list or ()]
        splits += [lowshot.draw_split(train.labels, f, seed) for f in fractions for seed in args.draws]
        results = []
        for split in splits:
            results.append(lowshot.low_shot(train, val, split))
            print(lowshot.table(results[-1]), flush=True)
        knn.write_result(work_dir / 'lowshot.json', dict(splits=results), train, val)
    except (FileNotFoundError, ValueError, FloatingPointError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None
    print(f'Written to {work_dir / "lowshot.json"}')


if __name__ == '__main__':
    main()
