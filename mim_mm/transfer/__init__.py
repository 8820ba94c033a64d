"""The chain: pretrain, linear probe, fine-tune, detection, report, each stage a process with its own work dir.

A call of it takes three steps, ``carry_out(plan(resolve(call)))`` in ``run.py``:

    resolve.py     what the call means: call.py (its options), chain.py (the config), standing.py (what is there)
    plan.py        what will be done: rules.py (with each stage, and why), launch.py (with which command)
    carry_out.py   doing it: execute.py (all stages), job.py (one of them), process.py, display.py; or submitting jobs

Comparisons (``compare/``) and own data (``own/``) are calls whose chain is written first; a Slurm job (``slurm/``) and
a point of a sweep (``sweep/``, which takes the same three steps) are calls of ``tools/transfer.py``. What a run was
made from and how it went: identity.py, datasets.py, manifest.py (``run.json``).
"""

from mim_mm.transfer.call import Call
from mim_mm.transfer.chain import Chain, ChainError, Stage, load_chain
from mim_mm.transfer.manifest import Record, read_record
from mim_mm.transfer.own.own_options import OwnData
from mim_mm.transfer.run import run_chain

__all__ = ['Call', 'Chain', 'ChainError', 'OwnData', 'Record', 'Stage', 'load_chain', 'read_record', 'run_chain']
