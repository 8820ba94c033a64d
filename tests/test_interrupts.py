"""Ctrl-C ends every tool in one line, with 130, wherever it is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = [*sorted((ROOT / 'tools').glob('*.py')), ROOT / 'mim_mm/report/__main__.py']


@pytest.mark.parametrize('path', TOOLS, ids=lambda path: path.name)
def test_every_tool_is_prepared_before_it_imports_what_takes_seconds(path):
    lines = [line for line in path.read_text().splitlines() if line.startswith(('import ', 'from '))]
    ours = [line for line in lines if 'mim_mm' in line or 'mmengine' in line and 'isort: skip' in line]
    first = [line for line in ours if not line.startswith('import mim_mm  #')][0]
    assert first.startswith('import mim_mm.interrupts'), first


@pytest.mark.process
@pytest.mark.parametrize('what, code, lines', [('KeyboardInterrupt', 130, 1), ('ValueError("x")', 1, None)])
def test_the_code_is_130_and_other_errors_stay(what, code, lines):
    script = f'import mim_mm.interrupts\nimport mim_mm.interrupts\nraise {what}'
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert ('Traceback' in done.stderr) is (lines is None)
    assert lines is None or len(done.stderr.strip().splitlines()) == lines
