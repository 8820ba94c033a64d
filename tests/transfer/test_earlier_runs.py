"""Runs that version 0.1 finished stay done: earlier_runs.json holds the run.json and identity.json that it wrote.

Regenerate it never; a change that makes these tests fail would repeat every finished pretraining of every user.
"""

import hashlib
import json
from pathlib import Path

import pytest

from mim_mm.transfer.identity import digest

KEPT = Path(__file__).with_name('earlier_runs.json')
WEIGHTS = b'weights of the pretraining'
# Of ours, of mmengine's, with a scope and without: these were in the runs' configs and not in their identities ...
WATCHING = (
    'mim_mm.ProgressHook mim_mm.MaskDiagnosticsHook AgreementWatchHook mim_mm.ProbeReportHook QualityHook '
    'mim_mm.StopOnSignalHook LoggerHook IterTimerHook mmengine.MemoryProfilerHook EmptyCacheHook'
).split()
COUNTED = ['mim_mm.DataWaitHook', 'MineOfTheUser']  # ... and these in both


@pytest.fixture
def finished(place):
    """The two stages as version 0.1 left them, at the folder of this test."""
    text = KEPT.read_text().replace('FOLDER', str(place.folder)).replace('SHA256', hashlib.sha256(WEIGHTS).hexdigest())
    hooks = [dict(type=name) for name in [*WATCHING, *COUNTED]]
    place.config('pretrain', load=False, custom_hooks=hooks)
    place.config('linear', load=False, custom_hooks=[dict(type='mim_mm.LoadPretrainedHook', checkpoint=None), *hooks])
    for stage, files in json.loads(text).items():
        folder = place.work / stage
        folder.mkdir(parents=True)
        (folder / 'epoch_3.pth').write_bytes(WEIGHTS)
        for name, content in files.items():
            path = folder / f'{name}.json'
            path.write_text(json.dumps(content, indent=1) + '\n')
    place.write(
        pretrain=place.stage('pretrain', init=None, arm='emae'), linear=place.stage('linear', options=dict(lr=0.2))
    )
    return place


def test_finished_runs_stay_done_and_are_not_touched(finished):
    before = {path: path.read_bytes() for path in finished.work.rglob('*.json')}
    code, said = finished.run()
    assert code == 0 and said.count('skip     done 2026-11-28T20:32:3') == 2, said
    assert 'all stages done' in said
    assert {path: path.read_bytes() for path in before} == before


def test_what_changes_since_is_named_against_the_earlier_run(finished):
    finished.config('pretrain', load=False, lr=0.3, custom_hooks=[dict(type=name) for name in COUNTED])
    _, said = finished.run(dry_run=True)
    assert 'pretrain  rerun    config changed: lr: 0.1 -> 0.3\n' in said, 'nor do hooks that only look on come in'


def test_a_run_is_written_with_the_keys_in_the_order_of_the_earlier_one(finished):
    earlier = json.loads((finished.work / 'linear' / 'run.json').read_text())
    code, _ = finished.run(rerun=['linear'])
    now = finished.record('linear')
    assert code == 0 and list(now) == list(earlier)
    assert now['config'] == earlier['config'] and now['status'] == earlier['status'] == 'done'
    assert now['attempts'][0].keys() == earlier['attempts'][0].keys()


def test_a_finished_pretraining_with_the_hooks_of_its_time_stays_done(finished):
    """Its recipe has lost MaskSeedHook and says the ramp in the model; whatever else changes still counts."""
    folder = finished.work / 'pretrain'
    document = json.loads((folder / 'identity.json').read_text())
    ramp = dict(type='ConsistencyRampHook', epochs=2)
    document['config']['custom_hooks'] = [dict(type='mim_mm.MaskSeedHook'), *document['config']['custom_hooks'], ramp]
    document['config']['model'] = dict(type='EMAE')
    record = json.loads((folder / 'run.json').read_text())
    record['config']['sha256'] = digest(document['config'])
    (folder / 'identity.json').write_text(json.dumps(document))
    (folder / 'run.json').write_text(json.dumps(record))
    hooks = [dict(type=name) for name in COUNTED]
    for ramped, said in ((2, 'skip     done'), (3, 'model.consistency_ramp: 2 -> 3')):
        finished.config('pretrain', load=False, custom_hooks=hooks, model=dict(type='EMAE', consistency_ramp=ramped))
        assert said in finished.run(dry_run=True)[1].split('linear')[0]


@pytest.mark.parametrize('before, now', [('CocoMetric', 'InMemoryCocoMetric'), ('Accuracy', 'ClassAccuracy')])
def test_an_evaluator_of_the_same_figures_repeats_nothing(finished, before, now):
    folder = finished.work / 'linear'
    document = json.loads((folder / 'identity.json').read_text())
    document['config']['val_evaluator'] = dict(type=before, metric='bbox')
    record = json.loads((folder / 'run.json').read_text())
    record['config']['sha256'] = digest(document['config'])
    (folder / 'identity.json').write_text(json.dumps(document))
    (folder / 'run.json').write_text(json.dumps(record))
    hooks = [dict(type='mim_mm.LoadPretrainedHook', checkpoint=None), *(dict(type=name) for name in COUNTED)]
    for metric, said in (('bbox', 'skip     done'), ('segm', 'val_evaluator.metric')):
        evaluator = dict(type=f'mim_mm.{now}', metric=metric)
        finished.config('linear', load=False, custom_hooks=hooks, val_evaluator=evaluator)
        assert said in finished.run(dry_run=True)[1].split('linear', 1)[1]
