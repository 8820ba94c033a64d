"""Hooks that only look on must not be able to end what they look at."""

from __future__ import annotations

import functools
import warnings


def harmless(moment):
    """A moment of a mmengine hook that only tells: what it raises is warned about once a hook, and training goes on.

    Every ``Exception`` counts, whatever its type: a full disk, an odd value, a device that does not know its name, a
    mistake of ours. ``KeyboardInterrupt`` and ``SystemExit`` pass. The moment is tried again the next time; what
    keeps failing does so silently. A CUDA error that surfaces here belongs to the step: the next one raises it again.
    """

    @functools.wraps(moment)
    def guarded(self, *args, **kwargs):
        try:
            return moment(self, *args, **kwargs)
        except Exception as error:
            if not getattr(self, '_told', False):
                self._told = True
                where = f'{type(self).__name__}.{moment.__name__}'
                reason = f'{type(error).__name__}: {error}'
                warnings.warn(f'{where} failed ({reason}); training goes on without it', stacklevel=2)

    return guarded
