"""Hooks, optimizer wrappers and constructors, and the guards that run before training."""

from mim_mm.compat.schedulers import fit_in_runner
from mim_mm.engine.schedule import fit_schedule
from mim_mm.registry import import_room

import_room(__name__)
fit_in_runner(fit_schedule)  # for a Runner that is made without tools/train.py
