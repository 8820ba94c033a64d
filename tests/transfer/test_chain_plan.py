"""The rules, one row each, and that the facts they need are found on the disk."""

import json
from pathlib import Path

import pytest

from mim_mm.transfer import plan
from mim_mm.transfer.manifest import Record
from mim_mm.transfer.plan import Facts, Parent, decide


def record(status, **keys):
    return Record('c', 's', 'linear', 'a', 0, status, finished='2026-01-01T00:00:00Z', **keys)


CKPT = Path('/w/epoch_7.pth')
READY = Parent(plan.READY, 'pretrain', CKPT, 'ab')
PENDING = Parent(plan.PENDING, 'pretrain')
LOST = Parent(plan.LOST, 'pretrain', why='its file is gone')
BROKEN = Parent(plan.BROKEN, 'pretrain', why='parent pretrain failed')
ALIVE = dict(record=record('running', process=dict(pid=7)), alive=True, used=True)

TABLE = [
    # facts, action, resume from, a word of the reason
    (Facts(), plan.RUN, None, 'never run'),
    (Facts(parent=READY), plan.RUN, None, 'never run'),
    (Facts(parent=PENDING), plan.RUN, None, 'after pretrain'),
    (Facts(record=record('done'), used=True), plan.SKIP, None, 'done'),
    (Facts(record=record('done'), used=True, parent=LOST), plan.SKIP, None, 'done'),
    (Facts(record=record('done'), used=True, parent=BROKEN), plan.BLOCKED, None, 'failed'),
    (Facts(record=record('done'), used=True, parent=PENDING), plan.RERUN, None, 'parent pretrain runs first'),
    (Facts(record=record('done'), used=True, changed='lr: 1 -> 2'), plan.RERUN, None, 'lr: 1 -> 2'),
    (Facts(record=record('done'), used=True, changed='x', parent=LOST), plan.BLOCKED, None, 'gone'),
    (Facts(record=record('done'), used=True, forced=True), plan.RERUN, None, 'asked for'),
    (Facts(record=record('done'), used=True, artifacts_due=('pic',)), plan.SKIP, None, 'pic'),
    (Facts(record=record('running'), used=True, checkpoint=CKPT), plan.RESUME, CKPT, 'cut off'),
    (Facts(record=record('running'), used=True), plan.RUN, None, 'before its first checkpoint'),
    (Facts(record=record('running'), used=True, checkpoint=CKPT, changed='x'), plan.RERUN, None, 'x'),
    (Facts(record=record('interrupted'), used=True, checkpoint=CKPT), plan.RESUME, CKPT, 'interrupted'),
    (Facts(record=record('failed'), used=True, checkpoint=CKPT), plan.RESUME, CKPT, 'failed'),
    (Facts(record=record('failed'), used=True), plan.RUN, None, 'failed before'),
    (Facts(record=record('failed'), used=True, checkpoint=CKPT, parent=LOST), plan.BLOCKED, None, 'gone'),
    (Facts(record=record('skipped'), parent=READY), plan.RUN, None, 'not run last time'),
    (Facts(damaged='not json', used=True), plan.RERUN, None, 'not json'),
    (Facts(damaged='not json', used=True, checkpoint=CKPT), plan.RESUME, CKPT, 'not json'),
    (Facts(damaged='not json', used=True, checkpoint=CKPT, changed='x'), plan.RERUN, None, 'x'),
    (Facts(used=True), plan.RERUN, None, 'no run.json'),
    (Facts(used=True, checkpoint=CKPT), plan.RERUN, None, 'no run.json'),
    (Facts(selected=False), plan.LEFT, None, 'never run'),
    (Facts(selected=False, record=record('done')), plan.LEFT, None, 'done'),
    (Facts(given='/x.pth', selected=False), plan.GIVEN, None, '/x.pth'),
    (Facts(**ALIVE), plan.ADOPT, None, 'pid 7'),
    (Facts(**ALIVE, changed='lr: 1 -> 2'), plan.BLOCKED, None, 'lr: 1 -> 2'),
    (Facts(**ALIVE, forced=True), plan.BLOCKED, None, 'pid 7'),
    (Facts(record=record('running'), used=True, elsewhere='node3'), plan.BLOCKED, None, 'node3'),
]


@pytest.mark.parametrize('facts, action, resume, word', TABLE)
def test_rules(facts, action, resume, word):
    decision = decide(facts)
    assert (decision.action, decision.resume) == (action, resume)
    assert word in decision.reason


def test_children_learn_what_they_may_count_on():
    outcome = plan.outcome_for_child
    assert outcome('p', plan.Decision(plan.RESUME, ''), CKPT, 'ab').state == plan.PENDING
    assert outcome('p', plan.Decision(plan.SKIP, ''), CKPT, 'ab') == Parent(plan.READY, 'p', CKPT, 'ab')
    assert '--rerun p' in outcome('p', plan.Decision(plan.SKIP, ''), None, None).why
    assert '--skip-pretrain' in outcome('p', plan.Decision(plan.LEFT, ''), None, None).why
    assert outcome('p', plan.Decision(plan.BLOCKED, 'no disk'), None, None).state == plan.BROKEN


def actions(text):
    """stage -> action out of a printed plan."""
    lines = [line.split() for line in text.splitlines() if line.startswith('  ') and not line.startswith('   ')]
    return {line[0]: line[1] for line in lines if len(line) > 1}


def test_first_call_runs_all_and_second_none(place):
    place.write()
    code, said = place.run()
    assert code == 0
    assert actions(said) == dict(pretrain='run', linear='run', finetune='run', coco='run')
    before = {name: place.record(name) for name in ('pretrain', 'linear', 'finetune', 'coco')}
    code, said = place.run()
    assert code == 0
    assert actions(said) == dict(pretrain='skip', linear='skip', finetune='skip', coco='skip')
    assert before == {name: place.record(name) for name in before}


def test_runs_made_before_the_weights_had_a_name_stay_done(place):
    pair = dict(pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'))
    place.write(**pair)
    assert place.run()[0] == 0
    record = place.record('linear')
    # what the version before `init` wrote for this very recipe, and how it gave the weights
    assert record['config']['sha256'] == '7b355878143478d0a90e3457e70353111803b057501e52137456c68d496ce510'
    weights = f'{place.work}/pretrain/epoch_3.pth'
    assert record['command'][-2:] == ['--cfg-options', f'init={weights}']
    record['command'][-1] = f'custom_hooks.0.checkpoint={weights}'
    (place.work / 'linear' / 'run.json').write_text(json.dumps(record))
    place.config('linear', init=None)  # the recipe as it is now
    code, said = place.run(dry_run=True)
    assert code == 0 and said.count('skip     done') == 2


def test_changed_config_reruns_that_stage_and_names_the_key(place):
    place.write()
    place.run()
    place.config('linear', lr=0.2)
    code, said = place.run()
    assert code == 0
    assert actions(said) == dict(pretrain='skip', linear='rerun', finetune='skip', coco='skip')
    assert 'lr: 0.1 -> 0.2' in said
    assert (place.work / 'linear.old-1' / 'epoch_3.pth').is_file(), 'the old run is kept'
    assert len(place.record('linear')['attempts']) == 1


def test_changed_parent_reruns_its_children(place):
    place.write()
    place.run()
    old = place.record('linear')['parent']['sha256']
    place.config('pretrain', load=False, lr=0.3)
    code, said = place.run()
    assert code == 0
    assert actions(said) == dict(pretrain='rerun', linear='rerun', finetune='rerun', coco='rerun')
    assert place.record('linear')['parent']['sha256'] != old
    assert place.record('linear')['parent']['checkpoint'] == str(place.work / 'pretrain' / 'epoch_3.pth')


def test_a_checkpoint_swapped_under_the_chain_is_noticed(place):
    place.write()
    place.run()
    (place.work / 'pretrain' / 'epoch_3.pth').write_bytes((place.work / 'pretrain' / 'epoch_2.pth').read_bytes())
    said = place.run(dry_run=True)[1]
    assert actions(said)['linear'] == 'rerun' and 'parent weights changed' in said


def test_a_deleted_checkpoint_does_not_undo_what_was_made_from_it(place):
    place.write()
    place.run()
    for path in (place.work / 'pretrain').glob('*.pth'):
        path.unlink()
    code, said = place.run()
    assert code == 0 and actions(said)['linear'] == 'skip'
    code, said = place.run(rerun=['linear'])
    assert code == 1 and '--rerun pretrain' in said


def test_changed_data_reruns(place):
    data = place.folder / 'data' / 'train'
    data.mkdir(parents=True)
    (data / 'a.png').write_text('a')
    loader = dict(dataset=dict(data_root=str(place.folder / 'data'), data_prefix='train'))
    place.config('linear', train_dataloader=loader)
    place.write()
    assert place.run()[0] == 0
    assert place.record('linear')['data']['train/train']['files'] == 1
    assert actions(place.run(dry_run=True)[1])['linear'] == 'skip'
    (data / 'b.png').write_text('b')
    said = place.run(dry_run=True)[1]
    assert actions(said) == dict(pretrain='skip', linear='rerun', finetune='skip', coco='skip')
    assert '1 files, 1 bytes -> 2, 2' in said


def test_files_without_a_record_are_moved_not_mixed(place):
    place.write()
    (place.work / 'linear').mkdir(parents=True)
    (place.work / 'linear' / 'epoch_9.pth').write_text('mine')
    code, said = place.run()
    assert code == 0 and actions(said)['linear'] == 'rerun'
    assert (place.work / 'linear.old-1' / 'epoch_9.pth').read_text() == 'mine'


@pytest.mark.parametrize('change, action', [({}, 'resume'), (dict(lr=0.7), 'rerun')])
def test_damaged_record_is_recovered_from_the_identity(place, change, action):
    place.write()
    place.run()
    (place.work / 'linear' / 'run.json').write_text('{"schema": 1, "chain"')
    if change:
        place.config('linear', **change)
    code, said = place.run()
    assert code == 0 and actions(said)['linear'] == action
    assert place.record('linear')['status'] == 'done'
    assert place.record('linear')['metrics'] == {'accuracy/top1': 53.0}
