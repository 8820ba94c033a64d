#!/usr/bin/env python
"""Says what is installed, which mmcv ops are in use, and what is missing, each with its fix.

Exit code 0 when training can run, 1 otherwise; a missing data set or GPU is a warning.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.compat import doctor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', action='store_true', help='machine-readable output')
    arguments = parser.parse_args()
    warnings.simplefilter('ignore')  # upstream's import-time chatter; what matters is in the findings
    findings = doctor.examine()
    print(json.dumps(doctor.as_json(findings), indent=2) if arguments.json else doctor.as_text(findings))
    return 0 if doctor.can_train(findings) else 1


if __name__ == '__main__':
    sys.exit(main())
