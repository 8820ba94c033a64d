#!/usr/bin/env python
"""Compile the optional JPEG decoder that decodes only the crop (a C compiler and libjpeg-turbo's header are needed).

tools/build_crop_decode.py            # once a machine; into $MIM_MM_CACHE/native or ~/.cache/mim_mm/native
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.data.crop_decode import CannotBuild, build


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        print(f'Built {build()}; recipes that begin with LazyLoadImageFromFile use it from now on.')
    except CannotBuild as error:
        sys.exit(f'Not built: {error}')


if __name__ == '__main__':
    main()
