"""What rooms ask of a config, on configs written out by hand."""

from mmengine.config import Config
from torch import nn

from mim_mm.config_parts import datasets_in, is_wrapper, steps_in, type_name


def test_a_type_is_named_without_its_scope():
    assert [type_name(dict(type=kind)) for kind in ('mim_mm.EMAE', 'EMAE', nn.Linear)] == ['EMAE', 'EMAE', 'Linear']
    assert [type_name(settings) for settings in ({}, None, dict(type=None), 'EMAE')] == [''] * 4


def test_data_sets_are_found_in_wrappers_of_wrappers():
    inner = [dict(type='A'), dict(type='B')]
    loader = Config(dict(dataset=dict(type='Repeat', dataset=dict(type='Concat', datasets=inner))))
    found = list(datasets_in(loader.dataset))
    assert [type_name(dataset) for dataset in found[:2]] == ['Repeat', 'Concat']
    assert {type_name(dataset) for dataset in found if not is_wrapper(dataset)} == {'A', 'B'}
    assert {type_name(dataset) for dataset in datasets_in(inner)} == {'A', 'B'}
    assert list(datasets_in(None)) == []


def test_steps_are_found_in_steps():
    pipeline = [
        dict(type='Load'),
        dict(type='Choice', transforms=[[dict(type='A')], [dict(type='B')]]),
        [dict(type='C')],
    ]
    assert [type_name(step) for step in steps_in(pipeline)] == ['Load', 'Choice', 'A', 'B', 'C']
    assert list(steps_in(None)) == []
