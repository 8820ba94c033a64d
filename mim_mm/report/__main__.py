"""``python -m mim_mm.report WORK_DIR``: write report.html and report.md for a chain's work dir."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm import files
from mim_mm.report.filled import fill
from mim_mm.report.packed import SUFFIX, pack, unpack
from mim_mm.report.page import write_report


def main(argv: list | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m mim_mm.report', description='Write report.html and report.md.')
    parser.add_argument('work_dir', help='work dir of a chain (holds chain.json and <stage>/run.json)')
    parser.add_argument('--pack', metavar=f'FILE{SUFFIX}', help='also keep the results in one file, without weights')
    parser.add_argument('--checkout', metavar='DIR', help='of --pack: the checkout that the runs came from')
    parser.add_argument('--unpack', metavar=f'FILE{SUFFIX}', help='first lay out what --pack kept')
    parser.add_argument('--fill', metavar='FILE.md', help='renew the tables between the marks of a document')
    call = parser.parse_args(argv)
    try:
        if call.unpack:
            unpack(call.unpack, call.work_dir)
        page, markdown = write_report(call.work_dir)
        print(f'report: {page}\n        {markdown}')
        if call.pack:
            print(f'packed: {pack(call.work_dir, call.pack, call.checkout)}')
        if call.fill:
            path = Path(call.fill)
            files.write_text(path, fill(path.read_text(encoding='utf-8'), call.work_dir))
            print(f'filled: {path}')
    except (FileNotFoundError, UnicodeError, ValueError, files.NotWritten) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
