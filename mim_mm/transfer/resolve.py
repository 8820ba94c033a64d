"""What a call means: the chain it runs, with its options merged in, and how that stands on the disk.

Nothing is written here but the chain config of a call that describes one (``--compare``, ``--images``), and that not in
a dry run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mim_mm.compat.internals import parse_option
from mim_mm.transfer import datasets, launch
from mim_mm.transfer.call import Call
from mim_mm.transfer.chain import LAUNCHERS, Chain, ChainError, check_written_folder, load_chain, unknown
from mim_mm.transfer.compare.comparison import write_comparison
from mim_mm.transfer.display import Display, Renaming
from mim_mm.transfer.identity import data_roots
from mim_mm.transfer.own.own_data import write_own_chain
from mim_mm.transfer.own.own_options import OwnData
from mim_mm.transfer.standing import Standing
from mim_mm.transfer.words import Kind

CACHE_FILE = 'digests.json'


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A call that is understood: its chain as it stands, where to say what happens, and the programs stages run."""

    call: Call
    standing: Standing
    display: Display
    scripts: launch.Scripts

    @property
    def chain(self) -> Chain:
        return self.standing.chain


@contextlib.contextmanager
def chain_of(call: Call, display: Display) -> Iterator[tuple[Call, Display]]:
    """The same call of a chain config: as it came, or of the config that is written for a comparison or for own data.

    In a dry run such a config lies in a temporary folder, which is gone in the end, so that the plan is made from what
    would be run; the display that is yielded calls this folder by the name of the work dir.

    Raises:
        ChainError: the call describes a chain in two ways or in none, or one that cannot work; nothing was written.
    """
    write = write_comparison if call.compare else write_own_chain if call.own != OwnData() else None
    if write is None:
        if not call.chain:
            raise ChainError('give a chain config, or --images')
        yield call, display
        return
    check_written_folder(call.work_dir or '.')
    if not call.dry_run:
        yield write(call, display.say, None), display
    else:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            written = write(call, display.say, folder)
            yield written, Renaming(display, str(folder), str(Path(written.work_dir)))


def resolve(call: Call, display: Display, scripts: launch.Scripts) -> Resolved:
    """Read the chain config of a call, merge the call's options into it, look at what is there.

    Raises:
        ChainError: the config or an option cannot be; the message names the value, the rule and the fix.
    """
    roots = set_data_roots(call.data_root)
    chain = with_options(load_chain(call.chain, call.work_dir), call.cfg_options)
    check_call(call)
    standing = Standing(
        chain,
        datasets.DigestCache(chain.work_dir / CACHE_FILE, display.say),
        selected=selection(chain, call.only, call.start_from),
        given=given_checkpoints(chain, call.skip_pretrain),
        forced=[stage.name for stage in chain.select(call.rerun)],
        auto_scale_lr=call.auto_scale_lr,
        allow_change=call.allow_change,
        trust_pickle=call.trust_pickle,
        log=call.log,
    )
    check_data_roots_used(standing, roots)
    return Resolved(call, standing, display, scripts)


# ---- reading the options


def check_call(call: Call) -> None:
    """Refuse numbers and names that mean nothing."""
    if call.jobs < 1:
        raise ChainError(f'--jobs {call.jobs} must be at least 1')
    if call.gpus < 0:
        raise ChainError(f'--gpus {call.gpus} must be 0 (one process on the CPU) or more')
    if call.launcher is not None and call.launcher not in LAUNCHERS:
        raise unknown('launcher', call.launcher, LAUNCHERS, '--launcher')
    if call.jobs > 1 and call.launcher not in ('slurm', 'mpi'):
        launch.check_devices(call.jobs, call.gpus, launch.visible_devices())


def set_data_roots(items: Sequence[str]) -> dict[str, str]:
    """``imagenet=DIR`` -> IMAGENET_ROOT=DIR in the environment, where the configs and all stages look for it."""
    roots = {}
    for item in items:
        name, equals, folder = item.partition('=')
        if not equals or not re.fullmatch(r'[A-Za-z]\w*', name) or not folder:
            raise ChainError(f'--data-root {item!r} must be NAME=DIR, e.g. imagenet=/data/imagenet coco=/data/coco')
        roots[f'{name.upper()}_ROOT'] = os.path.abspath(os.path.expanduser(folder))
    os.environ.update(roots)
    return roots


def check_data_roots_used(standing: Standing, roots: dict[str, str]) -> None:
    """A root that no config asks for is a misspelt name, and would leave the stages on their default."""
    used = [root for stage in standing.stages for root in data_roots(standing.config(stage).to_dict())] if roots else []
    for name, folder in roots.items():
        if not any(Path(os.path.abspath(root)).is_relative_to(folder) for root in used):
            raise ChainError(f'--data-root: no config of this chain reads {name}; they read {", ".join(set(used))}')


def with_options(chain: Chain, items: Sequence[str]) -> Chain:
    """The chain with ``STAGE.key=value`` options added to its stages, over those of the config."""
    added: dict[str, dict[str, Any]] = {}
    for item in items:
        path, equals, value = item.partition('=')
        name, dot, key = path.partition('.')
        if not equals or not dot or not key:
            raise ChainError(f'--cfg-options {item!r} must be STAGE.key=value, e.g. linear.train_cfg.max_epochs=10')
        for stage in chain.select([name]):
            if stage.config is None:
                raise ChainError(f'--cfg-options {item!r}: stage {stage.name!r} has no config')
            added.setdefault(stage.name, {})[key] = parse_option(value)
    stages = [dataclasses.replace(s, options={**s.options, **added.get(s.name, {})}) for s in chain.stages]
    return dataclasses.replace(chain, stages=tuple(stages))


def selection(chain: Chain, only: Sequence[str], start_from: str | None) -> list[str] | None:
    """Names of the stages that may run; None for all of them."""
    if only and start_from:
        raise ChainError('--only and --from cannot both be given: name the stages, or the first of them')
    if only:
        return [stage.name for stage in chain.select(only)]
    if start_from:
        first = chain.select([start_from])[0]
        return [stage.name for stage in chain.stages[chain.stages.index(first) :]]
    return None


def given_checkpoints(chain: Chain, items: Sequence[str]) -> dict[str, Path]:
    """Which checkpoint takes the place of which pretraining stage."""
    pretraining = {stage.name: stage for stage in chain.stages if stage.kind == Kind.PRETRAIN}
    given: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition('=')
        if not equals or name not in pretraining:
            path = item
            if len(pretraining) != 1:
                names = ', '.join(pretraining) or 'none'
                raise ChainError(f'--skip-pretrain {item}: say which stage, STAGE=CHECKPOINT; this chain has {names}')
            name = next(iter(pretraining))
        if not Path(path).is_file():
            raise ChainError(f'--skip-pretrain: there is no checkpoint {path!r}')
        given[name] = Path(path).resolve()
    return given
