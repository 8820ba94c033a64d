#!/usr/bin/env python
"""Evaluate a checkpoint: ``python tools/test.py configs/linear/vitb_linear_90e.py CHECKPOINT``."""

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.engine.start.arguments import test_arguments

if __name__ == '__main__':
    test_arguments()  # --help, and what is misspelt, end here; what evaluates takes seconds to import

    from mim_mm.engine.start.launch import test_main

    test_main()
