"""What is queued at Slurm: whether the job that a lock or a record names is over."""

from __future__ import annotations

import os
import subprocess


def ask(*command: str) -> str | None:
    """What a command of Slurm prints; None when it is not there, does not answer, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout


def parse_queue(text: str) -> dict[str, tuple[str, str]]:
    """Output of squeue with ``%i|%A|%T|%r`` -> job id -> (state, reason); array elements by both of their ids."""
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split('|')
        if len(fields) == 4:
            shown, own, state, reason = fields
            jobs[shown] = (state, reason)
            if '_' not in shown or state != 'PENDING':  # a waiting element has the number of its array
                jobs[own] = (state, reason)
    return jobs


def queued() -> dict[str, tuple[str, str]] | None:
    """This user's jobs that have not ended, None when Slurm does not answer."""
    text = ask('squeue', '--me', '--noheader', '--array', '--format=%i|%A|%T|%r')
    return None if text is None else parse_queue(text)


def is_over(job: str | None) -> bool:
    """Whether what a job started is certainly gone: it has ended, or it is this job, before it was requeued."""
    if not job:
        return False
    if job == os.environ.get('SLURM_JOB_ID'):
        return True
    now = queued()
    return now is not None and job not in now
