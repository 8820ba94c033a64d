"""Where the processes of a Slurm step meet: what torch.distributed wants to know, from what srun tells each task."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping

FIRST_PORT, PORTS = 15000, 15000


def hostnames(nodelist: str) -> list[str]:
    """``gpu[01-03],login`` -> names, by Slurm's own ``scontrol show hostnames``; a plain name needs no help.

    Raises:
        RuntimeError: scontrol is absent or cannot read the list.
    """
    if not re.search(r'[\[,]', nodelist):
        return [nodelist]
    try:
        done = subprocess.run(['scontrol', 'show', 'hostnames', nodelist], capture_output=True, text=True, timeout=60)
        said = done.stderr.strip() if done.returncode else ''
    except (OSError, subprocess.SubprocessError) as error:
        done, said = None, str(error)
    if said or not done.stdout.split():
        raise RuntimeError(f'scontrol show hostnames {nodelist} fails ({said or "no output"}): set MASTER_ADDR by hand')
    return done.stdout.split()


def rendezvous(env: Mapping[str, str], devices: int, expand: Callable[[str], list[str]] = hostnames) -> dict[str, str]:
    """MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE, LOCAL_RANK of a task, as mmengine and torch read them.

    The address is the step's first node, the port follows from job and step, so that jobs that share a node do not
    meet. MASTER_ADDR and MASTER_PORT that are set already are kept.

    Args:
        env: the environment of the task.
        devices: CUDA devices this task sees. Where each task sees one, its number is 0 whatever the local rank.
        expand: node list -> host names.

    Raises:
        RuntimeError: the process is no task of a Slurm step.
    """
    for name in ('SLURM_PROCID', 'SLURM_NTASKS'):
        if name not in env:
            raise RuntimeError(
                f'--launcher slurm: {name} is not set, so this is no task of srun; use tools/slurm_train.sh, or '
                'tools/dist_train.sh outside Slurm'
            )
    nodes = env.get('SLURM_STEP_NODELIST') or env.get('SLURM_JOB_NODELIST') or env.get('SLURM_NODELIST') or '127.0.0.1'
    local = int(env.get('SLURM_LOCALID', env['SLURM_PROCID']))
    local = local % devices if devices else local
    job, step = int(env.get('SLURM_JOB_ID', 0)), int(env.get('SLURM_STEP_ID', 0))
    found = dict(
        RANK=env['SLURM_PROCID'],
        WORLD_SIZE=env['SLURM_NTASKS'],
        LOCAL_RANK=str(local),
        SLURM_LOCALID=str(local),  # mmengine reads this one
        MASTER_ADDR=env.get('MASTER_ADDR') or expand(nodes)[0],
        MASTER_PORT=env.get('MASTER_PORT') or str(FIRST_PORT + (job * 7 + step) % PORTS),
    )
    return found
