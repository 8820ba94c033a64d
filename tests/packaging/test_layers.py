"""Rooms import what their line of docs/rooms.md names, which stands above them there."""

import ast
import re
import sys
from pathlib import Path

import pytest
from mmengine.registry import Registry

from mim_mm import registry

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'mim_mm'
PAGE = ROOT / 'docs' / 'rooms.md'
OPENMMLAB = {'mmengine', 'mmcv', 'mmpretrain', 'mmdet'}


def quoted(cell):
    return re.findall(r'`([^`]+)`', cell)


def tables():
    """``leaves`` as names; ``rooms`` as ``{room: (rooms it may import, packages)}``, in the order of the page."""
    leaves, rooms = [], {}
    for row in re.findall(r'^\| (`.+) \|$', PAGE.read_text(), re.M):
        cells = row.split(' | ')
        if len(cells) == 2:
            leaves += quoted(cells[0])
            continue
        names, _, allowed, packages = cells
        assert allowed == 'nothing' or quoted(allowed), f'{names}: name rooms, or write "nothing"'
        packages = set(packages.split(', ')) - {'none'}
        if 'mm*' in packages:
            packages = packages - {'mm*'} | OPENMMLAB
        rooms |= {name: (quoted(allowed), packages) for name in quoted(names)}
    return leaves, rooms


LEAVES, ROOMS = tables()


def modules():
    """``{dotted name: path}`` of the package, without ``mim_mm.``; a folder goes by its own name."""
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        if parts[0] != '.mim':
            found['.'.join(parts[:-1] if parts[-1] == '__init__' and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def room_of(module):
    """The longest room on the page that the module lies in; its first folder where there is none."""
    parts = module.split('.')
    candidates = ['/'.join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in candidates if name in ROOMS or name in LEAVES), candidates[-1])


def imports(path):
    """``(line, dotted names, whether at the top)`` of every import in a file; ``from a import b`` is ``a.b``."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            continue
        yield node.lineno, names, id(node) in top


def own_imports(module):
    """``(line, module)`` of what a module imports from the package."""
    for line, names, _ in imports(MODULES[module]):
        for name in names:
            scope, _, inner = name.partition('.')
            if scope == 'mim_mm' and inner:
                yield line, inner if inner in MODULES else inner.rpartition('.')[0] or inner


def files_of(room):
    return [module for module in MODULES if room_of(module) == room]


@pytest.mark.parametrize('room', [*LEAVES, *ROOMS])
def test_a_room_imports_what_its_line_names(room):
    above = LEAVES if room in ROOMS else LEAVES[: LEAVES.index(room)]
    allowed = {room, *above, *(ROOMS[room][0] if room in ROOMS else ())}
    wrong = [
        f'{MODULES[module].relative_to(ROOT)}:{line} imports {room_of(other)}'
        for module in files_of(room)
        for line, other in own_imports(module)
        if room_of(other) not in allowed
    ]
    assert not wrong, f'{wrong}: import less, or name the room in docs/rooms.md'


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_needs_the_packages_that_its_line_names(room):
    wrong = {
        f'{MODULES[module].relative_to(ROOT)}:{line} imports {name.split(".")[0]}'
        for module in files_of(room)
        for line, names, top in imports(MODULES[module])
        for name in names
        if top and name.split('.')[0] not in {'mim_mm', *sys.stdlib_module_names, *ROOMS[room][1]}
    }
    assert not wrong, f'{sorted(wrong)}: import inside the function, or name the package in docs/rooms.md'


def test_arrows_point_up():
    """A line names rooms above it, except that the chain and its wings may know each other."""
    names = list(ROOMS)
    chain = [room for room in names if room.split('/')[0] == 'transfer']
    for place, room in enumerate(names):
        above = {*names[:place], *(chain if room in chain else ())}
        assert set(ROOMS[room][0]) <= above, (room, set(ROOMS[room][0]) - above)


def test_every_room_is_on_the_page_and_every_line_is_a_room():
    """A wing, too: where one wing of a room has a line, the others have theirs."""
    bare = {room for room in MODULES if MODULES[room].name == '__init__.py' and not list(imports(MODULES[room]))}
    assert {room_of(module) for module in set(MODULES) - bare} == {*LEAVES, *ROOMS}
    assert not set(LEAVES) & set(ROOMS)
    winged = {room.split('/')[0] for room in ROOMS if '/' in room}
    wings = {folder.parent for room in winged for folder in PACKAGE.glob(f'{room}/*/__init__.py')}
    assert {wing.relative_to(PACKAGE).as_posix() for wing in wings} <= set(ROOMS)


SEG = {module for module in MODULES if module.startswith('segmentation.')}


def test_the_room_of_an_extra_registers_all_of_it():
    """Its recipes import the room, which imports each of its modules."""
    named = {name for _, names, _ in imports(MODULES['segmentation']) for name in names}
    assert {f'mim_mm.{module}' for module in SEG} == {name for name in named if name.startswith('mim_mm.')}


def registries():
    return {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}


@pytest.mark.parametrize('name', sorted(registries()))
def test_a_registry_lists_the_modules_that_register_with_it(name):
    """One that is not listed would be found or not, depending on what was imported before."""
    call = re.compile(rf'^\s*@?{name}\.register_module', re.M)
    wanted = {f'mim_mm.{module}' for module in set(MODULES) - SEG if call.search(MODULES[module].read_text())}
    listed = set(registries()[name]._locations) - {'mim_mm.registry', 'mim_mm.engine.start.schedule'}
    assert listed == wanted
