#!/usr/bin/env python
"""Convert a checkpoint of MAE's official release: ``python tools/import_mae.py mae_pretrain_vit_base.pth OUT.pth``.

OUT.pth is read by ``load_from`` (go on pretraining) and by the downstream recipes.
"""

import argparse

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.mae_release import convert_file
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import add_trust_argument, trusting
from mim_mm.files import NotWritten

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source')
    parser.add_argument('destination')
    add_trust_argument(parser)
    args = parser.parse_args()
    try:
        with trusting(args.trust_pickle):
            counts = convert_file(args.source, args.destination)
    except (FileExistsError, ValueError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None
    print(f'{args.destination}: {counts["encoder"]} tensors of the encoder, {counts["decoder"]} of the decoder')
    if not counts['decoder']:
        print('the file holds no decoder: to go on pretraining, the decoder starts from random weights')
