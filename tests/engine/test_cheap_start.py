"""What a start costs: rooms import what they need and no more, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def loaded(statement: str, *heavy: str) -> set[str]:
    code = f'import sys; {statement}; print([name for name in {heavy!r} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ('statement', 'heavy'),
    [
        ('from mim_mm.engine.start import guard', ('mmpretrain', 'mmdet', 'mmcv')),
        ('from mim_mm.engine.start import launch', ('mmpretrain', 'mmdet')),
        ('from mim_mm.engine.start import arguments', ('mmpretrain', 'mmdet', 'mmcv', 'mmengine.runner')),
        ('import mim_mm.evaluation.frozen, mim_mm.evaluation.quality, mim_mm.engine', ('mmpretrain', 'mmdet', 'torch')),
        ('from mim_mm.report import page', ('mmpretrain', 'mmdet', 'torch')),
    ],
)
def test_a_room_is_imported_on_demand(statement, heavy):
    assert loaded(statement, *heavy) == set()


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_help_and_misspelt_options_end_before_anything_is_imported(tool):
    command = [sys.executable, '-X', 'importtime', f'tools/{tool}.py']
    asked = subprocess.run([*command, '--help'], capture_output=True, text=True, check=True, cwd=ROOT)
    assert '--cfg-options' in asked.stdout
    wrong = subprocess.run([*command, 'config.py', '--worg-dir', 'w'], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and '--worg-dir' in wrong.stderr
    for done in (asked, wrong):
        names = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
        assert 'mim_mm.engine.start.arguments' in names and not names & {'mmengine.runner', 'mmpretrain', 'mmdet'}
