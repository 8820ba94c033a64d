"""What several rooms ask of a config: the class that it names, the data sets of a loader, the steps of a pipeline.

Plain mappings in, nothing is built. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def type_name(settings: Any) -> str:
    """``EMAE`` for ``dict(type='mim_mm.EMAE')``; mmengine's new style names the class itself. '': there is none."""
    kind = settings.get('type') if isinstance(settings, Mapping) else None
    return getattr(kind, '__name__', None) or str(kind or '').split('.')[-1]


def datasets_in(dataset: Any) -> Iterator[dict]:
    """The data sets of a loader's ``dataset``, through any wrappers, which come before what they hold."""
    waiting = [dataset]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Mapping):
            yield found
            waiting += [found.get('dataset'), *(found.get('datasets') or ())]
        elif isinstance(found, (list, tuple)):
            waiting += found


def is_wrapper(dataset: Mapping) -> bool:
    """Whether it holds other data sets and has no images of its own."""
    return bool(dataset.get('dataset') or dataset.get('datasets'))


def steps_in(pipeline: Any) -> Iterator[dict]:
    """Every step of a pipeline, those that other steps hold too."""
    if isinstance(pipeline, Mapping):
        if 'type' in pipeline:
            yield pipeline
        pipeline = list(pipeline.values())
    if isinstance(pipeline, (list, tuple)):
        for item in pipeline:
            yield from steps_in(item)
