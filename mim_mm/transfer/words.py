"""The words of a chain: kinds of stages, how a run ended, what is done with a stage, how its parent stands.

Each is a string, written to ``run.json`` and compared as such, with a name that a misspelling does not have.
"""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A string from a closed list. It prints, hashes and formats as the plain string (``StrEnum`` came in 3.11)."""

    __str__ = str.__str__
    __repr__ = str.__repr__
    __hash__ = str.__hash__


class Kind(Word):
    """What a stage is, as a chain config says it."""

    PRETRAIN = 'pretrain'
    PROBE = 'probe'
    LINEAR = 'linear'
    FINETUNE = 'finetune'
    COCO = 'coco'
    SEG = 'seg'
    SEG_LINEAR = 'seg_linear'
    REPORT = 'report'


class Status(Word):
    """How the last run of a stage stands, as ``run.json`` says it."""

    DONE = 'done'
    FAILED = 'failed'
    RUNNING = 'running'
    INTERRUPTED = 'interrupted'
    SKIPPED = 'skipped'  # not run: a checkpoint takes its place, or its parent failed


class Action(Word):
    """What a call does with a stage."""

    SKIP = 'skip'  # done, and nothing it was made from has changed
    RUN = 'run'
    RERUN = 'rerun'  # from the start, the earlier run moved aside
    RESUME = 'resume'  # from its last checkpoint
    ADOPT = 'adopt'  # wait for a process that an earlier call left
    GIVEN = 'given'  # a checkpoint takes its place
    BLOCKED = 'blocked'
    LEFT = 'left'  # not selected
    QUEUED = 'queued'  # a Slurm job of it is queued or runs

    @property
    def starts(self) -> bool:
        return self in (Action.RUN, Action.RERUN, Action.RESUME, Action.ADOPT)


class ParentState(Word):
    """What is known of a stage's parent when the stage is decided on.

    ``PENDING``: it will run first, so its weights are not known yet. ``LOST``: there is no checkpoint and none will
    come in this call, but what was made from it earlier still holds. ``BROKEN``: it was to run in this call and did not
    get through, so what was made from its earlier weights does not belong to this chain any more.
    """

    NONE = 'none'
    READY = 'ready'
    PENDING = 'pending'
    LOST = 'lost'
    BROKEN = 'broken'
