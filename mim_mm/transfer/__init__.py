"""The chain: pretrain, linear probe, fine-tune, detection, report, each stage a process with its own work dir.

Reading order: ``chain.py`` (what the config says), ``survey.py`` (how things stand), ``plan.py`` (what to do with each
stage), ``launch.py`` (with which command), ``job.py`` (one stage), ``execute.py`` (all of them), ``run.py`` (one call).
"""

from mim_mm.transfer.chain import Chain, ChainError, Stage, load_chain
from mim_mm.transfer.compare.comparison import run_comparison
from mim_mm.transfer.manifest import Record, read_record
from mim_mm.transfer.run import Call, run_chain

__all__ = ['Call', 'Chain', 'ChainError', 'Record', 'Stage', 'load_chain', 'read_record', 'run_chain', 'run_comparison']
