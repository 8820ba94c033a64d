"""No module imports itself, by whatever way round, imports inside functions counted."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / 'mim_mm'

# (module, imported): one edge of a circle that has to be, with its reason. None at present.
ALLOWED: dict[tuple[str, str], str] = {}


def modules():
    """Name -> file; a package goes by its ``__init__.py``."""
    found = {}
    for path in PACKAGE.rglob('*.py'):
        parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imported(module, path, known):
    """The modules of ours that a file imports anywhere, with the packages above them, which run first.

    A package above the module itself is none of them: it has begun when the module is read. It counts where a name is
    taken from it that is no module.
    """
    package = module.split('.') if path.name == '__init__.py' else module.split('.')[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*base, *([node.module] if node.module else [])])
            names = [f'{base}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split('.')
            chain = [m for n in range(1, len(parts) + 1) if (m := '.'.join(parts[:n])) in known]
            found |= {m for m in chain if m == chain[-1] or not f'{module}.'.startswith(f'{m}.')}
    return found - {module}


def circle(graph):
    """One circle of a graph as a list that ends where it begins; None if there is none."""
    done = set()

    def visit(node, way):
        if node in way:
            return [*way[way.index(node) :], node]
        if node not in done:
            for other in sorted(graph[node]):
                found = visit(other, [*way, node])
                if found:
                    return found
            done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := visit(node, []))), None)


def test_a_circle_is_found():
    assert circle(dict(a={'b'}, b={'c'}, c={'b'})) == ['b', 'c', 'b']
    assert circle(dict(a={'b', 'c'}, b={'c'}, c=set())) is None


def test_imports_are_read_as_python_does(tmp_path):
    known = {'mim_mm', 'mim_mm.a', 'mim_mm.a.b', 'mim_mm.a.c', 'mim_mm.d', 'mim_mm.d.e'}
    file = tmp_path / 'b.py'
    file.write_text(
        'def f():\n    from mim_mm.a import c\n    from mim_mm.d.e import x\n    import os\nfrom . import y\n'
    )
    assert imported('mim_mm.a.b', file, known) == {'mim_mm.a.c', 'mim_mm.d', 'mim_mm.d.e', 'mim_mm.a'}


def test_no_module_imports_itself_in_the_end():
    known = modules()
    graph = {module: imported(module, path, known) for module, path in known.items()}
    for module, other in ALLOWED:
        assert other in graph[module], f'{module} does not import {other} any more: take it out of ALLOWED'
        graph[module].discard(other)
    found = circle(graph)
    assert found is None, ' -> '.join(found)
