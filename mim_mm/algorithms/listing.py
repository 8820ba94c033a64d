"""The methods of the registry as the list in README.md, which ``tools/list_methods.py`` writes and a test compares."""

from __future__ import annotations

import inspect
import re
import sys

from mim_mm.algorithms.base import Pretraining
from mim_mm.registry import MODELS

_PAPER = re.compile(
    r'(?P<name>[^:(]{1,20}): (?P<title>[^(]+?) \((?P<source>.*?)(?:, (?:arXiv )?(?P<paper>\d{4}\.\d{5}))?\)'
)


def methods() -> dict[str, str]:
    """{registered name: first paragraph of the docstring of its module} of every method of this package, by name."""
    MODELS.get('MAE')  # the first look-up imports all modules of the registry
    found = {}
    for name, kind in MODELS.module_dict.items():
        module = getattr(kind, '__module__', '')
        if inspect.isclass(kind) and issubclass(kind, Pretraining) and module.startswith('mim_mm.algorithms.'):
            found[name] = ' '.join((sys.modules[module].__doc__ or '').strip().partition('\n\n')[0].split())
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def listed() -> str:
    """The list in Markdown, a line a method: title and source where the docstring has them, else what it says.

    Raises:
        ValueError: the module of a method has no docstring.
    """
    return ''.join(f'{_line(name, text)}\n' for name, text in methods().items())


def _line(name: str, text: str) -> str:
    found = _PAPER.match(text)
    if not text:
        raise ValueError(
            f'{name}: its module has no docstring: begin it with "{name}: Title (Authors, Venue, arXiv 0000.00000)", '
            'which README.md lists'
        )
    if found is None:
        return f'- **{name}**: {text}'
    shown = f'[{found["title"]}](https://arxiv.org/abs/{found["paper"]})' if found['paper'] else found['title']
    spelled = '' if found['name'] == name else f' ({found["name"]})'
    return f'- **{name}**{spelled}: {shown}, {found["source"]}'
