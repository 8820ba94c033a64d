#!/usr/bin/env python
"""Weights of another project as a checkpoint of ours: ``python tools/import_weights.py FILE OUT.pth``.

Without OUT.pth it says what FILE is and how its encoder is built, and writes nothing. OUT.pth is read by ``init=`` and
by ``load_from``. Whose files it knows, and what it refuses: docs/weights.md.
"""

import argparse
import pprint

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.trust import add_trust_argument, trusting
from mim_mm.files import NotWritten
from mim_mm.weights.architecture import ACTIVATIONS
from mim_mm.weights.importing import open_foreign
from mim_mm.weights.origins import ORIGINS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', metavar='FILE', help='a file, or a folder that Hugging Face or timm saved')
    parser.add_argument('destination', metavar='OUT', nargs='?', help='a new .pth file')
    parser.add_argument('--origin', choices=list(ORIGINS), help='whose file it is, where it does not tell')
    parser.add_argument('--entry', help='which model of a file with several: student, model_ema')
    parser.add_argument('--prefix', help='which encoder of a model with several: module.momentum_encoder.')
    parser.add_argument('--heads', type=int, help='attention heads, which no tensor tells')
    parser.add_argument('--eps', type=float, dest='norm_eps', help='epsilon of its LayerNorms')
    parser.add_argument('--activation', choices=list(ACTIVATIONS))
    parser.add_argument(
        '--image-size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='of a grid that is no square'
    )
    parser.add_argument(
        '--skip', nargs='+', default=(), help='tensors that are left out on purpose, as regular expressions'
    )
    add_trust_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    source, destination, trust = (args.pop(name) for name in ('source', 'destination', 'trust_pickle'))
    try:
        with trusting(trust):
            found = open_foreign(source, **args)
        state = found.write(destination) if destination else None
    except (FileExistsError, LoadError, NotWritten) as error:
        raise SystemExit(f'error: {error}') from None
    about = found.about()
    print(f'{found.path}: {about["origin"]}, licence of the code: {about["licence"]}')
    for note in found.report.notes:
        print(note)
    facts = ', '.join(f'{name} {about[name]}' for name in ('num_heads', 'norm_eps', 'activation') if name in about)
    print(f'{sum(found.report.sizes.values()):,} values of the encoder, all from the file; {facts}')
    mean, std = found.pixels or (None, None)
    print(f'images in 0..255: mean {mean}, std {std}' if mean else 'images: mean and std are not known, see its card')
    print(f'backbone = {pprint.pformat(found.config, sort_dicts=False, width=100)}')
    if state is None:
        print('Nothing was written: give a second path for that.')
        return
    print(f'{destination}: {len(state) - len(found.others)} tensors of the encoder, {len(found.others)} beside it')
    if found.origin == 'mae' and not found.others:
        print('The file holds no decoder: a pretraining that goes on from it starts with a random one.')


if __name__ == '__main__':
    main()
