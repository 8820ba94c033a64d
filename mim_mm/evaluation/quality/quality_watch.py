"""Measure each checkpoint of a pretraining that runs elsewhere, one after the other, each in a process of its own.

The watcher only looks at files: ``epoch_*.pth`` and ``iter_*.pth`` that are whole, ``progress.json`` for the end, and
``quality.jsonl`` for what is done, so that it can be stopped and started at any time, on any machine that sees them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmengine.config import Config

from mim_mm import files
from mim_mm.checkpoint.checksum import is_whole
from mim_mm.checkpoint.read import LoadError, read_content
from mim_mm.checkpoint.trust import trusting
from mim_mm.config_parts import type_name
from mim_mm.evaluation.frozen.features import Source, build_encoder
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.evaluation.quality.measure import QualityData, QualitySettings, measure_quality
from mim_mm.evaluation.quality.quality_log import add_quality, read_quality

__all__ = ['WatchCall', 'checkpoints', 'job_main', 'measure_checkpoint', 'watch']

LOG = 'quality_watch.log'
HOOK_ONLY = ('type', 'interval', 'by_epoch', 'at_start', 'at_end', 'priority')


@dataclass(frozen=True)
class WatchCall:
    """What to watch and how to measure.

    Args:
        work_dir: of the pretraining.
        config: a config with ``model.backbone``, data and a preprocessor, as tools/knn.py takes it; None: the one that
            the run left in its work dir.
        settings: arguments of ``QualitySettings`` that are given; the others are those of the run's ``QualityHook``,
            if it has one. ``data`` falls back on the data of ``config``.
        device: of the measurements.
        prefix, entry, min_loaded, skip: see :func:`mim_mm.checkpoint.load.load_encoder`.
        trust_pickle: checkpoints may run code while they are read.
    """

    work_dir: str
    config: str | None = None
    settings: dict = field(default_factory=dict)
    device: str = 'cpu'
    prefix: str = 'backbone.'
    entry: str | None = None
    min_loaded: float = 0.95
    skip: Sequence[str] = ()
    trust_pickle: bool = False


def checkpoints(work_dir: str | Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = []
    for path in Path(work_dir).glob('*.pth'):
        match = re.fullmatch(r'(epoch|iter)_(\d+)\.pth', path.name)
        if match and is_whole(path):
            found.append((match[1], int(match[2]), path))
    return [path for *_, path in sorted(found)]


def _meta(checkpoint: Path) -> dict:
    """The ``meta`` of a checkpoint; LoadError when it has none that says the iteration."""
    try:
        content = read_content(checkpoint, mmap=True, verify=False)
    except OSError as error:  # a training deletes what it does not keep
        raise LoadError(f'{checkpoint} cannot be read ({type(error).__name__}: {error})') from error
    meta = content.get('meta') if isinstance(content, dict) else None
    if not isinstance(meta, dict) or 'iter' not in meta:
        raise LoadError(f'{checkpoint} has no meta.iter: the watcher is for checkpoints of a training of mmengine')
    return meta


def run_config(work_dir: str | Path) -> Config | None:
    """The newest config with a backbone that mmengine left in the work dir.

    The text in the checkpoint is not used: configs are programs, and reading a checkpoint here runs no code.
    """
    for path in sorted(Path(work_dir).glob('*.py'), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            cfg = Config.fromfile(path)
        except Exception:  # a script of the user's, or of a stage's artifact
            continue
        if 'backbone' in (cfg.get('model') or {}):
            return cfg
    return None


def prepare(call: WatchCall) -> tuple[Config, QualityData]:
    """Config and images for the checkpoints of a run.

    Raises:
        ValueError: there is no config, nothing names the data, or wrong settings. FileNotFoundError: no data.
    """
    stored = run_config(call.work_dir) or Config()
    cfg = Config.fromfile(call.config) if call.config else stored
    if 'backbone' not in (cfg.get('model') or {}):
        raise ValueError(
            f'{call.config or call.work_dir} has no config with a model.backbone: give --config, the one that was '
            'trained or a linear-probe recipe of the same backbone'
        )
    hooks = [h for h in stored.get('custom_hooks') or () if type_name(h) == 'QualityHook']
    values = {k: v for k, v in (hooks[0].to_dict() if hooks else {}).items() if k not in HOOK_ONLY}
    named = bool(call.config) and 'data' not in call.settings
    if named:
        values['data'] = call.config
    values.update(call.settings)
    if not values.get('data'):
        raise ValueError(
            f'{call.work_dir} has no QualityHook that names labelled data: give --data DIR (DIR/train/<class>/*, '
            'DIR/val/<class>/*) or --config RECIPE with a data_root'
        )
    settings = QualitySettings(**values)
    preprocess = Preprocess.from_config(cfg, settings.resize, settings.crop)
    return cfg, QualityData(settings, preprocess, cfg if named else None)


def _identity(checkpoint: Path) -> dict:
    state = checkpoint.stat()
    return dict(name=checkpoint.name, size=state.st_size, mtime_ns=state.st_mtime_ns)


def is_done(checkpoint: Path, rows: list[dict], protocol: str) -> bool:
    """Whether a row of this protocol is of exactly this file, or of the same iteration by the run's own hook."""
    mine = [row for row in rows if row.get('protocol') == protocol]
    if any(row.get('file') == _identity(checkpoint) for row in mine):
        return True
    by_hook = {row['iter'] for row in mine if row.get('source') == 'hook'}
    return bool(by_hook) and _meta(checkpoint)['iter'] in by_hook


def measure_checkpoint(call: WatchCall, checkpoint: str | Path) -> dict:
    """Measure one checkpoint, add it to ``quality.jsonl`` and return the row.

    Raises:
        LoadError: the encoder is not in it.
        ValueError, FileNotFoundError, RuntimeError: see ``prepare`` and ``measure_quality``.
    """
    path = Path(checkpoint)
    file, meta = _identity(path), _meta(path)
    cfg, data = prepare(call)
    how = dict(prefix=call.prefix, entry=call.entry, min_loaded=call.min_loaded, skip=tuple(call.skip))
    backbone, report = build_encoder(Source(cfg, path, data.preprocess, **how))
    print(report.table(), flush=True)
    found = measure_quality(backbone.to(call.device), data, call.device)
    epoch = meta.get('epoch') if path.name.startswith('epoch_') else None
    row = dict(iter=int(meta['iter']), epoch=epoch, protocol=data.digest, source='watch', file=file, **found)
    row.update(device=call.device, time=time.time())
    add_quality(call.work_dir, row)
    return row


def job_main() -> None:
    """The process of one measurement: ``argv`` is a :class:`WatchCall` as JSON and the checkpoint."""
    # As an exception, so that a temporary file is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.nice(10)
    try:
        call = WatchCall(**json.loads(sys.argv[1]))
        with trusting(call.trust_pickle):
            row = measure_checkpoint(call, sys.argv[2])
    except (FileNotFoundError, ValueError, RuntimeError) as error:  # LoadError is one
        sys.exit(f'error: {error}')
    print(f'{Path(sys.argv[2]).name}: k-NN {row["knn_top1"]:.2f}, probe {row["probe_top1"]:.2f}')


def run_job(call: WatchCall, checkpoint: Path) -> str | None:
    """Measure in another process of lower priority; None, or what went wrong. An interrupt ends that process first."""
    command = [sys.executable, '-c', 'from mim_mm.evaluation.quality.quality_watch import job_main; job_main()']
    command += [json.dumps(asdict(call)), str(checkpoint)]
    log = Path(call.work_dir) / LOG
    with open(log, 'ab') as stream:
        begin = stream.tell()
        # Its own session: Ctrl-C reaches the watcher only, which ends it in order.
        job = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = job.wait()
        finally:
            if job.poll() is None:
                job.terminate()
                try:
                    job.wait(20)
                except subprocess.TimeoutExpired:
                    job.kill()
                    job.wait()
    if code == 0:
        return None
    lines = log.read_bytes()[begin:].decode(errors='replace').strip().splitlines()
    # What went wrong may take several lines; its first one says it.
    told = next((line for line in lines if line.startswith('error:')), lines[-1] if lines else 'no output')
    return f'exit code {code}: {told} (all of it: {log})'


def _last_line(folder: Path) -> str:
    """What the last job said."""
    return (folder / LOG).read_text(errors='replace').strip().splitlines()[-1]


def _finished(work_dir: Path) -> bool:
    return bool(files.known_object(work_dir / 'progress.json').get('finished'))


def watch(
    call: WatchCall,
    once: bool = False,
    every: float = 30.0,
    say: Callable[[str], None] = print,
    after: Callable[[], object] = lambda: None,
) -> int:
    """Measure what is there and what comes, oldest first, until the training has finished and all is measured.

    Args:
        once: measure what is there and return.
        every: seconds between looks.
        say, after: called with each line of text, and after each measurement.

    Returns:
        0, or 1 when a checkpoint could not be measured; such a one is not tried again in this call.

    Raises:
        FileNotFoundError: no work dir. ValueError: nothing names the data.
    """
    folder, failed, protocol = Path(call.work_dir), set(), None
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is no folder: give the work dir of a pretraining')
    waiting = False
    while True:
        finished = _finished(folder)  # before listing: a last checkpoint written in between is not missed
        todo = []
        for path in checkpoints(folder):
            protocol = protocol or prepare(call)[1].digest
            try:
                if path.name not in failed and not is_done(path, read_quality(folder), protocol):
                    todo.append(path)
            except (LoadError, OSError) as error:
                if path.exists():  # else it was removed while it was looked at
                    failed.add(path.name)
                    say(f'{path.name} FAILED, {error}')
        if todo:
            waiting, path = False, todo[0]
            problem = run_job(call, path)
            if problem and not path.exists():
                say(f'{path.name} was removed before it was measured: raise max_keep_ckpts of the pretraining')
                continue
            if problem:
                failed.add(path.name)
                say(f'{path.name} FAILED, {problem}')
                continue
            say(_last_line(folder))
            after()
        elif once or finished:
            return 1 if failed else 0
        else:
            if not waiting:
                say(f'all whole checkpoints of {folder} are measured; looking again every {every:g} s')
            waiting = True
            time.sleep(every)
