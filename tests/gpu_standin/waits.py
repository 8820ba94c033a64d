"""Count how often the host waits for the device in each iteration of a training on the stand-in GPU.

Counted are the calls of the runtime that wait (stream, device and event synchronisation, blocking copies), whoever
makes them; torch's synchronisation warnings say which line of Python it was.
"""

from __future__ import annotations

import collections
import ctypes
import json
import os
import traceback
import warnings
from pathlib import Path

ELSEWHERE = ('site-packages/torch/', '/sitecustomize.py', '/warnings.py', '/contextlib.py', os.path.basename(__file__))


def count_waits(path: Path) -> None:
    """From here on, every training of this process leaves in ``path`` the waits of each iteration, and their places."""
    import torch
    from mmengine.runner import loops

    from mim_mm.engine.start.runtime_info import DeferredRuntimeInfoHook

    library = ctypes.CDLL(os.environ['LD_PRELOAD'])
    total = ctypes.c_long.in_dll(library, 'standin_syncs')
    each: list[int] = []
    places: list[dict[str, int]] = []
    logged: list[int] = []

    def note(message, category, filename, lineno, file=None, line=None) -> None:
        if 'synchroniz' in str(message) and places:
            where = _place()
            places[-1][where] = places[-1].get(where, 0) + 1
        else:
            shown(message, category, filename, lineno, file, line)

    def counted(plain):
        def run_iter(loop, *args, **kwargs):
            torch.cuda.set_sync_debug_mode(1)
            places.append(collections.Counter())
            before = total.value
            with warnings.catch_warnings():
                warnings.filterwarnings('always', message='.*synchroniz')
                warnings.showwarning = note
                plain(loop, *args, **kwargs)
            torch.cuda.set_sync_debug_mode(0)
            each.append(total.value - before)
            if len(each) == loop.max_iters:
                path.write_text(json.dumps(dict(iterations=each, logged=logged, places=places), indent=1))

        return run_iter

    def flush(hook, runner):
        logged.append(len(each))
        plain_flush(hook, runner)

    shown = warnings.showwarning
    plain_flush, DeferredRuntimeInfoHook.flush = DeferredRuntimeInfoHook.flush, flush
    for kind in (loops.EpochBasedTrainLoop, loops.IterBasedTrainLoop):
        kind.run_iter = counted(kind.run_iter)


def _place() -> str:
    frames = [f for f in traceback.extract_stack() if not any(name in f.filename for name in ELSEWHERE)]
    return ' < '.join(f'{"/".join(f.filename.split("/")[-3:])}:{f.lineno}' for f in reversed(frames[-3:]))
