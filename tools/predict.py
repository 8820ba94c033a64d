#!/usr/bin/env python
"""Classes of images, or objects in them, by a model that was trained here; whichever the checkpoint is.

python tools/predict.py photos --model work_dirs/mine/finetune                      # prints a line an image
python tools/predict.py a.jpg b.jpg --model work_dirs/mine/detect --out found.json  # boxes, classes, scores
"""

import argparse
import json
import sys
from pathlib import Path

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm import files
from mim_mm.api.models import is_detector
from mim_mm.api.sources import config_of
from mim_mm.checkpoint.read import LoadError
from mim_mm.data.unlabelled import list_images


def classified(paths: list[str], args: argparse.Namespace) -> list[dict]:
    found = mim_mm.api.predict(args.model, paths, args.config, top=args.top, device=args.device)
    return [
        dict(image=path, classes=p.names, labels=p.labels, scores=[round(s, 4) for s in p.scores])
        for path, p in zip(paths, found)
    ]


def detected(paths: list[str], args: argparse.Namespace) -> list[dict]:
    found = mim_mm.api.detect(args.model, paths, args.config, above=args.above, device=args.device)
    return [
        dict(
            image=path, classes=d.names, labels=d.labels.tolist(), boxes=d.boxes.round(1).tolist(),
            scores=[round(float(score), 4) for score in d.scores],
        )
        for path, d in zip(paths, found)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/api.md'
    )
    add = parser.add_argument
    add('images', nargs='+', help='images, or folders of them')
    add('--model', required=True, metavar='CKPT', help='checkpoint or work dir of a fine-tuning, a probe or a detector')
    add('--config', help='if the checkpoint does not carry the one that it was trained with')
    add('--out', metavar='FILE.json', help='write all of it; without it a line an image is printed')
    add('--top', type=int, default=5, help='classes an image (default: %(default)s)')
    add('--above', type=float, default=0.3, help='least score of an object (default: %(default)s)')
    add('--device', default='cpu', help='e.g. cuda (default: %(default)s)')
    args = parser.parse_args()
    try:
        paths = [p for name in args.images for p in (list_images(name) if Path(name).is_dir() else [name])]
        rows = (detected if is_detector(config_of(args.model, args.config)[0]) else classified)(paths, args)
        if args.out:
            files.write_text(args.out, json.dumps(rows, indent=1) + '\n', errors='surrogateescape')
            print(f'{args.out}: {len(rows)} images')
            return
        for row in rows:
            print(
                row['image'], *(f'{name} {score:.3f}' for name, score in zip(row['classes'], row['scores'])), sep='  '
            )
    except (OSError, ValueError, LoadError, files.NotWritten) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
