#!/usr/bin/env python
"""Weighted k-NN accuracy of a frozen encoder, as DINO measures it: prints a table, writes knn.json.

python tools/knn.py configs/linear/vitb_linear_90e.py CKPT --data-root data/imagenet --amp bf16
python tools/knn.py configs/linear/vitb_linear_90e.py random        # the control
tools/dist_knn.sh configs/linear/vitb_linear_90e.py CKPT 8          # 8 GPUs, an eighth of the features on each
"""

import argparse

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import trusting
from mim_mm.compat.leave import leave
from mim_mm.evaluation.frozen import command, knn, sharded_knn
from mim_mm.files import NotWritten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/probes.md'
    )
    command.add_feature_arguments(parser)
    parser.add_argument('--k', type=int, nargs='+', help='neighbours (default: those of 10 20 100 200 that fit)')
    parser.add_argument('--query-chunk', type=int, default=1024, help='images classified at a time')
    parser.add_argument('--bank-chunk', type=int, default=16384, help='training images compared at a time')
    parser.add_argument('--launcher', choices=['none', 'pytorch'], default='none', help='set by tools/dist_knn.sh')
    args = parser.parse_args()
    try:
        sharded_knn.join_processes(args)
        rank, processes = sharded_knn.my_share()
        with trusting(args.trust_pickle):
            train, val, work_dir = command.frozen_features(args, (rank, processes))
        options = dict(query_chunk=args.query_chunk, bank_chunk=args.bank_chunk, device=args.device)
        if processes > 1:
            options.update(measure=sharded_knn.sharded_knn_accuracy, total=sharded_knn.total)
        result = dict(knn.evaluate(train, val, args.k, **options), processes=processes)
        if rank == 0:
            command.write_result(work_dir / 'knn.json', result, dict(train=train.provenance, val=val.provenance))
            print(f'{knn.table(result)}\nWritten to {work_dir / "knn.json"}')
        leave()  # not after an error: the others may be waiting, and torchrun ends them
    except (FileNotFoundError, ValueError, FloatingPointError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
