"""The rules, one row each, and that the facts they need are found on the disk."""

import io
import json
from pathlib import Path

import pytest
from workplace import STAND_IN

from mim_mm.transfer import Call, plan, rules
from mim_mm.transfer.display import Display
from mim_mm.transfer.launch import Scripts
from mim_mm.transfer.manifest import Record
from mim_mm.transfer.resolve import resolve
from mim_mm.transfer.rules import Facts, Parent, decide
from mim_mm.transfer.words import Action, ParentState


def record(status, **keys):
    return Record('c', 's', 'linear', 'a', 0, status, finished='2026-01-01T00:00:00Z', **keys)


CKPT = Path('/w/epoch_7.pth')
READY = Parent(ParentState.READY, 'pretrain', CKPT, 'ab')
PENDING = Parent(ParentState.PENDING, 'pretrain')
LOST = Parent(ParentState.LOST, 'pretrain', why='its file is gone')
BROKEN = Parent(ParentState.BROKEN, 'pretrain', why='parent pretrain failed')
ALIVE = dict(record=record('running', process=dict(pid=7)), alive=True, used=True)

TABLE = [
    # facts, action, resume from, a word of the reason
    (Facts(), Action.RUN, None, 'never run'),
    (Facts(parent=READY), Action.RUN, None, 'never run'),
    (Facts(parent=PENDING), Action.RUN, None, 'after pretrain'),
    (Facts(record=record('done'), used=True), Action.SKIP, None, 'done'),
    (Facts(record=record('done'), used=True, parent=LOST), Action.SKIP, None, 'done'),
    (Facts(record=record('done'), used=True, parent=BROKEN), Action.BLOCKED, None, 'failed'),
    (Facts(record=record('done'), used=True, parent=PENDING), Action.RERUN, None, 'parent pretrain runs first'),
    (Facts(record=record('done'), used=True, changed='lr: 1 -> 2'), Action.RERUN, None, 'lr: 1 -> 2'),
    (Facts(record=record('done'), used=True, changed='x', parent=LOST), Action.BLOCKED, None, 'gone'),
    (Facts(record=record('done'), used=True, forced=True), Action.RERUN, None, 'asked for'),
    (Facts(record=record('done'), used=True, artifacts_due=('pic',)), Action.SKIP, None, 'pic'),
    (Facts(record=record('running'), used=True, checkpoint=CKPT), Action.RESUME, CKPT, 'cut off'),
    (Facts(record=record('running'), used=True), Action.RUN, None, 'before its first checkpoint'),
    (Facts(record=record('running'), used=True, checkpoint=CKPT, changed='x'), Action.RERUN, None, 'x'),
    (Facts(record=record('interrupted'), used=True, checkpoint=CKPT), Action.RESUME, CKPT, 'interrupted'),
    (Facts(record=record('failed'), used=True, checkpoint=CKPT), Action.RESUME, CKPT, 'failed'),
    (Facts(record=record('failed'), used=True), Action.RUN, None, 'failed before'),
    (Facts(record=record('failed'), used=True, checkpoint=CKPT, parent=LOST), Action.BLOCKED, None, 'gone'),
    (Facts(record=record('skipped'), parent=READY), Action.RUN, None, 'not run last time'),
    (Facts(damaged='not json', used=True), Action.RERUN, None, 'not json'),
    (Facts(damaged='not json', used=True, checkpoint=CKPT), Action.RESUME, CKPT, 'not json'),
    (Facts(damaged='not json', used=True, checkpoint=CKPT, changed='x'), Action.RERUN, None, 'x'),
    (Facts(used=True), Action.RERUN, None, 'no run.json'),
    (Facts(used=True, checkpoint=CKPT), Action.RERUN, None, 'no run.json'),
    (Facts(selected=False), Action.LEFT, None, 'never run'),
    (Facts(selected=False, record=record('done')), Action.LEFT, None, 'done'),
    (Facts(given='/x.pth', selected=False), Action.GIVEN, None, '/x.pth'),
    (Facts(**ALIVE), Action.ADOPT, None, 'pid 7'),
    (Facts(**ALIVE, changed='lr: 1 -> 2'), Action.BLOCKED, None, 'lr: 1 -> 2'),
    (Facts(**ALIVE, forced=True), Action.BLOCKED, None, 'pid 7'),
    (Facts(record=record('running'), used=True, elsewhere='node3'), Action.BLOCKED, None, 'node3'),
]


@pytest.mark.parametrize('facts, action, resume, word', TABLE)
def test_rules(facts, action, resume, word):
    decision = decide(facts)
    assert (decision.action, decision.resume) == (action, resume)
    assert word in decision.reason


def test_children_learn_what_they_may_count_on():
    outcome = rules.outcome_for_child
    assert outcome('p', rules.Decision(Action.RESUME, ''), CKPT, 'ab').state == ParentState.PENDING
    assert outcome('p', rules.Decision(Action.SKIP, ''), CKPT, 'ab') == Parent(ParentState.READY, 'p', CKPT, 'ab')
    assert '--rerun p' in outcome('p', rules.Decision(Action.SKIP, ''), None, None).why
    assert '--skip-pretrain' in outcome('p', rules.Decision(Action.LEFT, ''), None, None).why
    assert outcome('p', rules.Decision(Action.BLOCKED, 'no disk'), None, None).state == ParentState.BROKEN


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
    data_set = dict(data_root=str(place.folder / 'data'), data_prefix='train')
    loader = dict(dataset=data_set, sampler=dict(type='DefaultSampler', shuffle=True))
    more = dict(train_cfg=dict(max_epochs=1), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    place.config('linear', train_dataloader=loader, **more)
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


def test_resolving_and_planning_leave_the_disk_alone(place):
    place.write()
    place.run(only=['pretrain', 'linear'])
    before = place.files()
    call = Call(str(place.chain), work_dir=str(place.work), gpus=0, rerun=['linear'])
    planned = plan.plan(resolve(call, Display(io.StringIO()), Scripts(STAND_IN, STAND_IN)))
    found = {name: decision.action for name, decision in planned.decisions.items()}
    assert found == dict(pretrain='skip', linear='rerun', finetune='run', coco='run')
    assert list(planned.commands) == ['linear', 'finetune', 'coco'] and planned.missing == ''
    assert place.files() == before
