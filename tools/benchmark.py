#!/usr/bin/env python
"""Speed, side by side in one process, so that ratios can be trusted.

tools/benchmark.py step --arch B/16 --parts 1 4 --batch 16          # training steps: ours, mmpretrain's, others'
tools/benchmark.py step --device cuda --batch 256 --compile --json step.json
tools/benchmark.py curve --device cuda --compile                    # loss of the fast paths against eager fp32
tools/benchmark.py packed                                           # images that keep different numbers of patches
"""

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is imported)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)

from mmengine.logging import MMLogger  # isort: skip

from mim_mm.engine.start.cpu_memory import keep_freed_memory  # isort: skip
from mim_mm.files import write_json  # isort: skip

COMMANDS = dict(
    step='whole training steps: ours, mmpretrain, naive EMAE, other packages',
    curve='loss curves of bf16 and compiled training against eager fp32',
    batch='the largest batch that fits on the GPU',
    packed='encoding images that keep different numbers of patches',
    data='loader images/s a core: pipelines side by side',
    coco='COCO evaluation and detector training time',
    probe='quick probe and k-NN against the bare forward pass',
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    wanted = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in COMMANDS else None
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if name == wanted:  # the others are not imported
            sub.add_argument('--json', metavar='FILE', help='write the figures there too')
            importlib.import_module(f'mim_mm.benchmarks.{name}').arguments(sub)
    args = parser.parse_args()
    if args.json and Path(args.json).exists():
        parser.error(f'--json {args.json} exists and is not overwritten: remove it or take another name')
    module = importlib.import_module(f'mim_mm.benchmarks.{args.command}')
    MMLogger.get_instance('mmengine', log_level='ERROR')  # it writes a line for each of mmpretrain's 250 groups
    if getattr(args, 'device', 'cpu') == 'cpu':
        keep_freed_memory()  # as tools/train.py does; it serves all contenders alike
    result = module.execute(args, lambda text: print(text, file=sys.stderr, flush=True))
    print(result.pop('text'))
    if args.json:
        write_json(args.json, result, default=str)


if __name__ == '__main__':
    main()
