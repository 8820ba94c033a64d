"""Some trials of the faults around resuming; ``make test-faults`` runs more."""

import copied_work_dir
import other_settings
import pytest


@pytest.mark.parametrize('fault', [copied_work_dir, other_settings], ids=lambda fault: fault.NAME)
def test_a_few_trials(fault, tmp_path):
    results = [fault.trial(number, tmp_path) for number in range(40)]
    assert [said for held, said in results if not held] == []
