"""The record of a stage that does not run: a checkpoint takes its place, or its parent failed."""

from __future__ import annotations

from mim_mm.runs import move_aside
from mim_mm.transfer.chain import Stage
from mim_mm.transfer.display import Display
from mim_mm.transfer.manifest import RUN_FILE, Record, utc_now
from mim_mm.transfer.standing import Standing
from mim_mm.transfer.words import Status


def record_given(standing: Standing, stage: Stage, display: Display) -> None:
    """Record that a checkpoint takes the stage's place; an earlier run is moved, unless it holds that."""
    checkpoint, folder = standing.given_checkpoint(stage), standing.chain.folder(stage)
    if folder.resolve() not in checkpoint.resolve().parents:
        record_skipped(standing, stage, display, checkpoint=str(checkpoint))


def record_skipped(standing: Standing, stage: Stage, display: Display, **content) -> None:
    """``run.json`` of a stage that was skipped; ``content``: fields of :class:`Record`. An earlier run is moved."""
    folder = standing.chain.folder(stage)
    used = folder.is_dir() and any(path.name != RUN_FILE for path in folder.iterdir())
    if used:
        display.say(f'[{stage.name}] the earlier run was moved to {move_aside(folder)}')
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(standing.chain.name, stage.name, stage.kind, stage.arm, stage.seed, Status.SKIPPED, **content)
    record.finished = utc_now()
    record.write(folder)
