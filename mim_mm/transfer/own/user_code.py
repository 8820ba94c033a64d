"""Code of the user's own that a config brings in: it decides what is learned as the config does, and is not in it.

Found by reading, without importing anything: from ``custom_imports``, from dotted types (``type='my_masks.Mine'``) and
from the imports of the config files, on to everything that these modules import in turn. What is installed (Python
itself, site-packages) goes by its version, this package by its commit; every other file counts by its content.

A module that loads others by names only known when it runs (``importlib``, ``pkgutil``) brings in all that lies in its
folder and below: rather one run too many than a result of other code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from mmengine.config import Config

INSTALLED = ('site-packages', 'dist-packages')
LOADERS = ('importlib', 'pkgutil', 'import_modules_from_strings', '__import__')
_OURS = Path(__file__).resolve().parents[2]
_PYTHON = tuple(Path(sysconfig.get_paths()[key]).resolve() for key in ('stdlib', 'platstdlib'))


def user_code(config: Config, path: Path) -> dict[str, dict[str, str]]:
    """``{module: {'file': path, 'sha256': of its content}}``, sorted by module; empty for our own recipes.

    Args:
        config: resolved, options included.
        path: the file it was read from; files that it inherits from are read as well.
    """
    found: dict[str, Path] = {}
    waiting = list(_named(config.to_dict()))
    for file in _config_files(path):
        waiting += [name for name, level in _imports(file) if not level]
    while waiting:
        for name, file in _module_files(waiting.pop()):
            if name in found:
                continue
            found[name] = file
            if file.suffix == '.py':
                waiting += [_absolute(name, file, *one) for one in _imports(file)]
                waiting += _all_below(name, file)
    return {
        name: dict(file=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        for name, file in sorted(found.items())
    }


def _named(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Modules that a resolved config names."""
    if isinstance(value, dict):
        imports = value.get('imports') if path == ('custom_imports',) else None
        yield from [imports] if isinstance(imports, str) else imports or ()
        for key, item in value.items():
            if key == 'type' and isinstance(item, str) and '.' in item:
                scope = item.split('.')[0]
                yield from (item, f'{scope}.registry')  # a dotted path, or a scope whose registry mmengine imports
            elif key == 'type' and getattr(item, '__module__', None):
                yield item.__module__  # a class instead of its name
            yield from _named(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _named(item, path)


def _config_files(path: Path, seen: set[Path] | None = None) -> list[Path]:
    """A config and the files below it that it inherits from; those of installed packages are passed over."""
    seen = set() if seen is None else seen
    path = Path(path).resolve()
    if path in seen or path.suffix != '.py' or not _is_own(path):
        return []
    seen.add(path)
    try:
        bases = [base for base in Config._get_base_files(str(path)) if '::' not in base]
    except Exception:  # the new style has no _base_, and what cannot be read is said by whoever resolves the config
        bases = []
    files = [path.parent / base for base in bases]
    for name, level in _imports(path):
        if level:  # `with read_base(): from .._base_ import x`
            folder = path.parents[level - 1]
            words = name.split('.')
            files += [folder.joinpath(*words[:n]).with_suffix('.py') for n in range(1, len(words) + 1)]
    found = [path]
    for file in files:
        found += _config_files(file, seen) if file.is_file() else []
    return found


def _imports(file: Path) -> list[tuple[str, int]]:
    """``(name, level)`` of all imports in a file, those inside functions as well; ``from a import b`` is a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    names: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f'{node.module}.' if node.module else ''
            names += [((base + alias.name).removesuffix('.*'), node.level) for alias in node.names]
    return names


def _absolute(module: str, file: Path, name: str, level: int) -> str:
    """A relative import of a module, as an absolute name."""
    if not level:
        return name
    parts = module.split('.')
    package = parts if file.stem == '__init__' else parts[:-1]
    package = package[: len(package) - level + 1]
    return '.'.join([*package, name]) if package else name


def _all_below(module: str, file: Path) -> list[str]:
    """Every module in the folder of a package's file that loads modules by name at run time."""
    text = file.read_text(encoding='utf-8', errors='replace')
    package = module if file.stem == '__init__' else module.rpartition('.')[0]
    if not package or not any(word in text for word in LOADERS):
        return []
    relative = [path.relative_to(file.parent).with_suffix('') for path in file.parent.rglob('*.py')]
    return ['.'.join([package, *path.parts]).removesuffix('.__init__') for path in relative]


def _module_files(name: str) -> Iterator[tuple[str, Path]]:
    """The files of a dotted name that run when it is imported: packages above it and, as far as it is one, itself."""
    path: list[str] | None = None
    parts = name.split('.')
    for count in range(1, len(parts) + 1):
        spec = _spec('.'.join(parts[:count]), path, top=count == 1)
        if spec is None:
            return
        origin = Path(spec.origin).resolve() if spec.has_location and spec.origin else None
        if origin is not None:
            if not _is_own(origin):
                return
            yield '.'.join(parts[:count]), origin
        path = list(spec.submodule_search_locations or ())
        if not path:
            return


def _spec(name: str, path: list[str] | None, top: bool) -> ModuleSpec | None:
    try:
        # Of a name without dots nothing is imported, and the finders of editable installations are asked as well.
        return importlib.util.find_spec(name) if top else PathFinder.find_spec(name, path)
    except (ImportError, ValueError, AttributeError):
        return None


def _is_own(file: Path) -> bool:
    return (
        file.is_file()
        and not set(INSTALLED) & set(file.parts)
        and not any(file.is_relative_to(folder) for folder in (_OURS, *_PYTHON))
    )
