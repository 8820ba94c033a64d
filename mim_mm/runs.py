"""Which runs of a work dir are current: the one place that decides it, for the chain, its page and whatever reads runs.

A stage that is run again leaves its earlier run beside it as ``<stage>.old-<n>``. Nothing a run left is ever deleted,
and nothing that was superseded counts: it is no further seed, no failure of today and no gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# Names of stages have no dots (transfer/chain.py), so that no current run can be called so.
_ASIDE = re.compile(r'(?P<name>.+?)(\.old-\d+)+')


def superseded(folder_name: str) -> str | None:
    """The run that took the place of this one, ``linear`` for ``linear.old-2``; None for a current name."""
    found = _ASIDE.fullmatch(folder_name)
    return found['name'] if found else None


def move_aside(folder: Path) -> Path:
    """Rename a run's folder to the first free ``<name>.old-<n>`` and return it."""
    n = 1
    while (aside := folder.with_name(f'{folder.name}.old-{n}')).exists():
        n += 1
    return folder.rename(aside)


def split_current(found: Iterable[str], listed: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Names of run folders as ``(current, others)``.

    Current is what the chain lists; without a list, every name but the superseded ones. A run that the chain does not
    list (any more) is none of its results: a stage that got three seeds has become ``linear-s0`` to ``linear-s2``, and
    what lies in ``linear`` is no fourth.

    Args:
        found: folders that hold a run.
        listed: folders that the chain promises, found or not, in its order.
    """
    listed, found = list(listed), list(found)
    current = listed or [name for name in found if superseded(name) is None]
    return current, [name for name in found if name not in set(current)]
