"""A training script that learns nothing: the command line, files and exit codes of tools/train.py within milliseconds.

For what the chain does around a training run (order, failures, signals); the run itself is tested on tools/train.py in
test_chain_runs.py. Config keys: epochs, epoch_s, fail_at (epoch at which to exit with
3), cure (a file that prevents it), measure, save, finish.
"""

import argparse
import ast
import json
import os
import sys
import time
import zipfile
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--work-dir', type=Path)
    parser.add_argument('--seed', type=int)
    parser.add_argument('--resume')
    parser.add_argument('--cfg-options', nargs='*', default=[])
    args = parser.parse_args()
    settings = {}
    exec(Path(args.config).read_text(), settings)
    for option in args.cfg_options:
        key, _, value = option.partition('=')
        settings[key] = value if key.startswith('custom_hooks') else ast.literal_eval(value)
    start = 0
    if args.resume:
        with zipfile.ZipFile(args.resume) as file:
            start = json.loads(file.read('state'))['epoch']
    print(f'start at epoch {start}, threads {os.environ.get("OMP_NUM_THREADS")}', flush=True)
    epochs = settings['epochs']
    for epoch in range(start + 1, epochs + 1):
        time.sleep(settings.get('epoch_s', 0.0))
        if settings.get('fail_at') == epoch and not os.path.exists(settings.get('cure', '')):
            print('RuntimeError: out of luck', file=sys.stderr)
            sys.exit(3)
        name = f'epoch_{epoch}.pth'
        if settings.get('save', True):
            with zipfile.ZipFile(args.work_dir / name, 'w') as file:
                file.writestr(
                    'state', json.dumps(dict(epoch=epoch, seed=args.seed, config=args.config, **learned(settings)))
                )
            (args.work_dir / 'last_checkpoint').write_text(str((args.work_dir / name).resolve()))
        note(args.work_dir, settings, epoch, finished=False)
    if settings.get('finish', True):
        note(args.work_dir, settings, epochs, finished=True)


def note(work_dir, settings, epoch, finished):
    progress = dict(
        epoch=epoch, max_epochs=settings['epochs'], iter=epoch, max_iters=settings['epochs'], eta_s=0.0, elapsed_s=0.0,
        loss=1 / epoch, train={}, metrics={'accuracy/top1': 50.0 + epoch} if settings.get('measure', True) else {},
        checkpoint=f'epoch_{epoch}.pth', device='cpu', finished=finished, updated=time.time(),
    )  # fmt: skip
    temporary = work_dir / '.progress'
    temporary.write_text(json.dumps(progress))
    temporary.replace(work_dir / 'progress.json')


def learned(settings):
    return {key: settings[key] for key in ('lr', 'custom_hooks.0.checkpoint') if key in settings}


if __name__ == '__main__':
    main()
