"""One trial each of tests/faults/signals.py and tests/faults/ranks.py; the others run with the harness."""

import importlib.util

import pytest
from tiny_run import ROOT


def module(name):
    spec = importlib.util.spec_from_file_location(f'fault_{name}', ROOT / f'tests/faults/{name}.py')
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.process
@pytest.mark.parametrize('name, number', [('signals', 7), ('ranks', 10)])  # Ctrl-C in a step; a rank is killed
def test_a_trial_holds(name, number, tmp_path):
    held, what = module(name).trial(number, tmp_path)
    assert held, what
