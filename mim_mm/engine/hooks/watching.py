"""Whether a hook of a config changes what is learned: a class that only looks on says ``changes_learning = False``.

A run is not repeated for a hook that only looks on, and arms of a comparison may differ in it. A hook that says nothing
counts, as one of a user's does at first, and so does one whose class nobody has imported. A subclass says it anew.
"""

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from mmengine.registry import HOOKS as ROOT

from mim_mm.registry import HOOKS

# Of mmengine's own, which say nothing.
ONLY_WATCH = ('LoggerHook', 'IterTimerHook', 'MemoryProfilerHook', 'EmptyCacheHook')


def changes_learning(kind: Any) -> bool:
    """Whether a hook counts.

    Args:
        kind: ``type`` in a config: a name, with or without scope, or the class.
    """
    name = kind.split('.')[-1] if isinstance(kind, str) else None
    if name in ONLY_WATCH:
        return False
    found = kind if name is None else _find(name)
    return getattr(found, '__dict__', {}).get('changes_learning', True)


def _find(name: str) -> type | None:
    """A hook class of any scope that is registered, or one of ours.

    ``HOOKS.get`` would import all modules of ours at once, and with them mmpretrain and mmdet, for seconds in each call
    of a chain; of the listed modules only the one that defines the class is imported.
    """
    for registry in (HOOKS, ROOT, *ROOT.children.values()):
        if name in registry.module_dict:
            return registry.module_dict[name]
    for module in HOOKS._locations:
        source = Path(importlib.util.find_spec(module).origin).read_text(encoding='utf-8')
        if re.search(rf'^class {re.escape(name)}\b', source, re.M):
            return getattr(importlib.import_module(module), name)
    return None
