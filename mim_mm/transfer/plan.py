"""What a call does with each stage, and why: the one table of rules, apart from how the facts for it are found.

A stage is skipped when it is done and nothing it was made from has changed; run again, its old folder moved aside, when
its config, its parent's weights or its data changed; continued from its last checkpoint when it was cut off or failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mim_mm.transfer.manifest import Record

# What is done with a stage.
SKIP, RUN, RERUN, RESUME, ADOPT, GIVEN, BLOCKED, LEFT = 'skip run rerun resume adopt given blocked left'.split()
STARTS = (RUN, RERUN, RESUME, ADOPT)

# What is known of a stage's parent when the stage is decided on.
NO_PARENT, READY, PENDING, LOST, BROKEN = 'none ready pending lost broken'.split()


@dataclass(frozen=True)
class Parent:
    """The state of the stage whose weights a stage starts from.

    ``PENDING``: it will run first, so its weights are not known yet. ``LOST``: there is no checkpoint and none will
    come in this call, but what was made from it earlier still holds. ``BROKEN``: it was to run in this call and did not
    get through, so what was made from its earlier weights does not belong to this chain any more. ``why``: in words.
    """

    state: str = NO_PARENT
    name: str | None = None
    checkpoint: Path | None = None
    sha256: str | None = None
    why: str = ''


@dataclass(frozen=True)
class Facts:
    """All that the decision on one stage depends on."""

    selected: bool = True
    given: str | None = None  # a checkpoint that takes this stage's place
    record: Record | None = None
    damaged: str | None = None  # what is wrong with run.json
    used: bool = False  # the folder holds files
    alive: bool = False  # the recorded process still runs on this machine
    elsewhere: str | None = None  # another machine on which it seems to run
    changed: str | None = None  # config, parent weights or data differ from the record's
    forced: bool = False
    checkpoint: Path | None = None  # a whole checkpoint to go on from
    artifacts_due: tuple = ()
    parent: Parent = Parent()


@dataclass(frozen=True)
class Decision:
    action: str
    reason: str
    resume: Path | None = None

    @property
    def starts(self) -> bool:
        return self.action in STARTS


def decide(facts: Facts) -> Decision:
    """The rules, in the order in which they hold."""
    record, parent = facts.record, facts.parent
    status = record.status if record else None
    if facts.given:
        return Decision(GIVEN, f'its place is taken by {facts.given}')
    if not facts.selected:
        return Decision(LEFT, f'not selected ({status or "never run"})')
    if facts.elsewhere:
        return Decision(BLOCKED, f'still running on {facts.elsewhere}, which wrote progress.json moments ago')
    if facts.alive:
        if facts.changed or facts.forced:
            why = facts.changed or 'it is to be run again'
            return Decision(BLOCKED, f'still running as pid {record.process["pid"]}, but {why}')
        return Decision(ADOPT, f'still running as pid {record.process["pid"]}, left by an earlier call: wait for it')
    if parent.state == BROKEN:
        return Decision(BLOCKED, parent.why)
    if parent.state == LOST and not (status == 'done' and not facts.changed and not facts.forced):
        return Decision(BLOCKED, parent.why)
    if parent.state == PENDING:
        if facts.used:
            return Decision(RERUN, f'parent {parent.name} runs first')
        return Decision(RUN, f'never run; after {parent.name}')
    if facts.forced and facts.used:
        return Decision(RERUN, 'asked for')
    if not record and not facts.damaged:
        if facts.used:
            return Decision(RERUN, 'its folder holds files but no run.json')
        return Decision(RUN, 'never run')
    if facts.changed:
        return Decision(RERUN, facts.changed)
    if facts.damaged:
        if facts.checkpoint:
            return Decision(RESUME, f'{facts.damaged}; goes on from {facts.checkpoint.name}', facts.checkpoint)
        return Decision(RERUN, facts.damaged)
    if status == 'done':
        due = f', artifacts to make: {", ".join(facts.artifacts_due)}' if facts.artifacts_due else ''
        return Decision(SKIP, f'done {record.finished}{due}')
    if status == 'skipped':
        return Decision(RUN, 'not run last time')
    word = dict(running='cut off', interrupted='interrupted', failed='failed')[status]
    if facts.checkpoint:
        return Decision(RESUME, f'{word}; goes on from {facts.checkpoint.name}', facts.checkpoint)
    return Decision(RUN, f'{word} before its first checkpoint; from the start')


def outcome_for_child(name: str, decision: Decision, checkpoint: Path | None, sha256: str | None) -> Parent:
    """What a stage's children may count on once it is decided on: for the plan, and for stages that do not run."""
    if decision.starts:
        return Parent(PENDING, name)
    if checkpoint is not None:
        return Parent(READY, name, checkpoint, sha256)
    if decision.action == BLOCKED:
        return Parent(BROKEN, name, why=f'parent {name} is blocked: {decision.reason}')
    if decision.action == LEFT:
        why = f'parent {name} has not finished and is not selected; select it too, or give --skip-pretrain CHECKPOINT'
        return Parent(LOST, name, why=why)
    why = f'the checkpoint of parent {name} is gone; run it again with --rerun {name}, or --skip-pretrain CHECKPOINT'
    return Parent(LOST, name, why=why)
