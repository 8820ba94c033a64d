#!/usr/bin/env python
"""A frozen encoder on several small labelled sets: k-NN and logistic regression; a table and transfer_sets.json.

python tools/transfer_sets.py CONFIG CKPT --sets cifar10=data/cifar10 flowers=data/flowers pets=data/pets
python tools/transfer_sets.py CONFIG random --sets cifar10=data/cifar10            # the control

Each DIR holds train/<class>/* and one of test/<class>/* and val/<class>/*; tools/class_folders.py makes such folders.
"""

import argparse

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import trusting
from mim_mm.evaluation.frozen import command, transfer_sets
from mim_mm.files import NotWritten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog='More: docs/transfer_sets.md'
    )
    command.add_feature_arguments(parser, data_root=False)
    parser.add_argument('--sets', nargs='+', required=True, metavar='NAME=DIR', help='folders of class folders')
    parser.add_argument('--part', help='the folder beside train that is reported on (default: the only one)')
    parser.add_argument('--k', type=int, default=transfer_sets.K, help='neighbours of k-NN (default: %(default)s)')
    args = parser.parse_args()
    provenance: dict = {}
    try:
        with trusting(args.trust_pickle):
            source, work_dir = command.source_of(args)
            sets = transfer_sets.open_sets(args.sets, source.preprocess, args.part, args.k)
            out = work_dir / 'transfer_sets.json'

            def keep(result, features):  # after each set: a broken image in the last one costs none of the others
                if not provenance:
                    command.announce(features['train'], source)
                name = list(result['sets'])[-1]
                provenance.update({f'{name}/{part}': found.provenance for part, found in features.items()})
                command.write_result(
                    out, dict(result, missing=[s.name for s in sets[len(result['sets']) :]]), provenance
                )
                print(f'{name}: done', flush=True)

            result = transfer_sets.measure(
                source, sets, work_dir / 'features', args.k, keep, **command.extraction(args)
            )
    except (FileNotFoundError, ValueError, FloatingPointError, LoadError, NotWritten) as error:
        done = f' ({out} has the sets before)' if provenance else ''
        raise SystemExit(f'error: {error}{done}') from None
    print(f'{transfer_sets.table(result)}\nWritten to {out}')


if __name__ == '__main__':
    main()
