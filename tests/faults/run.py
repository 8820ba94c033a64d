"""Run trials of every kind of fault and print a table: ``make test-faults TRIALS=n ONLY='kills nan'``.

Each module of this folder with ``NAME`` and ``trial(number, folder) -> (held, what happened)`` is a kind. A line of
JSON a trial goes to ``--out`` as soon as it is over, so that a run that is cut off has said what it saw; trials that
stand there already are not run again. The folders of trials that did not hold are kept.
"""

import argparse
import importlib
import json
import shutil
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / 'helpers'), str(ROOT)]


def kinds(only):
    """``{module name: module}`` of the kinds of faults, all or those named."""
    found = {}
    for path in sorted(HERE.glob('*.py')):
        if path.stem == 'run' or path.stem.startswith('test_') or only and path.stem not in only:
            continue
        module = importlib.import_module(path.stem)
        if hasattr(module, 'trial'):
            found[path.stem] = module
    missing = set(only) - set(found)
    if missing:
        sys.exit(f'{", ".join(sorted(missing))}: no such kind of fault in tests/faults')
    return found


def run_one(module, number, folder):
    """(held, what happened, seconds); whatever is raised has not held."""
    begin = time.time()
    folder.mkdir(parents=True)
    try:
        held, said = module.trial(number, folder)
    except Exception:  # it counts, and the others go on
        held, said = False, traceback.format_exc(limit=-3)
    if held:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(held), str(said), round(time.time() - begin, 1)


def table(rows, modules):
    """Kind by kind: trials, how many held, seconds of one, numbers of the others."""
    lines = ['| kind | trials | held | seconds each | not held |', '|---|---|---|---|---|']
    for name, module in modules.items():
        mine = [row for row in rows if row['kind'] == name]
        if mine:
            bad = ' '.join(str(row['number']) for row in mine if not row['held'])
            each = sum(row['seconds'] for row in mine) / len(mine)
            held = sum(row['held'] for row in mine)
            lines.append(f'| {module.NAME} | {len(mine)} | {held} | {each:.1f} | {bad or "–"} |')
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kinds', nargs='*', help='modules of tests/faults (default: all)')
    parser.add_argument('--trials', type=int, default=5, help='of each kind (default: %(default)s)')
    parser.add_argument('--first', type=int, default=0, help='number of the first one, which seeds it')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='begin no trial after that long')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/faults/trials.jsonl')
    call = parser.parse_args()
    modules = kinds(call.kinds)
    call.out.parent.mkdir(parents=True, exist_ok=True)
    text = call.out.read_text() if call.out.is_file() else ''
    rows = [json.loads(line) for line in text.splitlines() if line.endswith('}')]
    done = {(row['kind'], row['number']) for row in rows}
    begin = time.time()
    for number in range(call.first, call.first + call.trials):  # all kinds have a share where time is short
        for name, module in modules.items():
            if (name, number) in done or time.time() - begin > call.seconds:
                continue
            folder = call.out.parent / f'{name}_{number}'
            shutil.rmtree(folder, ignore_errors=True)
            held, said, seconds = run_one(module, number, folder)
            rows.append(dict(kind=name, number=number, held=held, seconds=seconds, said=said[-2000:]))
            with call.out.open('a') as file:
                file.write(json.dumps(rows[-1]) + '\n')
            print(f'{"held" if held else "NOT HELD"}  {name} {number} ({seconds} s): {said.strip()[-300:]}', flush=True)
    print(f'\n{table(rows, modules)}')
    return int(any(not row['held'] for row in rows if row['kind'] in modules))


if __name__ == '__main__':
    sys.exit(main())
