#!/usr/bin/env python
"""All chains of a folder: list them, write an index page, compare some, delete runs that were superseded.

python tools/runs.py work_dirs                                   # list, and work_dirs/index.html
python tools/runs.py work_dirs --filter emae                     # those in whose row this stands
python tools/runs.py work_dirs --compare mine/a mine/b           # figures, and the settings that differ
python tools/runs.py work_dirs --delete-superseded               # what could go; with --yes it does
"""

import argparse
import sys
from pathlib import Path

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.files import NotWritten
from mim_mm.report.overview import as_text, chains_table, compare_table, find_chains, megabytes, name_of, write_index
from mim_mm.report.superseded import candidates, delete


def chosen(chains: list, root: Path, names: list[str]) -> list:
    known = {name_of(chain, root): chain for chain in chains}
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ValueError(f'{wrong[0]!r} is no chain of {root}; known are {", ".join(known)}')
    return [known[name] for name in names]


def delete_superseded(chains: list, root: Path, yes: bool) -> None:
    found = candidates(chains)
    for item in found:
        said = f'kept: {item.kept}' if item.kept else 'delete'
        print(f'{megabytes(item.size):>12}  {name_of(item.chain, root)}/{item.run.name} ({item.run.status})  {said}')
    going = [item for item in found if not item.kept]
    total = megabytes(sum(item.size for item in going))
    if not yes or not going:
        print(f'{len(going)} superseded runs, {total}: nothing was deleted' + ('; add --yes' if going else ''))
        return
    print(f'deleted {len(delete(going))} runs, {total}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', nargs='?', default='work_dirs', help='folder with the work dirs (default: %(default)s)')
    parser.add_argument('--filter', default='', metavar='TEXT', help='list rows that hold this text')
    parser.add_argument('--compare', nargs='+', metavar='CHAIN', help='two or more chains, as the list names them')
    parser.add_argument('--delete-superseded', action='store_true', help='say which superseded runs nothing needs')
    parser.add_argument('--yes', action='store_true', help='of --delete-superseded: delete them, for good')
    call = parser.parse_args()
    if call.yes and not call.delete_superseded:
        parser.error('--yes belongs to --delete-superseded')
    if call.compare and len(call.compare) < 2:
        parser.error('--compare needs two chains or more')
    root = Path(call.root)
    chains = find_chains(root)
    if call.delete_superseded:
        delete_superseded(chains, root, call.yes)
    elif call.compare:
        those = chosen(chains, root, call.compare)
        for table in (chains_table(those, root), compare_table(those, root)):
            print(f'{as_text(table)}\n\n{table.caption}\n')
    else:
        print(as_text(chains_table(chains, root), call.filter))
        print(f'page: {write_index(chains, root)}')


if __name__ == '__main__':
    try:
        main()
    except (OSError, RuntimeError, ValueError, NotWritten) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
