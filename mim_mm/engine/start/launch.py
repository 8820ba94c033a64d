"""What ``tools/train.py`` and ``tools/test.py`` do: parse (``arguments.py``), guard, resolve, run."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mim_mm import files
from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.checkpoint.trust import trusting
from mim_mm.compat.leave import leave
from mim_mm.compat.store_address import bind_env_store
from mim_mm.config_parts import type_name
from mim_mm.data.workers import die_with_parent, shield_workers
from mim_mm.engine.hooks.tracking import add_trackers, log_lines_may_fail, make_trackers_safe
from mim_mm.engine.start import (
    agreement,
    annotations,
    class_count,
    drop_paths,
    ending,
    guard,
    run_record,
    schedule,
    slurm_env,
    value_range,
)
from mim_mm.engine.start.arguments import test_arguments, train_arguments
from mim_mm.engine.start.checks import parts, relations, resuming, same_run
from mim_mm.engine.start.cpu_memory import keep_freed_memory
from mim_mm.engine.start.work_dir import own_work_dir
from mim_mm.engine.stop.ranks import TIMEOUT_S, timeout_of
from mim_mm.engine.stop.signals import EARLY, REQUEST
from mim_mm.engine.stop.stop_hook import Stopped

# Added to every training, in this order: the last two are the last of an iteration. The clock concerns pretraining
# models alone.
HOOKS_OF_ALL = (
    'FiniteHook ClockHook ExactResumeHook ResumeScheduleHook FusedAttentionHook RankWatchHook ResumedFromHook '
    'ClassResultsHook ProgressHook StopOnSignalHook'
).split()
ENDING_S = 60.0  # what a training that is over may still take, such as a tracker that sends its last lines


def load_config(args: argparse.Namespace) -> Config:
    """Read a config, apply and check the command line; raises :class:`guard.ConfigError`."""
    path = Path(args.config)
    if not path.is_file():
        near = difflib.get_close_matches(str(path), [str(p) for p in Path('configs').rglob('*.py')], n=3, cutoff=0.4)
        raise guard.ConfigError(f"there is no config '{path}'" + (f'; near it: {", ".join(near)}' if near else ''))
    cfg = read_config(path)
    guard.check_options(cfg, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    guard.check_config(cfg)
    if args.trust_pickle:
        cfg.trust_pickle = True  # mim_mm/compat/checkpoints.py reads it
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'./work_dirs/{path.stem}'
    if args.seed is not None:
        cfg.setdefault('randomness', {})['seed'] = args.seed
    if args.data_root:
        guard.set_data_root(cfg, args.data_root)
    guard.check_data_roots(cfg)
    annotations.check_annotations(cfg, cfg.work_dir)
    if cfg.get('classes_from_data'):
        print_log(class_count.fill_from_data(cfg))
    if cfg.get('value_range'):
        print_log(value_range.fill_value_range(cfg))
    guard.fit_loaders(cfg)
    relations.check_together(cfg)
    parts.check_parts(cfg)
    return cfg


def read_config(path: str | Path) -> Config:
    """mmengine's ``Config.fromfile``, with errors that name the file.

    Raises:
        ConfigError: it is no text, no Python, or raises something while it is run.
        FileNotFoundError: a file of its ``_base_`` is not there.
    """
    try:
        return Config.fromfile(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a config is a program
        raise guard.ConfigError(
            f"the config '{path}' cannot be read ({type(error).__name__}: {error}): it, or a file of its _base_, is "
            'wrong or damaged; python FILE shows the line'
        ) from error


def world_size() -> int:
    """Processes of this job, before torch.distributed is set up."""
    for name in ('WORLD_SIZE', 'SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE'):
        if os.environ.get(name):
            return int(os.environ[name])
    return 1


def _build_runner(cfg: Config) -> Runner:
    os.environ.setdefault('LOCAL_RANK', '0')
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        die_with_parent()  # in its own session nothing else would end it when torchrun is killed
    if cfg.launcher != 'none':
        dist_cfg = cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
        dist_cfg['timeout'] = dist_cfg.get('timeout') or TIMEOUT_S
    if get_device() == 'cpu':
        keep_freed_memory()
    if cfg.launcher == 'slurm':
        try:
            os.environ.update(slurm_env.rendezvous(os.environ, torch.cuda.device_count()))
        except RuntimeError as error:
            _fail(error)
        bind_env_store(int(os.environ.get('SLURM_STEP_NUM_NODES') or os.environ.get('SLURM_JOB_NUM_NODES') or 1))
    if cfg.launcher in ('pytorch', 'slurm') and get_device() == 'cpu':
        # mmengine would select a CUDA device for each process, and hand its number to DDP; it leaves alone a group
        # that exists and a wrapper that is configured.
        torch.distributed.init_process_group('gloo', timeout=timeout_of(cfg))
        if not cfg.get('runner_type'):  # a sharded runner wraps in its own way
            unused = cfg.get('find_unused_parameters', False)
            plain = dict(device_ids=None, broadcast_buffers=False, find_unused_parameters=unused)
            cfg.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel', **plain))
    runner = RUNNERS.build(cfg) if cfg.get('runner_type') else Runner.from_cfg(cfg)
    log_lines_may_fail(runner.logger)
    return runner


def _prepare_training(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Resolve precision, schedule, learning rate and resuming in place; returns what to tell the user."""
    if cfg.get('strategy') and args.launcher == 'none':
        raise guard.ConfigError(
            f'{args.config} shards the model over processes (strategy={cfg.strategy.type}): start it with '
            'tools/dist_train.sh CONFIG GPUS, or take the recipe without FSDP for one process'
        )
    notes = [f'schedule: {change}' for change in schedule.fit_schedule(cfg)]
    relations.check_fitted(cfg)
    if args.amp and type_name(cfg.optim_wrapper) in ('', 'OptimWrapper'):
        cfg.optim_wrapper['type'] = 'mim_mm.AutocastOptimWrapper'
        notes.append('precision: bf16 autocast')
    if args.compile and cfg.get('strategy'):
        raise guard.ConfigError(
            f'{args.config} shards the model (strategy={cfg.strategy.type}), which a graph of the whole step cannot '
            'hold: leave --compile out, or take the recipe without FSDP'
        )
    if args.compile:
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mim_mm.CompileHook')]
        notes.append('compile: the step is captured as one graph; the first iterations take a minute or more')
    processes = world_size() if args.launcher != 'none' else 1
    batch = schedule.effective_batch(cfg, processes)
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if args.auto_scale_lr or (cfg.get('auto_scale_lr') or {}).get('enable'):
        notes.append(f'auto-scale-lr: {schedule.scale_lr(cfg, processes)}')
    elif base and batch and base != batch:
        lr = cfg.optim_wrapper.optimizer.lr
        notes.append(
            f'WARNING: the batch is {batch} images a step, lr={lr:.4g} is meant for {base}: '
            f'pass --auto-scale-lr to train with lr={lr * batch / base:.4g}'
        )
    notes.append(f'batch: {batch} images an optimizer step on {processes} process(es)')
    hooks = list(cfg.get('custom_hooks') or [])
    defaults = [hook for hook in (cfg.get('default_hooks') or {}).values() if hook]
    for kind in HOOKS_OF_ALL:
        if not any(type_name(hook) == kind for hook in [*hooks, *defaults]):
            hooks.append(dict(type=f'mim_mm.{kind}'))
    for hook in [*hooks, *defaults]:
        if type_name(hook) == 'ResumeScheduleHook':
            hook['allow'] = list(args.allow_change)
    cfg.custom_hooks = hooks
    add_trackers(cfg, args.log)
    make_trackers_safe(cfg)
    out_dir = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir')
    with trusting(cfg.get('trust_pickle') is True):
        checkpoint = guard.resolve_resume(args.resume, cfg.work_dir, out_dir)
    if checkpoint:
        notes += _compared(cfg, args, checkpoint, processes)
    cfg.resume, cfg.load_from = bool(checkpoint), checkpoint or cfg.get('load_from')
    notes.append(f'resuming from {checkpoint}' if checkpoint else 'starting from the first iteration')
    return notes


def _compared(cfg: Config, args: argparse.Namespace, checkpoint: str, processes: int) -> list[str]:
    """Refuse a checkpoint of another run; returns what is different about this one without making it another."""
    with trusting(cfg.get('trust_pickle') is True):
        meta = resuming.stored_meta(checkpoint)
    resuming.check_not_past(cfg, checkpoint, *resuming.trained(meta))
    stored, why = resuming.stored_config(meta)
    if stored is None:
        return [f'WARNING: the settings that {checkpoint} was trained with are not known ({why}): not compared']
    devices = (resuming.devices_then(meta), processes)
    read = guard.known_keys() | {'init'}
    return same_run.check_same_run(stored, cfg.to_dict(), devices, args.allow_change, read, checkpoint)


def _as_started(args: argparse.Namespace) -> str | None:
    """Without a config or options ``--resume`` takes the run's own, in place; returns what to tell."""
    if args.resume is None:
        return None
    work_dir = args.work_dir
    if not work_dir and args.config and Path(args.config).is_file():
        work_dir = Config.fromfile(args.config).get('work_dir') or f'./work_dirs/{Path(args.config).stem}'
    if args.resume == 'auto' and args.config and (not work_dir or latest_checkpoint(work_dir) is None):
        return None  # a fresh start
    record = run_record.read_record(args, work_dir)
    if args.config is None:
        if not record:
            raise guard.ConfigError(
                f'--resume without a config: {work_dir or "no --work-dir is given, and beside the checkpoint"} has no '
                f'{run_record.FILE_NAME} that says which it was: give the config'
            )
        args.config = record['config']
        if not args.work_dir and args.resume not in ('latest', 'auto'):
            args.work_dir = str(Path(args.resume).parent)
    return run_record.go_on_as(args, record)


def _fail(error: Exception) -> None:
    print(f'error: {ending.one_line(error)}', file=sys.stderr)
    raise SystemExit(2)


def train_main(argv: list[str] | None = None) -> None:
    """Train a config: pretraining, linear probe, fine-tuning or detection."""
    args = train_arguments(argv)
    try:
        started = _as_started(args)
        if started:
            print_log(started)
        cfg = load_config(args)
        resuming.check_resume(cfg, args.resume, args.cfg_options)
        notes = ([started] if started else []) + _prepare_training(cfg, args)
        own_work_dir(cfg.work_dir, args.launcher)  # after the checks: a mistake leaves no folder
    except (guard.ConfigError, ValueError, FileNotFoundError, files.NotWritten) as error:
        _fail(error)
    REQUEST.listen(*EARLY)  # a signal while data and model are set up is honoured after the first iteration
    code = 0
    try:
        _train(cfg, notes, args)
    except Stopped as stopped:
        code = stopped.code
    except BaseException as error:
        ending.end_badly(error, cfg)
    ending.end_within(ENDING_S, code)
    leave(code)
    if code:
        raise SystemExit(code)


def _train(cfg: Config, notes: list[str], args: argparse.Namespace) -> None:
    runner = _build_runner(cfg)
    for note in notes:
        print_log(note, logger=runner.logger)
    guard.check_first_batch(runner)
    agreement.check_agreement(runner)
    drop_paths.check_drop_paths(runner)
    if is_main_process():
        run_record.write_record(runner.work_dir, args)
    runner.train()


def test_main(argv: list[str] | None = None) -> None:
    """Evaluate a checkpoint with the test loader of a config."""
    args = test_arguments(argv)
    try:
        cfg = load_config(args)
        if not os.path.isfile(args.checkpoint):
            raise guard.ConfigError(f"there is no checkpoint '{args.checkpoint}'")
        if cfg.get('test_evaluator') is None:
            raise guard.ConfigError(
                f'{args.config} has no test_evaluator: pretraining is evaluated by tools/transfer.py'
            )
    except (guard.ConfigError, ValueError, FileNotFoundError) as error:
        _fail(error)
    cfg.load_from, cfg.resume = args.checkpoint, False
    # A checkpoint is whole however it was trained, and evaluation needs no sharding.
    cfg.pop('strategy', None)
    cfg.pop('runner_type', None)
    # The whole checkpoint is loaded; the pretrained encoder it started from is not needed again.
    hooks = [h for h in cfg.get('custom_hooks') or [] if type_name(h) != 'LoadPretrainedHook']
    cfg.custom_hooks = [*hooks, dict(type='mim_mm.WholeCheckpointHook'), dict(type='mim_mm.ClassResultsHook')]
    try:
        _test(cfg)
    except BaseException as error:
        ending.end_badly(error, cfg)
    leave()


def _test(cfg: Config) -> None:
    runner = _build_runner(cfg)
    shield_workers(runner.test_dataloader)
    runner.test()
