"""The hook in a real training: weights and losses as without it, one process or two; the file and its resume."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from PIL import Image
from processes import join, spawn, store
from tiny_run import Killed, StopHook, shrunken

from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.evaluation.quality.quality_log import FILE_NAME, add_quality, drop_after, read_quality
from mim_mm.registry import HOOKS
from mim_mm.transfer.identity import learned

PROBE = dict(blocks=(1,), norm=(True,), lrs=(0.1, 1.0), iters=3, batch_size=8)


@pytest.fixture
def labelled(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for name in ('ant', 'bee'):
            for index in range(count):
                file = tmp_path / 'labelled' / split / name / f'{index}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (36, 36, 3), dtype=np.uint8)).save(file)
    return tmp_path / 'labelled'


def hook(folder, **options):
    return dict(type='mim_mm.QualityHook', data=str(folder), probe=PROBE, workers=0, ks=(1,), interval=1, **options)


def config(images, work_dir, quality=None, epochs=3, **options):
    """Random crops, flips and masks: whatever draws from a shared generator shows."""
    cfg = shrunken(**{
        'train_dataloader.dataset.data_root': str(images),
        'train_dataloader.dataset.data_prefix': '',
        'train_cfg.max_epochs': epochs,
        'param_scheduler.0.end': 1,
        'param_scheduler.1.begin': 1,
        'work_dir': str(work_dir),
        **options,
    })  # fmt: skip
    cfg.model.backbone.drop_path_rate = 0.3
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}-{len(options)}'
    if quality:
        cfg.custom_hooks.insert(0, ConfigDict(quality))
    return cfg


def losses(work_dir):
    lines = [json.loads(line) for file in work_dir.rglob('scalars.json') for line in file.read_text().splitlines()]
    return [(line['step'], line['loss']) for line in lines if 'loss' in line], [x for x in lines if 'loss' not in x]


def weights(work_dir, epoch=3):
    return torch.load(work_dir / f'epoch_{epoch}.pth', weights_only=True)['state_dict']


@pytest.mark.parametrize('by_epoch', [True, False])
def test_training_is_bit_identical_with_the_hook(image_folder, labelled, tmp_path, by_epoch):
    Runner.from_cfg(config(image_folder, tmp_path / 'alone')).train()
    watched = Runner.from_cfg(config(image_folder, tmp_path / 'watched', hook(labelled, by_epoch=by_epoch)))
    watched.train()
    assert losses(tmp_path / 'alone')[0] == losses(tmp_path / 'watched')[0]
    alone, with_hook = weights(tmp_path / 'alone'), weights(tmp_path / 'watched')
    assert alone.keys() == with_hook.keys() and all(torch.equal(alone[k], with_hook[k]) for k in alone)
    assert not torch.equal(alone['decoder.mask_token'], weights(tmp_path / 'alone', 1)['decoder.mask_token'])
    assert watched.model.training and watched.model.backbone.training

    rows = read_quality(tmp_path / 'watched')
    # 10 images in batches of 4: two steps an epoch, the rest dropped.
    assert [row['iter'] for row in rows] == ([0, 2, 4, 6] if by_epoch else [0, 1, 2, 3, 4, 5, 6])
    assert [row['epoch'] for row in rows] == [row['iter'] / 2 for row in rows]
    assert {row['source'] for row in rows} == {'hook'} and len({row['protocol'] for row in rows}) == 1
    logged = {line['step']: line['quality/knn_top1'] for line in losses(tmp_path / 'watched')[1]}
    assert logged == {row['iter']: row['knn_top1'] for row in rows}


def test_a_resumed_run_measures_no_epoch_twice(image_folder, labelled, tmp_path):
    runner = Runner.from_cfg(config(image_folder, tmp_path / 'run', hook(labelled)))
    runner.register_hook(StopHook(2), 'LOWEST')
    with pytest.raises(Killed):
        runner.train()
    (tmp_path / 'run' / 'epoch_2.pth').unlink()  # so that epoch 2, which is measured, is trained again
    with open(tmp_path / 'run' / FILE_NAME, 'a') as file:
        file.write('{"iter": 7, "cut o')
    before = read_quality(tmp_path / 'run')
    assert [row['iter'] for row in before] == [0, 2, 4]
    again = {'resume': True, 'load_from': str(tmp_path / 'run' / 'epoch_1.pth')}
    Runner.from_cfg(config(image_folder, tmp_path / 'run', hook(labelled), **again)).train()
    after = read_quality(tmp_path / 'run')
    assert [row['iter'] for row in after] == [0, 2, 4, 6] and after[:2] == before[:2]
    assert after[2]['time'] > before[2]['time']
    assert len((tmp_path / 'run' / FILE_NAME).read_text().splitlines()) == 4
    assert '"iter": 4' in (tmp_path / 'run' / 'quality.old-1.jsonl').read_text(), 'nothing measured is lost'
    assert not list((tmp_path / 'run').glob('.*.tmp'))


def test_options_decide_when(image_folder, labelled, tmp_path):
    options = dict(hook(labelled), interval=2, at_start=False, at_end=False)
    Runner.from_cfg(config(image_folder, tmp_path / 'a', options)).train()
    assert [row['epoch'] for row in read_quality(tmp_path / 'a')] == [2]
    Runner.from_cfg(config(image_folder, tmp_path / 'b', dict(options, interval=5, at_end=True), epochs=2)).train()
    assert [row['epoch'] for row in read_quality(tmp_path / 'b')] == [2]


def test_a_failed_measurement_does_not_stop_training(image_folder, labelled, tmp_path):
    runner = Runner.from_cfg(config(image_folder, tmp_path / 'run', hook(labelled, at_start=False), epochs=2))
    quality = next(h for h in runner.hooks if type(h).__name__ == 'QualityHook')
    quality.before_train(runner)
    for file in (labelled / 'val').rglob('*.png'):
        file.write_bytes(b'no picture')
    quality.before_train = lambda runner: None
    runner.train()
    assert runner.iter == 4 and latest_checkpoint(tmp_path / 'run').name == 'epoch_2.pth'
    assert read_quality(tmp_path / 'run') == []
    assert 'could not be measured; training goes on' in next((tmp_path / 'run').rglob('*.log')).read_text()


@pytest.mark.parametrize('options, error, words', [
    (dict(interval=0), ValueError, 'at least 1 epoch'),
    (dict(max_train_per_class=1), ValueError, 'at least 2'),
    (dict(data='nowhere'), FileNotFoundError, 'no folder nowhere/train'),
])  # fmt: skip
def test_mistakes_stop_before_training(image_folder, labelled, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        Runner.from_cfg(config(image_folder, tmp_path / 'run', dict(hook(labelled), **options))).train()


def test_loops_and_models_that_do_not_fit_are_refused(image_folder, labelled, tmp_path):
    runner = Runner.from_cfg(config(image_folder, tmp_path / 'run'))
    built = HOOKS.build(hook(labelled))
    runner.train_loop  # noqa: B018  (builds it)
    runner.model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match='tools/watch.py'):
        built.before_train(runner)
    cfg = config(image_folder, tmp_path / 'iterations')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    with pytest.raises(ValueError, match='counts iterations: set by_epoch=False'):
        built.before_train(Runner.from_cfg(cfg))


def test_the_hook_does_not_make_a_chain_train_again(image_folder, labelled, tmp_path):
    with_hook = config(image_folder, tmp_path / 'a', dict(hook(labelled)))
    assert learned(with_hook) == learned(config(image_folder, tmp_path / 'b'))


# ---------------------------------------------------------------- two processes


def _train(rank, port, paths):
    join(rank, port)
    for path in paths:
        Runner.from_cfg(Config.fromfile(path)).train()
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_work_and_train_as_without(image_folder, labelled, tmp_path):
    """Gloo: no deadlock, one row a moment, the same losses and weights as two processes without it."""
    paths = []
    for name, quality in (('alone', None), ('watched', hook(labelled, batch_size=3))):
        cfg = config(image_folder, tmp_path / name, quality, epochs=2, **{'train_dataloader.batch_size': 2})
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        cfg.dump(tmp_path / f'{name}.py')
        paths.append(str(tmp_path / f'{name}.py'))
    with store() as port:
        spawn(_train, port, paths)
    alone, watched = weights(tmp_path / 'alone', 2), weights(tmp_path / 'watched', 2)
    assert all(torch.equal(alone[k], watched[k]) for k in alone)
    assert losses(tmp_path / 'alone')[0] == losses(tmp_path / 'watched')[0]
    rows = read_quality(tmp_path / 'watched')
    assert [row['iter'] for row in rows] == [0, 2, 4] and rows[0]['images'] == dict(train=8, held_out=2, test=4)
    assert len((tmp_path / 'watched' / FILE_NAME).read_text().splitlines()) == 3
    # One process alone measures the same checkpoint the same.
    from mim_mm.evaluation.quality.quality_watch import WatchCall, measure_checkpoint

    call = WatchCall(str(tmp_path / 'watched'), config=str(tmp_path / 'watched.py'), settings=dict(data=str(labelled)))
    row = measure_checkpoint(call, tmp_path / 'watched' / 'epoch_2.pth')
    assert row['protocol'] == rows[-1]['protocol'] and row['epoch'] == 2
    assert (row['knn'], row['probe']) == (rows[-1]['knn'], rows[-1]['probe'])


# ---------------------------------------------------------------- the file


def test_rows_are_kept_by_iteration_and_protocol(tmp_path):
    for done, protocol, value in ((4, 'a', 1.0), (2, 'a', 2.0), (4, 'b', 3.0), (4, 'a', 4.0)):
        add_quality(tmp_path, dict(iter=done, protocol=protocol, knn_top1=value))
    found = [(row['iter'], row['protocol'], row['knn_top1']) for row in read_quality(tmp_path)]
    assert sorted(found) == [(2, 'a', 2.0), (4, 'a', 4.0), (4, 'b', 3.0)] and [f[0] for f in found] == [2, 4, 4]
    assert drop_after(tmp_path, 4) is None
    assert drop_after(tmp_path, 3).name == 'quality.old-1.jsonl' and len(read_quality(tmp_path)) == 1
    assert drop_after(tmp_path, 0).name == 'quality.old-2.jsonl' and read_quality(tmp_path) == []
    assert drop_after(tmp_path / 'fresh', 0) is None


def _add(folder, source):
    for done in range(12):
        add_quality(folder, dict(iter=done, protocol=source))


def test_two_writers_lose_nothing(tmp_path):
    context = torch.multiprocessing.get_context('fork')
    writers = [context.Process(target=_add, args=(tmp_path, name)) for name in 'ab']
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0] and len(read_quality(tmp_path)) == 24
