"""The commands of a chain: how a stage is started, on how many devices, and how it gets its parent's weights."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.compat.internals import parse_option
from mim_mm.compat.paths import repo_root
from mim_mm.transfer.chain import Artifact, ChainError, Stage

LOAD_HOOK = 'LoadPretrainedHook'


@dataclass(frozen=True)
class Scripts:
    """The programs stages run; a chain uses those of the repository."""

    train: Path
    dist_train: Path

    @classmethod
    def default(cls) -> Scripts:
        return cls(repo_root() / 'tools' / 'train.py', repo_root() / 'tools' / 'dist_train.sh')


def format_option(key: str, value: Any) -> str:
    """``key=value`` as ``--cfg-options`` reads it back to the same value.

    Raises:
        ChainError: the value has no such form (a dict in a list, a string that reads as a number, a blank in a list).
    """

    def text(item: Any) -> str:
        if isinstance(item, (list, tuple)):
            inner = ','.join(map(text, item)) + (',' if isinstance(item, tuple) and len(item) == 1 else '')
            return f'({inner})' if isinstance(item, tuple) else f'[{inner}]'
        return str(item)

    written = text(value)
    try:
        back = parse_option(written)
    except Exception:
        back = object()
    if back != value or type(back) is not type(value):
        raise ChainError(
            f'option {key}={value!r} cannot be given on a command line (mmengine would read {written!r} otherwise); '
            "put it into a config file that inherits from the stage's config"
        )
    return f'{key}={written}'


def check_handover(stage: Stage, config: Config) -> None:
    """Refuse a stage that starts from a parent but whose config would silently not load it.

    Raises:
        ChainError: ``custom_hooks[0]`` is not the hook that loads the pretrained encoder, or has a checkpoint already.
    """
    if stage.init is None:
        return
    hooks = config.get('custom_hooks') or [{}]
    found = str(hooks[0].get('type', None))
    if found.split('.')[-1] != LOAD_HOOK:
        raise ChainError(
            f'stage {stage.name!r} starts from {stage.init!r}, but the first of custom_hooks in {stage.config} is '
            f"{found}; put dict(type='mim_mm.{LOAD_HOOK}', checkpoint=None) first, or init=None to train from scratch"
        )
    if hooks[0].get('checkpoint'):
        raise ChainError(
            f'stage {stage.name!r} starts from {stage.init!r}, but custom_hooks.0.checkpoint in {stage.config} names '
            f'{hooks[0].checkpoint}: set it to None'
        )


def train_command(
    stage: Stage,
    folder: Path,
    *,
    gpus: int = 1,
    launcher: str | None = None,
    parent: Path | None = None,
    resume: Path | None = None,
    auto_scale_lr: bool = False,
    allow_change: Sequence[str] = (),
    trust_pickle: bool = False,
    log: Sequence[str] = (),
    scripts: Scripts | None = None,
) -> list[str]:
    """The command line of a training stage.

    Args:
        folder: the stage's work dir.
        gpus: devices; more than one goes through ``dist_train.sh`` (torchrun), which honours NNODES, NODE_RANK,
            MASTER_ADDR and PORT of the environment.
        launcher: ``slurm`` and ``mpi`` start one task per device with srun or mpirun instead; ``pytorch`` uses torchrun
            for a single device too.
        parent: checkpoint the encoder is loaded from.
        resume: checkpoint of this same stage to go on from.
        allow_change, log: as of ``tools/train.py``.
    """
    scripts = scripts or Scripts.default()
    launcher = launcher or 'none'
    config = _short(stage.config)
    if launcher in ('slurm', 'mpi'):
        tasks = ['srun', f'--ntasks={max(1, gpus)}', '--kill-on-bad-exit=1']
        if launcher == 'mpi':
            tasks = ['mpirun', '-np', str(max(1, gpus))]
        command = [*tasks, sys.executable, '-u', _short(scripts.train), config]
    elif gpus > 1 or launcher == 'pytorch':
        command = ['bash', _short(scripts.dist_train), config, str(max(1, gpus))]
    else:
        command = [sys.executable, _short(scripts.train), config]
    command += ['--work-dir', str(folder), '--seed', str(stage.seed)]
    if resume is not None:
        command += ['--resume', str(resume)]
    if launcher in ('slurm', 'mpi'):
        command += ['--launcher', launcher]
    if auto_scale_lr:
        command.append('--auto-scale-lr')
    if resume is not None:
        command += [word for key in allow_change for word in ('--allow-change', key)]
    if trust_pickle:
        command.append('--trust-pickle')
    command += ['--log', *log] if log else []
    options = [format_option(key, value) for key, value in stage.options.items()]
    if parent is not None:
        options.append(format_option('init', str(parent)))
    return command + (['--cfg-options', *options] if options else [])


def report_command(work_dir: Path) -> list[str]:
    return [sys.executable, '-m', 'mim_mm.report', str(work_dir)]


def artifact_command(artifact: Artifact, stage: Stage, folder: Path, checkpoint: Path) -> list[str]:
    """The command of an artifact with its placeholders filled in; ``python`` is this Python.

    Raises:
        ChainError: a placeholder is unknown.
    """
    parts = shlex.split(artifact.command) if isinstance(artifact.command, str) else list(artifact.command)
    resolved = folder / stage.config.name  # mmengine's dump of the run's config, options included
    config = resolved if resolved.is_file() else stage.config
    values = dict(work_dir=folder, config=config, checkpoint=checkpoint, path=folder / artifact.path, root=repo_root())
    try:
        parts = [part.format(**values) for part in parts]
    except (KeyError, IndexError, ValueError) as error:
        known = ', '.join(f'{{{name}}}' for name in values)
        raise ChainError(
            f'artifact {artifact.name!r} of stage {stage.name!r}: {error} in its command; known: {known}'
        ) from error
    parts = [
        str(repo_root() / part) if part.startswith('tools/') and (repo_root() / part).is_file() else part
        for part in parts
    ]
    return [sys.executable if parts[0] in ('python', 'python3') else parts[0], *parts[1:]]


def _short(path: Path) -> str:
    """Relative to the current folder when it lies below it, so that a printed command can be read and pasted."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def environment(slot: int, jobs: int, gpus: int, devices: list[str]) -> dict[str, str]:
    """The environment of a stage.

    Stages that run side by side get their own devices, their own port for torchrun and their share of the CPU cores.

    Args:
        slot: which of the ``jobs`` places the stage takes, from 0.
        devices: names of the visible CUDA devices; empty on a CPU machine.
    """
    env = dict(os.environ, PYTHONUNBUFFERED='1', PYTHON=sys.executable)  # PYTHON: for tools/*.sh
    package_home = str(Path(__file__).resolve().parents[2])
    env['PYTHONPATH'] = os.pathsep.join(filter(None, [package_home, env.get('PYTHONPATH')]))
    if jobs > 1:
        env.setdefault('OMP_NUM_THREADS', str(max(1, _cores() // jobs)))
        env['PORT'] = '0'  # each its own, from the system
        if devices:
            share = max(1, gpus)
            env['CUDA_VISIBLE_DEVICES'] = ','.join(devices[slot * share : (slot + 1) * share])
    return env


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def visible_devices() -> list[str]:
    """Names of the CUDA devices a stage may use, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    if named is not None:
        return [name.strip() for name in named.split(',') if name.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def check_devices(jobs: int, gpus: int, devices: list[str]) -> None:
    """Refuse more devices than there are; a machine without any runs on its CPU cores.

    Raises:
        ChainError: ``jobs`` stages at once with ``gpus`` each need more.
    """
    need = max(1, jobs) * max(1, gpus)
    if devices and need > len(devices):
        raise ChainError(
            f'--jobs {jobs} with --gpus {gpus} needs {need} devices, {len(devices)} are visible; lower one'
        )
