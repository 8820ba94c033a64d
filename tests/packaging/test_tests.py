"""What holds for the tests themselves."""

import ast
from pathlib import Path

from reaches import PROCESSES, TRAININGS, reaches

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


def test_markers_follow_fixtures_functions_and_helpers(tmp_path):
    file = tmp_path / 'test_it.py'
    file.write_text(
        'import subprocess\nimport pytest\nfrom processes import run as go\nfrom tiny_run import train\n'
        'def start():\n    return subprocess.run(["true"])\n'
        '@pytest.fixture\ndef place():\n    return Place()\n'
        'class Place:\n    def call(self):\n        start()\n'
        'def test_fixture(place): pass\n'
        'def test_helper(): go("x")\n'
        'def test_trains(tmp_path): train(tmp_path)\n'
        'def test_plain(tmp_path): assert 1\n'
    )
    found = {name: (reaches(file, name, PROCESSES), reaches(file, name, TRAININGS))
             for name in ('test_fixture', 'test_helper', 'test_trains', 'test_plain')}  # fmt: skip
    assert found == {
        'test_fixture': (True, False),
        'test_helper': (True, False),
        'test_trains': (False, True),
        'test_plain': (False, False),
    }
