"""What happens around the runs: failures, blocked stages, parallel stages, artifacts, selections, the report."""

import io
import json
import sys

import pytest

from mim_mm.transfer import ChainError
from mim_mm.transfer.display import Display, progress_text, span


def statuses(place, *names):
    return [place.record(name)['status'] for name in names]


def test_a_done_stage_says_what_it_was_made_from(place):
    place.write()
    assert place.run()[0] == 0
    record = place.record('linear')
    assert record['status'] == 'done' and record['exit_code'] == 0 and record['error'] is None
    assert record['config']['path'] == str(place.folder / 'linear.py') and len(record['config']['sha256']) == 64
    assert record['parent']['stage'] == 'pretrain' and len(record['parent']['sha256']) == 64
    assert record['metrics'] == {'accuracy/top1': 53.0} and record['checkpoint'] == 'epoch_3.pth'
    assert record['arm'] == 'emae' and record['seed'] == 0 and record['device'] == 'cpu'
    assert set(record['versions']) >= {'python', 'torch', 'mmengine'} and 'commit' in record['git']
    assert record['wall_s'] >= 0 and record['process'] is None
    assert f'init={place.work}/pretrain/epoch_3.pth' in record['command']
    chain = json.loads((place.work / 'chain.json').read_text())
    assert [stage['name'] for stage in chain['stages']] == ['pretrain', 'linear', 'finetune', 'coco']


def test_seeds_and_options_reach_the_runs(place):
    place.write(
        pretrain=place.stage('pretrain', init=None),
        linear=place.stage('linear', seeds=[4, 7], options=dict(epochs=2)),
    )
    assert place.run(cfg_options=['linear-s7.lr=0.5'])[0] == 0
    assert [place.record(f'linear-s{s}')['seeds']['seed'] for s in (4, 7)] == [4, 7]
    assert place.record('linear-s4')['checkpoint'] == 'epoch_2.pth'
    assert place.record('linear-s7')['config']['options'] == dict(epochs=2, lr=0.5)
    assert 'lr=0.5' in place.record('linear-s7')['command']


def test_a_failing_stage_does_not_lose_the_others(place):
    cure = place.folder / 'cure'
    place.config('linear', fail_at=2, cure=str(cure))
    place.write(
        pretrain=place.stage('pretrain', init=None),
        linear=place.stage('linear'),
        finetune=place.stage('finetune', init='linear'),
        coco=place.stage('coco'),
    )
    code, said = place.run()
    assert code == 1
    assert statuses(place, 'pretrain', 'linear', 'finetune', 'coco') == ['done', 'failed', 'skipped', 'done']
    failed = place.record('linear')
    assert failed['exit_code'] == 3 and 'RuntimeError: out of luck' in failed['error']
    assert 'parent linear failed' in place.record('finetune')['error']
    assert 'RuntimeError: out of luck' in said
    # The cause is put right, the config is as it was: the stage goes on from its checkpoint, and its child runs.
    cure.touch()
    code, said = place.run()
    assert code == 0
    assert statuses(place, 'linear', 'finetune') == ['done', 'done']
    assert [attempt['resumed_from'] for attempt in place.record('linear')['attempts']] == [None, 'epoch_1.pth']


def test_a_failed_stage_is_retried_from_its_checkpoint(place):
    place.config('linear', fail_at=2)
    place.write()
    assert place.run(only=['pretrain', 'linear'])[0] == 1
    assert place.run(only=['linear'])[0] == 1
    record = place.record('linear')
    assert [attempt['resumed_from'] for attempt in record['attempts']] == [None, 'epoch_1.pth']
    assert [attempt['status'] for attempt in record['attempts']] == ['failed', 'failed']
    assert 'start at epoch 1,' in place.log('linear')


def test_children_of_a_failed_rerun_do_not_keep_old_results(place):
    place.write(pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'))
    assert place.run()[0] == 0
    place.config('pretrain', load=False, fail_at=1)
    assert place.run()[0] == 1
    assert statuses(place, 'pretrain', 'linear') == ['failed', 'skipped']
    old = json.loads((place.work / 'linear.old-1' / 'run.json').read_text())
    assert old['status'] == 'done', 'moved, not deleted'


@pytest.mark.parametrize(
    'settings, word',
    [
        (dict(save=False), 'left no checkpoint'),
        (dict(measure=False), 'no metrics'),
        (dict(finish=False), 'without finishing'),
    ],
)
def test_exit_code_0_alone_is_not_success(place, settings, word):
    place.config('linear', **settings)
    place.write()
    assert place.run(only=['pretrain', 'linear'])[0] == 1
    record = place.record('linear')
    assert record['status'] == 'failed' and record['exit_code'] == 0 and word in record['error']


def test_pretraining_needs_no_metrics(place):
    place.config('pretrain', load=False, measure=False)
    place.write()
    assert place.run(only=['pretrain'])[0] == 0


def test_report_runs_last_and_shows_failures(place):
    place.config('linear', fail_at=1)
    place.write(True, pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'))
    code, said = place.run()
    assert code == 1
    assert statuses(place, 'linear', 'report') == ['failed', 'done'], said
    report = place.record('report')
    assert report['command'][1:] == ['-m', 'mim_mm.report', str(place.work)]
    assert 'out of luck' in (place.work / 'report.md').read_text()
    assert (place.work / 'report' / report['artifacts']['report.html']).is_file()


def test_independent_stages_run_side_by_side(place):
    for name in ('linear', 'finetune', 'coco'):
        place.config(name, epochs=4, epoch_s=0.3)
    place.write()
    process = place.start(jobs=3)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    started = [place.record(n)['attempts'][0]['started'] for n in ('linear', 'finetune', 'coco')]
    finished = [place.record(n)['finished'] for n in ('linear', 'finetune', 'coco')]
    assert max(started) < min(finished), 'all three were running at the same time'
    lines = [line.split('] ')[0] for line in said.splitlines() if '] run:' in line or '] done' in line]
    assert lines[0:2] == ['[pretrain', '[pretrain'] and lines[2:5] == ['[linear', '[finetune', '[coco']


def test_an_arm_is_measured_before_the_next_is_pretrained(place):
    """So that a study which is cut off has figures of what it pretrained; also of an arm that was done before."""
    pretrain = {arm: place.stage('pretrain', init=None, arm=arm) for arm in 'abc'}
    linear = {f'linear_{arm}': place.stage('linear', init=arm, arm=arm) for arm in 'abc'}
    place.write(**pretrain, **linear)
    assert place.run(only=['a'])[0] == 0
    code, said = place.run()
    order = [line[1:].split(']')[0] for line in said.splitlines() if '] run:' in line]
    assert code == 0 and order == ['linear_a', 'b', 'linear_b', 'c', 'linear_c']


def test_threads_are_shared_between_parallel_stages(place, monkeypatch):
    import os

    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    place.write(linear=place.stage('linear', init=None), coco=place.stage('coco', init=None))
    assert place.run(jobs=2)[0] == 0
    assert f'threads {max(1, len(os.sched_getaffinity(0)) // 2)}' in place.log('linear')


def test_only_from_and_rerun(place):
    place.write()
    code, said = place.run(only=['linear'])
    assert code == 1 and 'has not finished and is not selected' in said
    assert not (place.work / 'linear').exists()
    code, said = place.run(only=['pretrain', 'coco'])
    assert code == 0 and '2 more stages: 2 not selected (never run)' in said and 'finetune  ' not in said, said
    assert not (place.work / 'linear').exists()
    assert place.run(start_from='finetune')[0] == 0
    assert not (place.work / 'linear').exists() and statuses(place, 'finetune', 'coco') == ['done', 'done']
    assert place.run(rerun=['coco'], only=['coco'])[0] == 0
    assert (place.work / 'coco.old-1' / 'run.json').is_file()
    with pytest.raises(ChainError, match='--only and --from'):
        place.run(only=['coco'], start_from='coco')
    with pytest.raises(ChainError, match="unknown stage 'cocoo'; did you mean 'coco'"):
        place.run(only=['cocoo'])


def test_the_last_line_says_how_far_the_chain_is(place):
    """Whatever this call did or left; superseded runs are no part of it."""
    place.write(True)
    last = lambda said: said.strip().splitlines()[-1]  # noqa: E731
    code, said = place.run(only=['report'])
    assert code == 0 and '0 of 4 stages done (not done: pretrain: never run; linear: never run' in last(said), said
    assert '0 of 4 runs done' in (place.work / 'report.md').read_text()
    code, said = place.run(only=['pretrain', 'linear'])
    assert code == 0 and '2 of 4 stages done (not done: finetune: never run; coco: never run), in' in last(said)
    code, said = place.run()
    assert code == 0 and last(said) == f'chain tiny: all stages done, in {place.work}'
    code, said = place.run(rerun=['coco'])
    assert code == 0 and (place.work / 'coco.old-1').is_dir() and 'all stages done' in last(said)
    assert '4 of 4 runs done' in (place.work / 'report.md').read_text()
    assert place.run(only=['report'])[1].count('all stages done') == 1
    # New weights of the pretraining: what was made from the old ones is not done any more.
    place.config('pretrain', load=False, lr=0.2)
    code, said = place.run(only=['pretrain'])
    assert code == 0 and '1 of 4 stages done (not done: linear: parent weights changed' in last(said), said
    place.config('linear', fail_at=1)
    code, said = place.run()
    assert code == 1 and 'chain tiny: 1 problem(s), 3 of 4 stages done (not done: linear: failed' in said, said


def test_skip_pretrain(place):
    place.write()
    given = place.folder / 'mine.pth'
    place.config('other', load=False)
    assert place.run(only=['pretrain'])[0] == 0
    given.write_bytes((place.work / 'pretrain' / 'epoch_2.pth').read_bytes())
    code, said = place.run(skip_pretrain=[str(given)])
    assert code == 0
    assert place.record('linear')['parent']['checkpoint'] == str(given)
    assert statuses(place, 'pretrain', 'linear') == ['skipped', 'done']
    assert (place.work / 'pretrain.old-1' / 'epoch_3.pth').is_file(), 'an earlier pretraining is moved, not lost'
    code, said = place.run()
    assert code == 0 and 'its place is taken by' in said, 'the choice holds until it is taken back'
    assert place.run(rerun=['pretrain'])[0] == 0
    assert place.record('linear')['parent']['checkpoint'] == str(place.work / 'pretrain' / 'epoch_3.pth')
    with pytest.raises(ChainError, match='no checkpoint'):
        place.run(skip_pretrain=['nowhere.pth'])


def test_skip_pretrain_with_a_checkpoint_of_the_stage_itself(place):
    place.write()
    assert place.run()[0] == 0
    assert place.run(skip_pretrain=[str(place.work / 'pretrain' / 'epoch_2.pth')])[0] == 0
    assert place.record('linear')['parent']['checkpoint'] == str(place.work / 'pretrain' / 'epoch_2.pth')
    assert statuses(place, 'pretrain') == ['done'] and not (place.work / 'pretrain.old-1').exists()


def test_skip_pretrain_with_two_arms_asks_which(place):
    place.write(
        a=place.stage('pretrain', init=None),
        b=place.stage('pretrain', init=None),
        linear=place.stage('linear', init='b'),
    )
    given = place.folder / 'x.pth'
    given.write_bytes(b'x')
    with pytest.raises(ChainError, match='STAGE=CHECKPOINT; this chain has a, b'):
        place.run(skip_pretrain=[str(given)])
    code, _ = place.run(skip_pretrain=[f'b={given}'])
    assert code == 0 and statuses(place, 'a', 'b', 'linear') == ['done', 'skipped', 'done']


def test_dry_run_does_and_writes_nothing(place):
    place.write(True, pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'))
    before = place.files()
    code, said = place.run(dry_run=True)
    assert code == 0 and place.files() == before
    assert 'stand_in_train.py' in said and 'init=' in said and 'mim_mm.report' in said
    place.run()
    before = {path: path.stat().st_mtime_ns for path in place.work.rglob('*')}
    code, said = place.run(dry_run=True)
    assert code == 0 and before == {path: path.stat().st_mtime_ns for path in place.work.rglob('*')}
    assert said.count('skip     done') == 2 and 'stand_in_train.py' not in said


def test_missing_data_stop_everything_before_it_starts(place):
    lost = str(place.folder / 'nowhere')
    place.config('coco', train_dataloader=dict(dataset=dict(data_root=lost, ann_file='annotations/x.json')))
    place.config('finetune', train_dataloader=dict(dataset=dict(data_root=lost, ann_file='annotations/x.json')))
    place.write()
    with pytest.raises(ChainError) as error:
        place.run()
    assert lost in str(error.value) and 'finetune, coco' in str(error.value) and '--data-root' in str(error.value)
    assert not place.work.exists()
    code, said = place.run(dry_run=True)
    assert code == 0 and lost in said
    assert place.run(only=['pretrain', 'linear'])[0] == 0, 'stages that do not run need no data'


def test_data_root_option(place, monkeypatch):
    monkeypatch.setenv('TINY_ROOT', 'x')  # restored afterwards: the option sets the environment
    (place.folder / 'here').mkdir()
    (place.folder / 'linear.py').write_text(
        "train_dataloader = dict(dataset=dict(data_root='{{$TINY_ROOT:data/tiny}}'))\nepochs = 1\n"
        "custom_hooks = [dict(type='mim_mm.LoadPretrainedHook')]\n"
    )
    place.write(pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'))
    said = place.run(dry_run=True, data_root=[f'tiny={place.folder}/here'])[1]
    assert f'data    {place.folder}/here' in said
    with pytest.raises(ChainError, match='no config of this chain reads TYNI_ROOT'):
        place.run(dry_run=True, data_root=[f'tyni={place.folder}/other'])
    with pytest.raises(ChainError, match='NAME=DIR'):
        place.run(dry_run=True, data_root=['/data'])


def test_a_config_that_would_not_load_its_parent_is_refused(place):
    place.config('linear', load=False)
    place.write()
    with pytest.raises(ChainError, match='LoadPretrainedHook'):
        place.run()
    place.config('linear', load=False, custom_hooks=[dict(type='mim_mm.LoadPretrainedHook', checkpoint='x.pth')])
    with pytest.raises(ChainError, match="starts from 'pretrain', but custom_hooks.0.checkpoint.*names x.pth"):
        place.run()
    assert not place.work.exists()


def test_wrong_options_are_refused(place):
    place.write()
    for item, word in [
        ('lr=1', 'STAGE.key=value'),
        ('linaer.lr=1', "did you mean 'linear'"),
        ('linear.custom_hoks=1', 'custom_hooks'),
    ]:
        with pytest.raises(ChainError, match=word):
            place.run(cfg_options=[item])


def test_artifacts(place):
    copy = [sys.executable, '-c', 'import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])', '{checkpoint}', '{path}']
    good = dict(name='copy', command=copy, path='pictures/copy.bin')
    bad = dict(name='bad', command='python -c "raise SystemExit(4)"', path='bad.png')
    lazy = dict(name='lazy', command='python -c "pass"', path='lazy.png')
    place.write(pretrain=place.stage('pretrain', init=None, artifacts=[bad, lazy, good]), linear=place.stage('linear'))
    code, said = place.run()
    assert code == 0 and 'artifact bad failed, the stage stands' in said
    record = place.record('pretrain')
    assert record['status'] == 'done' and record['artifacts'] == dict(copy='pictures/copy.bin')
    assert (
        'exit code 4' in record['artifact_errors']['bad']
        and 'did not leave lazy.png' in record['artifact_errors']['lazy']
    )
    assert (place.work / 'pretrain/pictures/copy.bin').read_bytes() == (
        place.work / 'pretrain/epoch_3.pth'
    ).read_bytes()
    # What is missing is made in the next call, without running the stage again.
    good_now = dict(bad, command=['python', '-c', 'open(__import__("sys").argv[1], "w")', '{path}'])
    place.write(pretrain=place.stage('pretrain', init=None, artifacts=[good_now, good]), linear=place.stage('linear'))
    code, said = place.run()
    record = place.record('pretrain')
    assert code == 0 and set(record['artifacts']) == {'bad', 'copy'} and 'bad' not in record['artifact_errors']
    assert len(record['attempts']) == 1
    wrong = dict(name='x', command='echo {chekpoint}')
    place.write(pretrain=place.stage('pretrain', init=None, artifacts=[wrong]))
    with pytest.raises(ChainError, match='chekpoint'):
        place.run(rerun=['pretrain'])


def test_progress_is_visible(place):
    place.config('pretrain', load=False, epochs=5, epoch_s=0.25)
    place.write()
    said = place.run(only=['pretrain'])[1]
    assert 'pretrain epoch' in said and 'ETA' in said and '[pretrain] done in' in said


def test_texts():
    progress = dict(epoch=2, max_epochs=90, iter=120, max_iters=5000, loss=0.5123, eta_s=3723)
    assert progress_text('linear', progress) == 'linear epoch 3/90 iter 120/5000 loss 0.5123 ETA 1:02:03'
    assert progress_text('linear', dict(progress, epoch=90)).startswith('linear epoch 90/90')
    assert progress_text('coco', dict(iter=5, max_iters=10, max_epochs=None, eta_s=None)) == 'coco iter 5/10 ETA ?'
    assert span(3 * 86400 + 4 * 3600 + 300) == '3d 04:05'


def test_a_terminal_gets_one_line_that_is_refreshed():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    display = Display(stream)
    display.live = True
    display.progress(['a'])
    display.progress(['b'])
    display.say('done')
    assert stream.getvalue() == 'a\r\x1b[Kb\r\x1b[Kdone\n'
