#!/usr/bin/env python
"""Features of every image below a folder, by a frozen encoder, as one table.

python tools/features.py photos --encoder work_dirs/mine/pretrain --out features.npy
python tools/features.py photos --encoder mae.pth --config linear/vitb_linear_90e --out features.parquet

.npy: float32 (images, D), and beside it features.txt with the name of each row. .parquet (needs pyarrow): columns name
and feature. --draw picture.png: the first images with the principal components of their patches and their attention.
"""

import argparse
import sys
from pathlib import Path

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.api.feature_table import extract_folder, writer_of
from mim_mm.checkpoint.read import LoadError
from mim_mm.files import NotWritten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/api.md'
    )
    add = parser.add_argument
    add('folder', help='images at any depth')
    add('--encoder', required=True, metavar='CKPT', help='checkpoint or work dir; the name of a recipe: random weights')
    add('--config', help='what the model is, if the checkpoint does not say it')
    add('--out', required=True, metavar='FILE', help='features.npy or features.parquet')
    add('--pooling', choices=['cls', 'mean', 'cls_mean'], help='default: cls where there is a class token, else mean')
    add('--size', type=int, metavar='PX', help="side of the crop (default: the config's)")
    add('--entry', help='which model of a file with several, such as teacher')
    add('--draw', metavar='PNG', help='also draw the features of the first images')
    add('--batch-size', type=int, default=32)
    add('--workers', type=int, default=4, help='loader processes (default: %(default)s)')
    add('--amp', choices=['bf16', 'fp16'], help='autocast (default: float32)')
    add('--device', default='cpu', help='e.g. cuda (default: %(default)s)')
    args = parser.parse_args()
    try:
        write = writer_of(Path(args.out))
        encoder = mim_mm.api.load_encoder(
            args.encoder, args.config, size=args.size, device=args.device, entry=args.entry
        )
        options = dict(pooling=args.pooling, batch_size=args.batch_size, workers=args.workers, amp=args.amp)
        names, features = extract_folder(encoder, args.folder, **options)
        write(names, features)
        print(f'{args.out}: {features.shape[0]} images, {features.shape[1]} numbers each')
        if args.draw:
            paths = [Path(args.folder, name) for name in names[:6]]
            print(mim_mm.api.draw_features(encoder, paths, args.draw))
    except (OSError, ValueError, FloatingPointError, ImportError, LoadError, NotWritten) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
