"""Keeping memory between the steps of a training on the CPU."""

from __future__ import annotations

import ctypes
import os

# malloc.h of glibc. 65536 and 128 KiB are its defaults (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER, MMAP_MAX, TRIM_BYTES = -1, 65536, 128 * 1024


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees instead of giving it back to the system.

    A training step on a CPU allocates and frees the same gigabytes each time. glibc maps every large block anew, and
    the system clears it page by page: a sixth of a step in bf16, in some steps half of it (docs/speed.md). The process
    stays at its largest size until it ends. Processes forked later (loader workers) go back to the default.

    Returns:
        Whether the C library knows how; others are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: macOS, musl, Windows
        return False
    # Setting one of them by hand also ends glibc's own adjustment of the mmap threshold.
    kept = bool(mallopt(M_TRIM_THRESHOLD, NEVER) and mallopt(M_MMAP_MAX, 0))
    os.register_at_fork(after_in_child=lambda: (mallopt(M_TRIM_THRESHOLD, TRIM_BYTES), mallopt(M_MMAP_MAX, MMAP_MAX)))
    return kept
