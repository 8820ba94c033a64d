#!/usr/bin/env python
"""Pack images into tar shards (WebDataset's layout), for disks that are slow at small files and for streaming.

tools/make_shards.py data/imagenet/train data/imagenet_shards        # 2000 images a shard, in random order (seed 0)
tools/make_shards.py images.txt shards --images-per-shard 500        # a list, one path a line

Run it again to finish what was interrupted: shards are written whole, and those that are there are kept.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.data.image_sources import SourceError, find_source
from mim_mm.data.shards import plan_shards, write_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', help='a folder (any depth), a list file, or tar shards')
    parser.add_argument('out', help='folder for the shards: empty, or of an interrupted run')
    parser.add_argument('--images-per-shard', type=int, default=2000, metavar='N')
    parser.add_argument('--seed', type=int, default=0, help='of the order (default 0)')
    parser.add_argument('--keep-order', action='store_true', help='that of the names: for reading in place only')
    parser.add_argument('--name', default='train', help='beginning of the file names (default train)')
    args = parser.parse_args()
    try:
        seed = None if args.keep_order else args.seed
        plan = plan_shards(find_source(args.images), args.images_per_shard, seed, args.name)
        written = write_shards(plan, args.out)
    except (SourceError, OSError) as error:
        sys.exit(f'make_shards: {error}')
    there = len(plan.shards) - written
    print(f'{plan.summary["images"]} images in {len(plan.shards)} shards in {args.out} ({there} were there already)')
    if plan.summary['empty_files_left_out']:
        print(f'{plan.summary["empty_files_left_out"]} empty files were left out')


if __name__ == '__main__':
    main()
