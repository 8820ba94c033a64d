#!/usr/bin/env python
"""Accuracy from few labels: logistic regression on frozen features; prints tables, writes lowshot.json.

python tools/lowshot.py CONFIG CKPT --list 1percent.txt 10percent.txt              # published splits
python tools/lowshot.py CONFIG CKPT --fraction 0.01 0.1 --draws 0 1 2              # our own draws
python tools/lowshot.py CONFIG CKPT --shots 1 2 5 10 --draws 0 1 2 --curve         # n images of each class, lowshot.png
"""

import argparse

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import trusting
from mim_mm.evaluation.frozen import command, draws, lowshot
from mim_mm.files import NotWritten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/probes.md'
    )
    command.add_feature_arguments(parser)
    parser.add_argument('--list', nargs='+', metavar='FILE', help='files that name the labelled training images')
    parser.add_argument('--fraction', type=float, nargs='+', help='part of each class to draw (default: 0.01 0.1)')
    parser.add_argument('--shots', type=int, nargs='+', metavar='N', help='images of each class to draw')
    parser.add_argument('--draws', type=int, nargs='+', default=[0], help='seeds of the draws (default: 0)')
    parser.add_argument('--curve', action='store_true', help='also draw lowshot.png: accuracy over labels')
    args = parser.parse_args()
    fractions = args.fraction or ([] if args.list or args.shots else [0.01, 0.1])
    try:
        if len(set(args.draws)) < len(args.draws):
            raise ValueError(f'--draws {args.draws}: a seed twice is one draw, and would make the spread too small')
        with trusting(args.trust_pickle):
            train, val, work_dir = command.frozen_features(args)
        splits = [lowshot.read_split(file, train.names) for file in args.list or ()]
        splits += [lowshot.draw_split(train.labels, f, seed) for f in fractions for seed in args.draws]
        shots = [(n, seed) for n in args.shots or () for seed in args.draws]
        splits += [lowshot.draw_shots(train.labels, n, train.classes, seed) for n, seed in shots]
        results = []
        for split in splits:
            results.append(lowshot.low_shot(train, val, split))
            print(lowshot.table(results[-1]), flush=True)
        summary = draws.summarise(results)
        content = dict(splits=results, summary=summary)
        command.write_result(work_dir / 'lowshot.json', content, dict(train=train.provenance, val=val.provenance))
        print(f'{draws.table(summary)}\nWritten to {work_dir / "lowshot.json"}')
        if args.curve:
            from mim_mm.report.figures_lowshot import draw_lowshot

            print(f'Drawn to {draw_lowshot(summary, work_dir / "lowshot.png")}')
    except (FileNotFoundError, ValueError, FloatingPointError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
