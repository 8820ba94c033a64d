"""Runs a function right after a module was imported, so that ``import mim_mm`` can mend modules without importing them.

mmengine takes seconds to import and ``import mim_mm`` milliseconds; whoever imports mim_mm first, or second, gets the
same process.
"""

import importlib.abc
import sys
from collections.abc import Callable


class _Watcher(importlib.abc.MetaPathFinder):
    """Finds the watched modules by the other finders and lets their loaders call the actions when they are done."""

    def __init__(self):
        self.actions = {}

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.actions:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, 'find_spec'):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                self._extend(spec.loader, self.actions[fullname])
                return spec
        return None

    @staticmethod
    def _extend(loader, actions):
        execute = loader.exec_module

        def exec_module(module):
            execute(module)
            for action in actions:
                action(module)

        loader.exec_module = exec_module  # a loader belongs to one spec, so no other import sees this


def after_import(name: str, action: Callable) -> None:
    """Call ``action(module)`` once module ``name`` is imported: now, where it already is.

    Args:
        name: full name of a module.
        action: calling it twice on one module must do no harm (a reload does).
    """
    module = sys.modules.get(name)
    if module is not None:
        action(module)
    for watcher in sys.meta_path:
        if isinstance(watcher, _Watcher):
            break
    else:
        watcher = _Watcher()
        sys.meta_path.insert(0, watcher)
    actions = watcher.actions.setdefault(name, [])
    if action not in actions:
        actions.append(action)
