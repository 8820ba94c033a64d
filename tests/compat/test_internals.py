"""Private names of the OpenMMLab packages are used in ``mim_mm/compat``; whatever is used elsewhere, a page names."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import mim_mm

PACKAGE = Path(mim_mm.__file__).parent
UPSTREAM = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet')
PAGE = (PACKAGE.parent / 'docs' / 'openmmlab.md').read_text()


def private(name):
    return name.startswith('_') and not name.startswith('__')


def trees():
    for path in sorted(PACKAGE.rglob('*.py')):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def own_names():
    """What the package itself defines or assigns under a private name."""
    found = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


def named(name):
    return re.search(rf'`([\w.]*\.)?{re.escape(name)}`', PAGE)


def test_private_names_of_upstream_outside_compat_are_on_the_page():
    own, found = own_names(), []
    for path, tree in trees():
        if path.parts[0] == 'compat':
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] in UPSTREAM:
                words = node.module.split('.') + [alias.name for alias in node.names]
                found += [f'{path}:{node.lineno} {word}' for word in words if private(word) and not named(word)]
            elif isinstance(node, ast.Attribute) and private(node.attr) and not (node.attr in own or named(node.attr)):
                found.append(f'{path}:{node.lineno} {ast.unparse(node)}')
    # torch's, numpy's and Python's own, which the page names as well
    known = ('torch._foreach_', 'os._exit', 'np._core', 'multiarray._reconstruct')
    found = [line for line in found if not any(name in line for name in known)]
    assert not found, found
    assert all(f'`{name}`' in PAGE for name in ('_foreach_*', '_core', '_BatchNorm'))


def test_every_overridden_private_method_is_on_the_page():
    found = set()
    for module in pkgutil.walk_packages(mim_mm.__path__, 'mim_mm.'):
        if module.name.split('.')[1] == 'benchmarks' or module.name.endswith('__main__'):
            continue
        for cls in vars(importlib.import_module(module.name)).values():
            if not inspect.isclass(cls) or not cls.__module__.startswith('mim_mm.'):
                continue
            parents = [c for c in cls.__mro__[1:] if c.__module__.split('.')[0] in UPSTREAM]
            names = {n for n in vars(cls) if private(n) and n not in ('_abc_impl', '_version')}
            found |= {(cls.__module__, n) for n in names if any(n in vars(parent) for parent in parents)}
    assert {'_prepare_pos_embed', '_wrap_model'} <= {name for _, name in found}
    for module, name in found:
        assert named(name) and f'`{"/".join(module.split(".")[1:])}.py`' in PAGE, (module, name)


def test_the_page_names_what_compat_changes():
    changed = set()
    for path, tree in trees():
        if path.parts[0] == 'compat' and path.parts[1] not in ('ops', 'finder.py', 'doctor.py'):
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and private(node.attr) and not ast.unparse(node).startswith('self.'):
                    changed.add(node.attr)
    assert changed and not [name for name in changed if not named(name)], changed
