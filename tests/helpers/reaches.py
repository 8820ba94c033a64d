"""What a test reaches, found in its text: conftest.py gives the markers ``process`` and ``slow`` by it.

A test reaches a word where it names it, or names a function, class or fixture that does, in its own file, in
tests/helpers or in a conftest.py. What is hidden from that (a name made at run time, a call of the package) is marked
by hand; conftest.py stops a test that starts a Python or a shell script without the marker ``process``.
"""

import ast
import functools
from pathlib import Path

HELPERS = Path(__file__).parent
# Modules and functions that start processes, ours among them.
PROCESSES = frozenset({
    'subprocess', 'multiprocessing', 'mp', 'Popen', 'spawn', 'fork',
    'run_chain', 'run_sweep', 'run_comparison', 'run_job',
})  # fmt: skip
# What trains through mmengine's Runner, or measures a whole encoder: seconds instead of tenths.
TRAININGS = frozenset({
    'from_cfg', 'frozen_features', 'load_or_extract', 'measure_checkpoint', 'measure_quality', 'DetInferencer',
    'ImageClassificationInferencer', 'CompileHook', 'train_main', 'test_main',
})  # fmt: skip


class _Module:
    """Definitions at the top of a file: name -> the names that each uses, and the files that others come from."""

    def __init__(self, path: Path):
        self.uses: dict[str, set[str]] = {}
        self.always: set[str] = set()  # fixtures that every test of the file gets
        self.origin: dict[str, tuple[Path, str]] = {}
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.uses[node.name] = _names(node)
                if any('autouse' in ast.dump(decorator) for decorator in node.decorator_list):
                    self.always.add(node.name)
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    self.uses.update({name: _names(node.value) for name in _names(target)})
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._take_import(node)

    def _take_import(self, node):
        for alias in node.names:
            file = HELPERS / f'{alias.name if isinstance(node, ast.Import) else node.module}.py'
            if file.is_file():
                self.origin[alias.asname or alias.name] = (file, '' if isinstance(node, ast.Import) else alias.name)


def _names(node) -> set[str]:
    """Every name that a piece of code uses: variables, attributes, arguments (a fixture is asked for by one)."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.add(part.id)
        elif isinstance(part, ast.Attribute):
            found.add(part.attr)
        elif isinstance(part, ast.arg):
            found.add(part.arg)
        elif isinstance(part, ast.alias):
            found.add(part.name)
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == 'usefixtures':
            found |= {word.value for word in part.args if isinstance(word, ast.Constant)}
    return found


@functools.cache
def _module(path: Path) -> _Module:
    return _Module(path)


@functools.cache
def reaches(path: Path, name: str, words: frozenset[str]) -> bool:
    """Whether the test ``name`` of the file ``path`` reaches one of ``words``."""
    fixtures = [folder / 'conftest.py' for folder in path.parents if (folder / 'conftest.py').is_file()]
    waiting = [(path, name), *((path, fixture) for fixture in _module(path).always)]
    seen = set()
    while waiting:
        file, word = place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        if word in words:
            return True
        module = _module(file)
        if word in module.uses:
            waiting += [(file, used) for used in module.uses[word]]
        elif word in module.origin:
            origin, inside = module.origin[word]
            # a helper imported whole: what is used of it is not known by its name alone
            waiting += [(origin, inside)] if inside else [(origin, used) for used in _module(origin).uses]
        elif file == path:
            waiting += [(conftest, word) for conftest in fixtures if word in _module(conftest).uses]
    return False
