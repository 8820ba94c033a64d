"""All processes of a job train the same thing: code, config and data are compared once, before the first step.

One that reads another branch, another config or another copy of the data waits in the end for a collective that the
others never call, or trains a mixture in silence.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.dist import all_gather_object, get_world_size

import mim_mm
from mim_mm.engine.start.ending import RanksDiffer

# What must be equal. Paths and loaders' workers may differ from node to node.
LEARNED = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr', 'randomness', 'runner_type')


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:12]


def _code() -> str:
    root = Path(mim_mm.__file__).parent
    return _digest(*(path.read_bytes() for path in sorted(root.rglob('*.py'))))


def facts(runner: Any) -> dict[str, Any]:
    """What must be equal on all processes, as plain values."""
    loader = runner.train_dataloader
    sizes = {}
    for name, thing in (('images', loader.dataset), ('batches an epoch', loader)):
        try:
            sizes[f'training {name}'] = len(thing)
        except TypeError:  # a stream
            continue
    texts = {key: json.dumps(runner.cfg.get(key), sort_keys=True, default=str) for key in LEARNED}
    return dict(
        host=socket.gethostname(),
        **sizes,
        **{'batch size': loader.batch_size},
        **{f'config {key}': _digest(text.encode()) for key, text in texts.items()},
        **{'code of mim_mm': _code(), 'torch': str(torch.__version__), 'mmengine': mmengine.__version__},
    )


def differences(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Where processes differ from the first one, in words."""
    for key in found[0]:
        if key == 'host':
            continue
        for rank, other in enumerate(found):
            if other.get(key) != found[0][key]:
                first = f'{found[0][key]} on rank 0 ({found[0]["host"]})'
                yield f'{key}: {first}, {other.get(key)} on rank {rank} ({other["host"]})'
                break


def check_agreement(runner: Any) -> None:
    """Stop on all processes alike where they would not train the same thing.

    Raises:
        RanksDiffer: naming what differs, and on which ranks.
    """
    if get_world_size() == 1:
        return
    found = list(differences(all_gather_object(facts(runner))))
    if found:
        raise RanksDiffer(
            f'the processes of this job do not train the same thing: {"; ".join(found)}. Start all of them from the '
            'same checkout, config and data'
        )
