"""``python -m mim_mm.report WORK_DIR``: write report.html and report.md for a chain's work dir."""

from __future__ import annotations

import argparse
import sys

from mim_mm.report.page import write_report


def main(argv: list | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m mim_mm.report', description='Write report.html and report.md.')
    parser.add_argument('work_dir', help='work dir of a chain (holds chain.json and <stage>/run.json)')
    try:
        page, markdown = write_report(parser.parse_args(argv).work_dir)
    except FileNotFoundError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'report: {page}\n        {markdown}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
