"""A stage of kind probe: a stage that measures, like the linear probe."""

import pytest

from mim_mm.transfer import load_chain


@pytest.fixture
def probing(place):
    place.config('probe')
    place.write(
        pretrain=place.stage('pretrain', init=None, arm='emae'),
        probe=place.stage('probe', seeds=[0, 1]),
        probe_scratch=place.stage('probe', init=None, kind='probe'),
    )
    return place


def test_probes_of_both_arms_run_and_keep_their_metrics(probing):
    assert [(s.name, s.kind, s.arm) for s in load_chain(probing.chain).stages] == [
        ('pretrain', 'pretrain', 'emae'), ('probe-s0', 'probe', 'emae'), ('probe-s1', 'probe', 'emae'),
        ('probe_scratch', 'probe', 'scratch'),
    ]  # fmt: skip
    assert probing.run()[0] == 0
    record = probing.record('probe-s1')
    assert record['kind'] == 'probe' and record['metrics'] == {'accuracy/top1': 53.0}
    assert record['parent']['stage'] == 'pretrain' and not probing.record('probe_scratch')['parent']


def test_a_probe_that_measures_nothing_has_failed(probing):
    probing.config('probe', measure=False)
    assert probing.run()[0] == 1
    assert 'measured nothing' in probing.record('probe-s0')['error']
