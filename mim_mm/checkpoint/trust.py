"""Whether files may be read that can run code: never, unless somebody says so for a piece of work.

A checkpoint is data. What ``torch.save`` writes is a pickle, though, and a pickle may name any function for the reader
to call. ``--trust-pickle`` of the tools and ``trust_pickle=True`` of a config allow that for one command or one run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRUSTED = ContextVar('trusted', default=False)

HELP = (
    'read checkpoints that hold pickled Python objects: this RUNS CODE OF THE FILE with your rights, so only for files '
    'whose author you trust'
)


def trusted() -> bool:
    """Whether files may run code while they are read, here and now."""
    return _TRUSTED.get()


@contextmanager
def trusting(yes: bool = True) -> Iterator[None]:
    """Files that are read within may run code; ``yes`` False changes nothing."""
    token = _TRUSTED.set(yes or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """``--trust-pickle``, for a tool that reads a checkpoint."""
    parser.add_argument('--trust-pickle', action='store_true', help=HELP)
