#!/usr/bin/env python
"""Evaluate a checkpoint: ``python tools/test.py configs/linear/vitb_linear_90e.py CHECKPOINT``."""

from mim_mm.engine.start.launch import test_main

if __name__ == '__main__':
    test_main()
