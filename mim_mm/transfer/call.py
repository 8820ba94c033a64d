"""One call of ``tools/transfer.py``: its options, and the command line that gives them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from mim_mm.compat.paths import repo_root
from mim_mm.transfer.own.own_options import OwnData

GRACE_S = 30.0  # how long a stage may take to stop after SIGTERM


@dataclasses.dataclass
class Call:
    """The fields are the options of ``tools/transfer.py``.

    What runs is a chain: the config ``chain``, or the one that is written for ``compare`` or for ``own``.
    """

    chain: str | None = None
    gpus: int = 1
    jobs: int = 1
    work_dir: str | None = None
    only: Sequence[str] = ()
    start_from: str | None = None
    rerun: Sequence[str] = ()
    skip_pretrain: Sequence[str] = ()  # CHECKPOINT, or STAGE=CHECKPOINT
    dry_run: bool = False
    cfg_options: Sequence[str] = ()  # STAGE.key=value
    data_root: Sequence[str] = ()  # NAME=DIR
    launcher: str | None = None
    auto_scale_lr: bool = False
    allow_change: Sequence[str] = ()  # settings that a stage which is resumed may have otherwise, e.g. devices
    trust_pickle: bool = False  # of the stages; no part of what a run is
    log: Sequence[str] = ()  # trackers of the stages: tensorboard, wandb, mlflow
    slurm: Sequence[str] = ()  # [STAGE.]key=value, for sbatch
    grace_s: float = GRACE_S
    compare: Sequence[str] = ()  # arms: CONFIG.py, NAME=CONFIG.py or NAME=CHECKPOINT
    recipes: str | None = None  # of a comparison: the chain whose downstream stages all arms run
    seeds: Sequence[str] = ()  # of a comparison: N, KIND=N
    own: OwnData = dataclasses.field(default_factory=OwnData)
    # Of a call that is a Slurm job: it runs its ``only`` stages under its own lock, beside other jobs of the chain; and
    # how often it may put itself back into the queue.
    as_job: bool = False
    requeues: int | None = None


def transfer_command(call: Call) -> list[str]:
    """The command line of a call that runs a chain config (``chain`` and ``work_dir`` are given)."""
    command = [sys.executable, str(repo_root() / 'tools' / 'transfer.py'), str(call.chain)]
    command += ['--work-dir', str(call.work_dir), '--gpus', str(call.gpus)]
    lists = dict(only=call.only, rerun=call.rerun, cfg_options=call.cfg_options, data_root=call.data_root)
    for name, values in lists.items():
        command += [f'--{name.replace("_", "-")}', *values] if values else []
    command += ['--launcher', call.launcher] if call.launcher else []
    command += ['--auto-scale-lr'] if call.auto_scale_lr else []
    command += [word for key in call.allow_change for word in ('--allow-change', key)]
    command += ['--trust-pickle'] if call.trust_pickle else []
    command += ['--log', *call.log] if call.log else []
    command += ['--grace', f'{call.grace_s:g}'] if call.grace_s != GRACE_S else []
    command += ['--as-job'] if call.as_job else []
    return command + (['--requeues', str(call.requeues)] if call.requeues is not None else [])
