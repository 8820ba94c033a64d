"""Finding out how things stand in a chain's work dir: the facts on which ``rules.decide`` decides. Writes nothing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.checkpoint.atomic import checkpoints_of, latest_checkpoint
from mim_mm.checkpoint.checksum import is_sound
from mim_mm.files import read_json
from mim_mm.slurm_queue import is_over
from mim_mm.transfer import datasets, identity, process, rules
from mim_mm.transfer.chain import Chain, ChainError, Stage
from mim_mm.transfer.manifest import RUN_FILE, DamagedManifest, Record, read_record
from mim_mm.transfer.own import user_code
from mim_mm.transfer.words import Action, Kind, ParentState, Status

# Beside run.json: the whole identity of a run, so that a change can be named key by key, and so that a run whose
# run.json is damaged is still known.
IDENTITY_FILE = 'identity.json'


@dataclasses.dataclass
class Identity:
    """What a run is made from; two runs with equal identities are the same run."""

    config: dict[str, Any]
    parent: str | None
    data: dict[str, Any]


class Standing:
    """How a chain stands, as one call sees it.

    Args:
        chain: with the call's options already merged into its stages.
        cache: digests of data and checkpoints.
        selected: names of the stages that may run; the others are looked at only. None selects all.
        given: stage name -> checkpoint that takes its place.
        forced: names of stages to run again whatever is there.
        auto_scale_lr: stages scale their learning rate with their batch.
        allow_change: settings that a stage which is resumed may have otherwise.
        trust_pickle: stages may read checkpoints that run code; no part of what a run is.
        log: trackers of the stages; no part of it either.
    """

    def __init__(
        self,
        chain: Chain,
        cache: datasets.DigestCache,
        selected: Sequence[str] | None = None,
        given: dict[str, Path] | None = None,
        forced: Sequence[str] = (),
        auto_scale_lr: bool = False,
        allow_change: Sequence[str] = (),
        trust_pickle: bool = False,
        log: Sequence[str] = (),
    ):
        self.chain = chain
        self.cache = cache
        self.selected = None if selected is None else set(selected)
        self.given = given or {}
        self.forced = set(forced)
        self.auto_scale_lr, self.allow_change = auto_scale_lr, tuple(allow_change)
        self.trust_pickle, self.log = trust_pickle, tuple(log)
        self._configs: dict[str, Config] = {}
        self._learned: dict[str, dict[str, Any]] = {}
        self._data: dict[str, dict[str, Any]] = {}
        self._code: dict[str, dict[str, dict[str, str]]] = {}

    def of_all_stages(self) -> Standing:
        """The same chain as a call that selects everything and forces nothing would find it now."""
        options = dict(auto_scale_lr=self.auto_scale_lr, trust_pickle=self.trust_pickle, log=self.log)
        return Standing(self.chain, self.cache, given=self.given, **options)

    @property
    def stages(self) -> list[Stage]:
        """The stages that train; the report is not one of them."""
        return [stage for stage in self.chain.stages if stage.kind != Kind.REPORT]

    def config(self, stage: Stage) -> Config:
        if stage.config is None:  # weights made elsewhere
            return Config()
        if stage.name not in self._configs:
            self._configs[stage.name] = identity.resolved_config(
                stage.config, stage.options, stage.seed, self.auto_scale_lr
            )
        return self._configs[stage.name]

    def learned(self, stage: Stage) -> dict[str, Any]:
        """The learned part of the stage's config and, under its own key, the hashes of the user's code it brings in."""
        if stage.name not in self._learned:
            learned = identity.learned(self.config(stage))
            code = {module: facts['sha256'] for module, facts in self.code(stage).items()}
            self._learned[stage.name] = {**learned, identity.CODE_KEY: code} if code else learned
        return self._learned[stage.name]

    def code(self, stage: Stage) -> dict[str, dict[str, str]]:
        """File and hash of every module of the user's that the stage's config brings in."""
        if stage.config is None:
            return {}
        if stage.name not in self._code:
            self._code[stage.name] = user_code.user_code(self.config(stage), stage.config)
        return self._code[stage.name]

    def data(self, stage: Stage) -> dict[str, Any]:
        """Identity of the stage's data; looked at once a call."""
        if stage.name not in self._data:
            self._data[stage.name] = datasets.identity(self.config(stage).to_dict(), self.cache)
        return self._data[stage.name]

    def record(self, stage: Stage) -> tuple[Record | None, str | None]:
        """The stage's record, and what is wrong with it when it cannot be read."""
        try:
            return read_record(self.chain.folder(stage)), None
        except DamagedManifest as error:
            return None, str(error)

    def result(self, stage: Stage) -> Path | None:
        """The final checkpoint of a stage that is done, None when there is none (any more)."""
        record, _ = self.record(stage)
        if record is None or record.status != Status.DONE or not record.checkpoint:
            return None
        path = (self.chain.folder(stage) / record.checkpoint).resolve()
        return path if path.is_file() else None

    def given_checkpoint(self, stage: Stage) -> Path | None:
        """A checkpoint that stands in for the stage: given in this call, or in an earlier one and recorded."""
        if stage.name in self.given:
            return self.given[stage.name]
        if stage.checkpoint:
            return stage.checkpoint
        record, _ = self.record(stage)
        if record and record.status == Status.SKIPPED and record.checkpoint and stage.name not in self.forced:
            path = Path(record.checkpoint)
            if not path.is_file():
                raise ChainError(
                    f'stage {stage.name!r} was skipped in favour of {path}, which is gone; give it again with '
                    f'--skip-pretrain, or train the stage with --rerun {stage.base}'
                )
            return path
        return None

    def facts(self, stage: Stage, parent: rules.Parent) -> rules.Facts:
        """How things stand with one stage, given how they stand with its parent."""
        folder = self.chain.folder(stage)
        record, damaged = self.record(stage)
        given = self.given_checkpoint(stage)
        selected = self.selected is None or stage.name in self.selected
        if given or not selected:
            return rules.Facts(selected=selected, given=str(given) if given else None, record=record, damaged=damaged)
        made = set(record.artifacts) if record else set()
        ran = record is not None and record.status != Status.SKIPPED
        alive, elsewhere = self.running(stage, record)
        return rules.Facts(
            record=record,
            damaged=damaged,
            used=bool(ran or damaged or (folder.is_dir() and any(p.name != RUN_FILE for p in folder.iterdir()))),
            alive=alive,
            elsewhere=elsewhere,
            changed=self.change(stage, parent, record) if ran or damaged else None,
            forced=stage.name in self.forced,
            checkpoint=_goes_on_from(folder, ended=alive or bool(record and record.status == Status.DONE)),
            artifacts_due=tuple(a.name for a in stage.artifacts if a.name not in made),
            parent=parent,
        )

    def running(self, stage: Stage, record: Record | None) -> tuple[bool, str | None]:
        """Whether the recorded process of a stage runs here, and the other machine it seems to run on."""
        if record is None or record.status != Status.RUNNING or not record.process:
            return False, None
        if process.is_here(record.process):
            return process.leader_alive(record.process), None
        if is_over(record.process.get('slurm_job')):
            return False, None
        return False, record.process['host'] if _fresh(self.chain.folder(stage) / 'progress.json') else None

    def change(self, stage: Stage, parent: rules.Parent, record: Record | None) -> str | None:
        """Why what the stage is made from is not what it was made from; None when it is.

        A parent whose weights are not known (it runs first, or its file is gone) is not compared, nor are data that
        are not there. Data are looked at last, because listing them can be slow.
        """
        document = self._document(stage)
        if record is None:  # run.json is damaged
            if document is None:
                return 'run.json is damaged and nothing else says what the run was'
            before = document
            old_sha = identity.digest(before.config)
        else:
            old_sha = record.config.get('sha256')
            before = Identity(document.config if document else {}, (record.parent or {}).get('sha256'), record.data)
        new = self.learned(stage)
        if record is not None and record.code is None:  # of a version that did not look at code: nothing is known of it
            new = {key: value for key, value in new.items() if key != identity.CODE_KEY}
        if old_sha != identity.digest(new):
            old = identity.one_form(before.config)
            # The record of an earlier version may say the same in other words; its document proves that it does.
            if old_sha != identity.digest(before.config) or identity.digest(old) != identity.digest(new):
                return identity.say_change(old, new)
        if parent.state in (ParentState.NONE, ParentState.READY) and parent.sha256 != before.parent:
            old, now = ((sha or 'none')[:8] for sha in (before.parent, parent.sha256))
            return f'parent weights changed: {old} -> {now}'
        data = datasets.change(before.data, self.data(stage))
        return f'data changed: {data}' if data else None

    def _document(self, stage: Stage) -> Identity | None:
        try:
            content = read_json(self.chain.folder(stage) / IDENTITY_FILE)
            return Identity(content['config'], content['parent'], content['data'])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def outcome(self, stage: Stage, decision: rules.Decision) -> rules.Parent:
        """What the children of a stage may count on."""
        path = None
        if decision.action == Action.GIVEN:
            path = self.given_checkpoint(stage)
        elif decision.action in (Action.SKIP, Action.LEFT):
            path = self.result(stage)
        sha = self.cache.file(path) if path else None
        return rules.outcome_for_child(stage.name, decision, path, sha)

    def decisions(self) -> dict[str, rules.Decision]:
        """The decision on every training stage, as far as it can be foreseen."""
        decisions: dict[str, rules.Decision] = {}
        outcomes: dict[str, rules.Parent] = {}
        for stage in self.stages:
            parent = outcomes[stage.init] if stage.init else rules.Parent()
            decisions[stage.name] = rules.decide(self.facts(stage, parent))
            outcomes[stage.name] = self.outcome(stage, decisions[stage.name])
        return decisions


def _goes_on_from(folder: Path, ended: bool) -> Path | None:
    """The newest checkpoint of a stage's folder; of one that would go on, the newest whose bytes are sound."""
    if not folder.is_dir():
        return None
    return latest_checkpoint(folder) if ended else next(filter(is_sound, checkpoints_of(folder)), None)


def _fresh(path: Path) -> bool:
    """Whether a running process touched the file not long ago."""
    try:
        return time.time() - path.stat().st_mtime < process.SILENT_S
    except OSError:
        return False
