#!/usr/bin/env python
"""Draw original, what each part sees, what it makes of the rest, and where the parts disagree.

    python tools/visualize_reconstruction.py configs/demo/pretrain_emae.py CKPT IMAGE_OR_FOLDER... --out figure.png

A path that does not exist as it stands is looked for below the config's data_root: `digits/val` always works.
"""

import argparse
from pathlib import Path

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import add_trust_argument, trusting
from mim_mm.data.unlabelled import list_images
from mim_mm.evaluation.pictures.reconstruction import load_pretraining_model, reconstruct_files
from mim_mm.files import NotWritten
from mim_mm.report.figures_reconstruction import draw_reconstructions


def spread(files: list, count: int) -> list:
    """``count`` files at equal distances, so that a folder of classes shows all of them."""
    count = min(count, len(files))
    return [files[i * len(files) // count] for i in range(count)]


def gather(paths: list, data_root: str, count: int) -> list:
    files = []
    for path in paths:
        found = next((p for p in (Path(path), Path(data_root) / path) if p.exists()), Path(path))
        files += [found] if found.suffix and not found.is_dir() else spread(list_images(found), count)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('checkpoint', help='checkpoint of that pretraining')
    parser.add_argument('images', nargs='+', help='images, or folders to pick from')
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--count', type=int, default=6, help='images picked from each folder (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the masks')
    add_trust_argument(parser)
    args = parser.parse_args()
    try:
        with trusting(args.trust_pickle):
            model, config = load_pretraining_model(args.config, args.checkpoint)
        files = gather(args.images, config.get('data_root', '.'), args.count)
        print(draw_reconstructions(reconstruct_files(model, files, args.seed, config.get('value_range')), args.out))
    except (FileNotFoundError, ValueError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
