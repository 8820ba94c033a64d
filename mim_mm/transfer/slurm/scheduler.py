"""Slurm as the chain sees it: what a user asks sbatch for, what is queued, and which jobs were submitted."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mim_mm.files import read_json
from mim_mm.slurm_queue import ask
from mim_mm.transfer.chain import ChainError, unknown
from mim_mm.transfer.manifest import write_json

JOBS_FILE = 'slurm.json'
SIGNAL, REQUEUES = 'USR1@120', 50  # what is sent before the end of an allocation, and how many seconds before
Options = dict[str, dict[str, str]]  # stage ('' for all) -> key -> value


# ---- what the user asks for


@dataclass(frozen=True)
class Resources:
    """What one job asks for. ``sbatch``: long options of sbatch -> value, handed on as they are."""

    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    signal: str = SIGNAL
    requeues: int = REQUEUES
    array_parallelism: int = 256
    sbatch: dict[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node

    @property
    def grace_s(self) -> int:
        """Seconds between the signal and the end."""
        return int(self.signal.partition('@')[2])

    def __str__(self) -> str:
        what = f'{self.gpus_per_node} GPUs' if self.gpus_per_node else f'{self.tasks_per_node} CPU task(s)'
        rest = ' '.join(f'--{key}={value}' for key, value in self.sbatch.items())
        return f'{self.nodes} node(s) x {what} {rest}'.rstrip()


def read_options(items: Sequence[str], stages: Iterable[str]) -> Options:
    """``partition=gpu pretrain.nodes=4`` -> ``{'': {'partition': 'gpu'}, 'pretrain': {'nodes': '4'}}``.

    Raises:
        ChainError: an item is not ``[STAGE.]key=value``, or there is no such stage.
    """
    stages, options = list(stages), {'': {}}
    for item in items:
        path, equals, value = item.partition('=')
        stage, dot, key = path.rpartition('.')
        key = key.lstrip('-').replace('_', '-')
        if not equals or not re.fullmatch(r'[a-z][a-z-]*', key) or not value:
            raise ChainError(f'--slurm {item!r} must be [STAGE.]key=value, e.g. partition=gpu pretrain.nodes=4')
        if stage and stage not in stages:
            raise unknown('stage', stage, stages, f'--slurm {item!r}')
        options.setdefault(stage, {})[key] = value
    return options


def _number(options: dict[str, str], key: str, default: int, least: int = 1) -> int:
    value = options.pop(key, None)
    if value is None:
        return default
    if not value.isdigit() or int(value) < least:
        raise ChainError(f'--slurm {key}={value} must be a whole number, {least} or more')
    return int(value)


def resources(options: Options, stage: str, gpus: int, fixed: bool = False) -> Resources:
    """The resources of a stage's job.

    Args:
        options: of :func:`read_options`.
        stage: name in the chain config; ``'report'`` gets one task without a device.
        gpus: devices in all, where ``gpus_per_node`` is not given.
        fixed: the chain config itself says ``gpus`` for this stage; nodes follow from it.

    Raises:
        ChainError: a number is none, GPUs do not divide over the nodes, or no time limit is given.
    """
    mine = {**options[''], **options.get(stage, {})}
    if 'time' not in mine:
        raise ChainError('--slurm time=... is missing: Slurm ends jobs at their limit, e.g. time=1-00:00:00 (a day)')
    found = re.fullmatch(r'(?:SIG)?(\w+)(?:@(\d+))?', mine.pop('signal', SIGNAL))
    if not found or found[1] not in ('USR1', 'USR2', 'TERM'):
        raise ChainError('--slurm signal=... must be USR1@SECONDS, USR2@SECONDS or TERM@SECONDS')
    common = dict(
        signal=f'{found[1]}@{found[2] or 120}',
        requeues=_number(mine, 'requeues', REQUEUES, least=0),
        array_parallelism=_number(mine, 'array-parallelism', 256),
    )
    nodes = _number(mine, 'nodes', 1)
    per_node = _number(mine, 'gpus-per-node', -1, least=0)
    tasks = _number(mine, 'ntasks-per-node', 0)
    if stage == 'report':
        drop = ('gres', 'gpus', 'cpus-per-task', 'gpus-per-task', 'exclusive') if stage not in options else ()
        return Resources(sbatch={key: value for key, value in mine.items() if key not in drop}, **common)
    if per_node < 0 and (gpus % nodes):
        raise ChainError(f'--gpus {gpus} cannot be spread over nodes={nodes}; give --slurm nodes=N gpus_per_node=M')
    per_node = gpus // nodes if per_node < 0 else per_node
    if fixed and gpus:
        nodes, per_node = math.ceil(gpus / max(1, per_node)), min(gpus, max(1, per_node))
        if nodes * per_node != gpus:
            raise ChainError(f'stage {stage!r} has gpus={gpus}, no multiple of gpus_per_node={per_node}')
    elif fixed:
        nodes, per_node = 1, 0
    return Resources(nodes, tasks or max(1, per_node), per_node, sbatch=mine, **common)


# ---- what depends on what


def dependency(parents: Sequence[str | None]) -> str | None:
    """When the elements of an array may start, given the job of each one's parent (None: done already).

    Element for element (``aftercorr``) where the parents are just such an array, else after all of them.
    """
    ids = list(dict.fromkeys(parent for parent in parents if parent))
    if not ids:
        return None
    array = ids[0].partition('_')[0]
    if len(parents) > 1 and list(parents) == [f'{array}_{i}' for i in range(len(parents))]:
        return f'aftercorr:{array}'
    return 'afterok:' + ':'.join(ids)


def after_all(ids: Iterable[str]) -> str | None:
    """After the end of all jobs, however they ended; arrays count as a whole."""
    ids = list(dict.fromkeys(job.partition('_')[0] for job in ids))
    return 'afterany:' + ':'.join(ids) if ids else None


# ---- what has ended


def parse_ended(sacct: str) -> str:
    """First state of ``sacct --parsable2 --format=State``: ``CANCELLED by 0`` -> ``CANCELLED``; empty for none."""
    return sacct.split()[0].rstrip('+') if sacct.split() else ''


def how_it_ended(job: str) -> str:
    """The last state of a job that is not queued any more, as far as Slurm (or its accounting) remembers."""
    text = ask('sacct', '--noheader', '--allocations', '--parsable2', '--format=State', f'--jobs={job}')
    if text and parse_ended(text):
        return parse_ended(text)
    found = re.search(r'JobState=(\w+)', ask('scontrol', 'show', 'job', '--oneliner', job) or '')
    return found[1] if found else 'unknown'


def requeue() -> bool:
    """Put the job that this process runs in back into the queue; whether Slurm accepted it."""
    array, task = os.environ.get('SLURM_ARRAY_JOB_ID'), os.environ.get('SLURM_ARRAY_TASK_ID')
    name = f'{array}_{task}' if array and task else os.environ['SLURM_JOB_ID']
    return ask('scontrol', 'requeue', name) is not None


# ---- which jobs were submitted


def read_jobs(work_dir: Path) -> dict[str, dict[str, Any]]:
    """Stage -> ``dict(job, log, submitted, config_sha256)`` of the last submission; empty when there was none.

    Raises:
        ChainError: the file is there but cannot be read; submitting again might double what is queued.
    """
    path = Path(work_dir) / JOBS_FILE
    try:
        return dict(read_json(path)['jobs'])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ChainError(
            f'{path} cannot be read ({error}); look at squeue --me, cancel the jobs of this chain, remove the file'
        ) from error


def write_jobs(work_dir: Path, jobs: dict[str, dict[str, Any]]) -> None:
    write_json(Path(work_dir) / JOBS_FILE, dict(schema=1, jobs=jobs))


def hints(ids: Sequence[str]) -> list[str]:
    """How to look at jobs and how to cancel them."""
    masters = list(dict.fromkeys(job.partition('_')[0] for job in ids))
    return [f'look:   squeue --me --jobs={",".join(masters)}', f'cancel: scancel {" ".join(masters)}']
