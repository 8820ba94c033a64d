#!/usr/bin/env python
"""Make the digits demo data (docs/demo.md): single digits, COCO-style scenes and unlabelled digits.

    python tools/make_demo_data.py [--root DIR]        # default: $DEMO_ROOT, else data/demo

A second call does nothing; a killed call leaves nothing half-made behind at the root.
"""

import argparse
import time

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.data.digits import demo_root, make_demo_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', default=demo_root(), help='folder to make (default: %(default)s)')
    args = parser.parse_args()
    started = time.time()
    try:
        identity, written = make_demo_data(args.root)
    except (FileExistsError, OSError) as error:
        raise SystemExit(f'error: {error}') from None
    state = f'made in {time.time() - started:.1f} s' if written else 'already there'
    counts = ', '.join(f'{value} {name}' for name, value in identity['counts'].items())
    print(f'demo data {state}: {args.root} ({counts}; sha256 {identity["sha256"][:12]})')


if __name__ == '__main__':
    main()
