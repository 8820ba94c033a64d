#!/usr/bin/env python
"""Train a config on one device: ``python tools/train.py configs/emae/emae_vitb_800e.py``; see tools/dist_train.sh."""

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.engine.start.arguments import train_arguments

if __name__ == '__main__':
    train_arguments()  # --help, and what is misspelt, end here; what trains takes seconds to import

    from mim_mm.engine.start.launch import train_main

    train_main()
