"""What a run was started with, kept in its work dir, so that ``--resume`` goes on as it was without repeating it.

``<work_dir>/launched.json`` is the run's own record, beside the config that mmengine writes there. It is not part of
checkpoints: options decide what is imported and built, and nothing of a checkpoint does.
"""

from __future__ import annotations

import argparse
import ast
import os
from pathlib import Path
from typing import Any

from mim_mm import files

FILE_NAME = 'launched.json'
FLAGS = ('amp', 'compile', 'auto_scale_lr')
SETTINGS = ('seed', 'data_root')
TRACKERS = ('tensorboard', 'wandb', 'mlflow')
# Options that say where this one start goes or comes from, not what the run is.
OF_ONE_START = ('load_from', 'resume', 'work_dir', 'experiment_name', 'launcher')


def write_record(work_dir: str | Path, args: argparse.Namespace) -> None:
    """Keep the arguments of a training; values as Python writes them, so that tuples stay tuples."""
    options = {key: repr(value) for key, value in args.cfg_options.items() if key.split('.')[0] not in OF_ONE_START}
    content = dict(config=os.path.abspath(args.config), cfg_options=options, allow_change=list(args.allow_change))
    content |= {name: getattr(args, name) for name in (*FLAGS, *SETTINGS)}
    content['log'] = list(args.log)
    files.write_json(Path(work_dir) / FILE_NAME, content)


def read_record(args: argparse.Namespace, work_dir: str | Path | None) -> dict[str, Any]:
    """What the run to resume was started with; empty where nothing is resumed or nothing was kept.

    Args:
        args: of the command line.
        work_dir: of this run; a checkpoint that ``--resume`` names may lie in the work dir of another.
    """
    if args.resume is None:
        return {}
    folders = [Path(work_dir)] if work_dir else []
    if args.resume not in ('latest', 'auto'):
        folders.append(Path(args.resume).parent)
    for folder in folders:
        found = files.known_object(folder / FILE_NAME)
        if isinstance(found.get('cfg_options'), dict) and isinstance(found.get('config'), str):
            try:
                options = {str(key): ast.literal_eval(value) for key, value in found['cfg_options'].items()}
            except (ValueError, TypeError, SyntaxError):
                continue
            return dict(found, cfg_options=options)
    return {}


def go_on_as(args: argparse.Namespace, record: dict[str, Any]) -> str | None:
    """Fill what the command line leaves open from the record, in place; what is said on the command line stays.

    Returns:
        What was taken, in a line; None where that is nothing.
    """
    taken, repeated = [], bool(args.cfg_options)
    options = {key: value for key, value in (record.get('cfg_options') or {}).items() if key not in args.cfg_options}
    # An option that lies above or below one of the command line would undo it, or be undone by it.
    given = [f'{key}.' for key in args.cfg_options]
    options = {
        key: value
        for key, value in options.items()
        if not any(f'{key}.'.startswith(other) or other.startswith(f'{key}.') for other in given)
    }
    if options:
        taken.append('--cfg-options ' + ' '.join(f'{key}={value}' for key, value in options.items()))
        args.cfg_options = {**options, **args.cfg_options}
    for name in FLAGS:
        if record.get(name) is True and not getattr(args, name):
            setattr(args, name, True)
            taken.append(f'--{name.replace("_", "-")}')
    for name, kind in (('seed', int), ('data_root', str)):
        value = record.get(name)
        if (
            type(value) is kind
            and getattr(args, name) is None
            and not (name == 'data_root' and not Path(value).is_dir())
        ):
            setattr(args, name, value)
            taken.append(f'--{name.replace("_", "-")} {value}')
    kept = record.get('log')
    trackers = [name for name in kept if name in TRACKERS] if isinstance(kept, list) else []
    if trackers and not args.log:
        args.log = trackers
        taken.append(f'--log {" ".join(trackers)}')
    allowed = [key for key in record.get('allow_change') or () if isinstance(key, str)]
    if not repeated and allowed and not args.allow_change:
        args.allow_change = allowed
        taken += [f'--allow-change {key}' for key in allowed]
    return f'goes on as the run was started: {" ".join(taken)}' if taken else None
