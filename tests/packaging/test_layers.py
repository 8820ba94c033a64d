"""Rooms import only what stands above them in the table of the house."""

import ast
import re
from pathlib import Path

import pytest
from mmengine.registry import Registry

from mim_mm import registry

PACKAGE = Path(__file__).resolve().parents[2] / 'mim_mm'

# Lower rooms may import higher ones; each line may also import within itself. report and transfer read files, not code.
ABOVE = {
    '__init__': {'compat', 'version'},
    'version': set(),
    'registry': set(),
    'utils': {'registry'},
    'compat': {'version', 'folders'},
    'clock': set(),
    'folders': set(),  # what counts below a data root: a leaf that any room may ask
    'masking': {'registry', 'clock'},
    'encoders': {'registry', 'compat', 'masking'},
    'targets': set(),
    'losses': {'masking'},
    'resolution': set(),
    'runs': set(),
    'recipe_facts': set(),
    'decoders': {'registry', 'masking', 'encoders'},
    'algorithms': {'registry', 'clock', 'masking', 'encoders', 'decoders', 'targets', 'losses'},
    'detection': {'registry', 'encoders', 'checkpoint'},
    'data': {'registry', 'folders'},
    'checkpoint': set(),
    # data: one decoder, and annotations are checked first
    'engine': {'registry', 'clock', 'compat', 'encoders', 'masking', 'checkpoint', 'data', 'resolution', 'folders'},
    'evaluation': {'registry', 'clock', 'compat', 'masking', 'targets', 'losses', 'checkpoint', 'folders', 'data'},
    'cost': {'registry', 'resolution', 'clock', 'masking'},  # registry: models are built to be counted
    # engine: the guards; data: surveys
    'transfer': {'checkpoint', 'compat', 'data', 'engine', 'folders', 'masking', 'recipe_facts', 'runs', 'version'},
    'report': {'recipe_facts', 'runs'},
    # Measures everything else, and nothing else imports it.
    'benchmarks': {
        'registry',
        'masking',
        'encoders',
        'targets',
        'losses',
        'algorithms',
        'detection',
        'data',
        'engine',
        'evaluation',
        'cost',
    },
}


def imports(path):
    """``(line, room)`` of every import of our own package in a file, relative ones resolved."""
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    package = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = '.'.join(base + ([node.module] if node.module else []))
            names = [module] if module != 'mim_mm' else [f'mim_mm.{alias.name}' for alias in node.names]
        for name in names:
            pieces = name.split('.')
            if pieces[0] == 'mim_mm' and len(pieces) > 1:
                yield node.lineno, pieces[1]


@pytest.mark.parametrize('room', sorted(ABOVE))
def test_arrows_point_up(room):
    files = sorted((PACKAGE / room).rglob('*.py')) or [PACKAGE / f'{room}.py']
    wrong = [
        f'{path.relative_to(PACKAGE.parent)}:{line} imports {other}'
        for path in files
        for line, other in imports(path)
        if other != room and other not in ABOVE[room]
    ]
    assert not wrong, wrong


def test_every_room_is_in_the_table():
    rooms = {p.stem for p in PACKAGE.glob('*.py')} | {p.parent.name for p in PACKAGE.glob('*/__init__.py')}
    assert rooms - {'mim_mm'} == set(ABOVE)


def registries():
    return {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}


@pytest.mark.parametrize('name', sorted(registries()))
def test_a_registry_lists_the_modules_that_register_with_it(name):
    """One that is not listed would be found or not, depending on what was imported before."""
    call = re.compile(rf'^\s*@?{name}\.register_module', re.M)
    wanted = {
        '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
        for path in PACKAGE.rglob('*.py')
        if call.search(path.read_text())
    }
    listed = set(registries()[name]._locations) - {'mim_mm.registry', 'mim_mm.engine.start.schedule'}
    assert listed == wanted
