"""What holds for the tests themselves."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ''


def test_no_test_file_imports_another():
    """What two of them need stands in tests/helpers or is a fixture of a conftest.py."""
    files = {path.stem: path for path in TESTS.rglob('test_*.py')}
    assert len(files) == len(list(TESTS.rglob('test_*.py'))), 'two test files have one name'
    wrong = [
        f'{path.relative_to(TESTS)} imports {name}'
        for path in sorted(TESTS.rglob('*.py'))
        for name in imported(path)
        if name.split('.')[-1] in files and not name.startswith('mim_mm.')
    ]
    assert not wrong, wrong
