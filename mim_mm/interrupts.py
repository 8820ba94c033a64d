"""Ctrl-C ends a command in one line and with code 130, also while it still imports; the tools import this first."""

import os
import sys

CODE = 130  # 128 + SIGINT, as a shell says it


def _hook(kind, value, trace) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        _before(kind, value, trace)
        return
    if os.environ.get('RANK', '0') == '0':
        print('\nstopped by Ctrl-C; the same command starts again', file=sys.stderr)
    raise SystemExit(CODE)  # of an excepthook, Python takes it for the exit code


if getattr(sys.excepthook, '__module__', '') != __name__:  # imported twice it would call itself
    _before = sys.excepthook
    sys.excepthook = _hook
