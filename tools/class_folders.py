#!/usr/bin/env python
"""Lay a labelled set of torchvision out as class folders: OUT/train/<class>/* and OUT/test/<class>/*.

python tools/class_folders.py cifar10 raw data/cifar10                # raw/cifar-10-batches-py is there
python tools/class_folders.py flowers102 raw data/flowers --link      # hard links in place of copies
python tools/class_folders.py dtd raw data/dtd --download             # fetched by torchvision

ROOT is the folder that torchvision's class of the set takes. Arrays become PNG; files stay as they are.
"""

import argparse

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.data.torchvision_folders import SETS, lay_out
from mim_mm.files import NotWritten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/transfer_sets.md'
    )
    parser.add_argument('name', help=', '.join(SETS))
    parser.add_argument('root', help='folder of the raw files')
    parser.add_argument('out', help='folder to make; it must not be there')
    parser.add_argument('--download', action='store_true', help='let torchvision fetch what is not there')
    parser.add_argument('--link', action='store_true', help='hard links in place of copies, on one file system')
    args = parser.parse_args()
    try:
        lay_out(args.name, args.root, args.out, args.download, args.link, print)
    except (ValueError, OSError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None
    note = SETS[args.name].note
    print(f'Written to {args.out}{f" ({note})" if note else ""}')


if __name__ == '__main__':
    main()
