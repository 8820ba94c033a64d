#!/usr/bin/env python
"""Give an encoder to another library: ``python tools/export.py CKPT --to timm --out DIR``.

The files are opened by that library where it is installed, and its features compared with ours, before they are kept. A
card (README.md) lies beside them. What goes where, and what is refused: docs/weights.md.
"""

import argparse
from pathlib import Path

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import add_trust_argument, trusting
from mim_mm.files import NotWritten
from mim_mm.weights.exporting import PARTS, TARGETS, export
from mim_mm.weights.own import open_own


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', metavar='CKPT', help='a file, or a work dir (its last checkpoint)')
    parser.add_argument('--to', required=True, choices=TARGETS)
    parser.add_argument(
        '--part', default='encoder', choices=PARTS, help='decoder, whole: safetensors and mmpretrain only'
    )
    parser.add_argument('--out', metavar='DIR', help='a new folder; by default CKPT-TARGET beside the file')
    parser.add_argument('--config', help='that it was trained with, where the checkpoint does not hold it')
    parser.add_argument('--prefix', default='backbone.', help='teacher.backbone. of DINO and iBOT')
    parser.add_argument('--entry', help='which model of a file with several: ema_state_dict')
    parser.add_argument(
        '--skip', nargs='+', default=(), help='tensors that are left out on purpose, as regular expressions'
    )
    parser.add_argument('--licence', help='for the card, as apache-2.0')
    parser.add_argument('--runs', nargs='+', default=(), help='work dirs whose results the card should have')
    add_trust_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        with trusting(args.trust_pickle):
            own = open_own(args.checkpoint, args.config, args.prefix, args.entry, args.skip)
            out = Path(args.out) if args.out else own.path.with_name(f'{own.path.stem}-{args.to}')
            done = export(own, args.to, out, args.part, args.licence, args.runs)
    except (FileExistsError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None
    print(f'{done.folder}: {", ".join(sorted(path.name for path in done.folder.iterdir()))}')
    if done.difference is None:
        print(f'not compared: {done.why_not}')
    else:
        print(f'features before and after differ by {done.difference:.1e} of the largest')
    print(done.opened_by.replace('FOLDER', str(done.folder)))


if __name__ == '__main__':
    main()
