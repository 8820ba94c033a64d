"""Which runs are current, by names alone."""

import pytest

from mim_mm.runs import move_aside, split_current, superseded


@pytest.mark.parametrize('name, by', [
    ('linear.old-1', 'linear'), ('linear-s2.old-12', 'linear-s2'), ('linear.old-1.old-2', 'linear'),
    ('linear', None), ('linear-old-1', None), ('linear.old-', None), ('linear.older-1', None), ('.old-1', None),
])  # fmt: skip
def test_names(name, by):
    assert superseded(name) == by


def test_a_folder_moved_aside_is_superseded_and_nothing_is_overwritten(tmp_path):
    for number in (1, 2):
        (tmp_path / 'linear').mkdir()
        aside = move_aside(tmp_path / 'linear')
        assert aside.name == f'linear.old-{number}' and superseded(aside.name) == 'linear'


def test_the_chain_decides_and_without_it_the_names():
    found = ['a', 'a.old-1', 'b']
    assert split_current(found, ['a', 'c']) == (['a', 'c'], ['a.old-1', 'b'])
    assert split_current(found) == (['a', 'b'], ['a.old-1'])
