"""What a call does with each stage, and why: the one table of rules, apart from how the facts for it are found.

A stage is skipped when it is done and nothing it was made from has changed; run again, its old folder moved aside, when
its config, its parent's weights or its data changed; continued from its last checkpoint when it was cut off or failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mim_mm.transfer.manifest import Record
from mim_mm.transfer.words import Action, ParentState, Status


@dataclass(frozen=True)
class Parent:
    """The state of the stage whose weights a stage starts from; ``why``: in words."""

    state: ParentState = ParentState.NONE
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
    action: Action
    reason: str
    resume: Path | None = None

    @property
    def starts(self) -> bool:
        return self.action.starts


def decide(facts: Facts) -> Decision:
    """The rules, in the order in which they hold."""
    record, parent = facts.record, facts.parent
    status = record.status if record else None
    if facts.given:
        return Decision(Action.GIVEN, f'its place is taken by {facts.given}')
    if not facts.selected:
        return Decision(Action.LEFT, f'not selected ({status or "never run"})')
    if facts.elsewhere:
        return Decision(Action.BLOCKED, f'still running on {facts.elsewhere}, which wrote progress.json moments ago')
    if facts.alive:
        if facts.changed or facts.forced:
            why = facts.changed or 'it is to be run again'
            return Decision(Action.BLOCKED, f'still running as pid {record.process["pid"]}, but {why}')
        return Decision(
            Action.ADOPT, f'still running as pid {record.process["pid"]}, left by an earlier call: wait for it'
        )
    if parent.state == ParentState.BROKEN:
        return Decision(Action.BLOCKED, parent.why)
    if parent.state == ParentState.LOST and not (status == Status.DONE and not facts.changed and not facts.forced):
        return Decision(Action.BLOCKED, parent.why)
    if parent.state == ParentState.PENDING:
        if facts.used:
            return Decision(Action.RERUN, f'parent {parent.name} runs first')
        return Decision(Action.RUN, f'never run; after {parent.name}')
    if facts.forced and facts.used:
        return Decision(Action.RERUN, 'asked for')
    if not record and not facts.damaged:
        if facts.used:
            return Decision(Action.RERUN, 'its folder holds files but no run.json')
        return Decision(Action.RUN, 'never run')
    if facts.changed:
        return Decision(Action.RERUN, facts.changed)
    if facts.damaged:
        if facts.checkpoint:
            return Decision(Action.RESUME, f'{facts.damaged}; goes on from {facts.checkpoint.name}', facts.checkpoint)
        return Decision(Action.RERUN, facts.damaged)
    if status == Status.DONE:
        due = f', artifacts to make: {", ".join(facts.artifacts_due)}' if facts.artifacts_due else ''
        return Decision(Action.SKIP, f'done {record.finished}{due}')
    if status == Status.SKIPPED:
        return Decision(Action.RUN, 'not run last time')
    word = {Status.RUNNING: 'cut off'}.get(status, status)
    if facts.checkpoint:
        return Decision(Action.RESUME, f'{word}; goes on from {facts.checkpoint.name}', facts.checkpoint)
    return Decision(Action.RUN, f'{word} before its first checkpoint; from the start')


def outcome_for_child(name: str, decision: Decision, checkpoint: Path | None, sha256: str | None) -> Parent:
    """What a stage's children may count on once it is decided on: for the plan, and for stages that do not run."""
    if decision.starts:
        return Parent(ParentState.PENDING, name)
    if checkpoint is not None:
        return Parent(ParentState.READY, name, checkpoint, sha256)
    if decision.action == Action.BLOCKED:
        return Parent(ParentState.BROKEN, name, why=f'parent {name} is blocked: {decision.reason}')
    if decision.action == Action.LEFT:
        why = f'parent {name} has not finished and is not selected; select it too, or give --skip-pretrain CHECKPOINT'
        return Parent(ParentState.LOST, name, why=why)
    why = f'the checkpoint of parent {name} is gone; run it again with --rerun {name}, or --skip-pretrain CHECKPOINT'
    return Parent(ParentState.LOST, name, why=why)
