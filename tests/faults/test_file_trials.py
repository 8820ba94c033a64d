"""The first trials of what goes wrong with files; `make test-faults` runs many."""

import importlib.util
from pathlib import Path

import pytest


def load(name):
    spec = importlib.util.spec_from_file_location(f'faults_{name}', Path(__file__).with_name(f'{name}.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize('name, number', [
    ('damaged', 1), ('damaged', 2), ('damaged', 4), ('disk_full', 1), ('disk_full', 3), ('malicious', 0),
    ('malicious', 1), ('malicious', 2), ('malicious', 5), ('mutated_images', 0), ('mutated_checkpoints', 0),
])  # fmt: skip
def test_trial(name, number, tmp_path):
    held, told = load(name).trial(number, tmp_path / 'trial')
    assert held, told


@pytest.mark.slow
@pytest.mark.process
def test_two_trainings_at_once(tmp_path):
    held, told = load('two_at_once').trial(1, tmp_path / 'trial')  # subprocess: the first one
    assert held, told
