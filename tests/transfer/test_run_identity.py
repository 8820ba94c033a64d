"""What counts as the same run: keys that change what is learned, keys that do not, data, code."""

import copy
import hashlib
import os
import subprocess

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mim_mm.transfer import datasets, identity

BASE = dict(
    work_dir='w',
    log_level='INFO',
    env_cfg=dict(cudnn_benchmark=True),
    data_root='/data/imagenet/',
    model=dict(type='EMAE', backbone=dict(arch='base', with_cp=False), masker=dict(num_parts=4)),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95))),
    train_cfg=dict(max_epochs=300, val_interval=1),
    train_dataloader=dict(
        batch_size=512,
        num_workers=8,
        dataset=dict(
            type='X', data_root='/data/imagenet/', data_prefix='train', pipeline=[dict(type='Flip', prob=0.5)]
        ),
    ),
    val_evaluator=dict(type='CocoMetric', ann_file='/data/imagenet/ann.json', outfile_prefix='w/x'),
    test_dataloader=dict(batch_size=1),
    default_hooks=dict(logger=dict(interval=50), checkpoint=dict(interval=1), ema=dict(momentum=0.1)),
    custom_hooks=[
        dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, min_loaded=0.95),
        dict(type='mim_mm.ProgressHook', interval=5),
        dict(type='EMAHook', momentum=0.1),
    ],
    randomness=dict(seed=0),
)


def sha(**options):
    config = Config(copy.deepcopy(BASE))
    config.merge_from_dict(options)
    return identity.digest(identity.learned(config))


@pytest.mark.parametrize(
    'key, value',
    [
        ('work_dir', 'elsewhere'),
        ('log_level', 'DEBUG'),
        ('launcher', 'pytorch'),
        ('env_cfg.cudnn_benchmark', False),
        ('env_cfg.dist_cfg', dict(backend='gloo')),
        ('visualizer', dict(type='Visualizer')),
        ('resume', True),
        ('model.backbone.with_cp', True),
        ('train_dataloader.num_workers', 2),
        ('train_dataloader.persistent_workers', True),
        ('train_cfg.val_interval', 10),
        ('val_evaluator.outfile_prefix', 'y'),
        ('test_dataloader.batch_size', 7),
        ('default_hooks.logger.interval', 1),
        ('default_hooks.checkpoint.interval', 20),
        ('default_hooks.resume_schedule', dict(type='mim_mm.ResumeScheduleHook')),
        ('default_hooks.exact_resume', dict(type='mim_mm.ExactResumeHook')),
        ('init', '/x/epoch_800.pth'),
        ('init', None),
        ('custom_hooks.0.checkpoint', '/x/epoch_800.pth'),
        ('custom_hooks.1.interval', 77),
    ],
)
def test_how_fast_and_where_do_not_count(key, value):
    assert sha(**{key: value}) == sha()


@pytest.mark.parametrize('says, counts', [(None, True), (True, True), (False, False)])
def test_a_hook_counts_unless_its_class_says_that_it_only_looks_on(says, counts):
    class Mine(Hook):
        if says is not None:
            changes_learning = says

    class Heir(Mine):
        pass

    with_hook = dict(BASE, custom_hooks=[*BASE['custom_hooks'], dict(type='Mine', a=1)])
    unknown = identity.learned(Config(copy.deepcopy(with_hook)))['custom_hooks']
    assert unknown[-1] == dict(type='Mine', a=1), 'nobody has imported it'
    HOOKS.register_module(module=Mine)
    HOOKS.register_module(module=Heir)
    try:
        for name in ('Mine', 'mim_mm.Mine', 'Heir'):
            with_hook['custom_hooks'][-1]['type'] = name
            found = [hook['type'] for hook in identity.learned(Config(copy.deepcopy(with_hook)))['custom_hooks']]
            assert (name in found) == (counts or name == 'Heir'), 'a subclass says it anew'
    finally:
        del HOOKS.module_dict['Mine'], HOOKS.module_dict['Heir']


@pytest.mark.parametrize(
    'key, value',
    [
        ('model.masker.num_parts', 7),
        ('model.backbone.arch', 'small'),
        ('optim_wrapper.optimizer.lr', 2e-3),
        ('optim_wrapper.optimizer.betas', (0.9, 0.999)),
        ('train_cfg.max_epochs', 800),
        ('train_dataloader.batch_size', 256),
        ('train_dataloader.dataset.data_prefix', 'val'),
        ('train_dataloader.dataset.pipeline.0.prob', 0.4),
        ('default_hooks.ema.momentum', 0.2),
        ('custom_hooks.0.min_loaded', 0.5),
        ('custom_hooks.2.momentum', 0.2),
        ('randomness.seed', 1),
        ('load_from', 'x.pth'),
        ('a_new_key', 1),
        ('init', dict(type='TruncNormal')),  # a variable of the user's own
    ],
)
def test_what_is_learned_counts(key, value):
    assert sha(**{key: value}) != sha()


@pytest.mark.parametrize('root', ['/mnt/other', '/mnt/other/', '/mnt/other//'])
def test_the_same_data_in_another_folder_is_the_same_run(root):
    moved = {
        'data_root': root,
        'train_dataloader.dataset.data_root': root,
        'val_evaluator.ann_file': root + '/ann.json',
    }
    assert sha(**moved) == sha()
    assert sha(**dict(moved, **{'val_evaluator.ann_file': root + '/other.json'})) != sha()


def test_order_of_keys_and_kind_of_sequence_do_not_count():
    assert identity.digest(dict(a=1, b=[1, 2])) == identity.digest(dict(b=(1, 2), a=1))


def test_differences_name_the_keys():
    old, new = dict(a=dict(b=1, c=[1, 2]), d=0), dict(a=dict(b=2, c=[1, 3]), e=5)
    lines = identity.differences(old, new)
    assert lines == ['a.b: 1 -> 2', 'a.c.1: 2 -> 3', 'd: 0 -> removed', 'e: added 5']


def test_options_are_checked_and_seed_is_set(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text('train_cfg = dict(max_epochs=1)\n')
    config = identity.resolved_config(path, {'train_cfg.max_epochs': 2}, seed=4)
    assert (config.train_cfg.max_epochs, config.randomness.seed) == (2, 4)
    with pytest.raises(Exception, match="did you mean 'train_cfg'"):
        identity.resolved_config(path, {'trian_cfg.max_epochs': 2}, seed=0)


def test_git_state_is_of_this_repository_not_of_the_current_folder(tmp_path, monkeypatch):
    def git(*args):
        settings = ['-c', 'user.name=n', '-c', 'user.email=e@x', '-c', 'commit.gpgsign=false']
        return subprocess.run(
            ['git', *settings, *args], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    git('init')
    git('commit', '--allow-empty', '-m', 'x')
    other = git('rev-parse', 'HEAD').strip()
    monkeypatch.chdir(tmp_path)
    assert identity.git_state()['commit'] != other


def test_file_digest_is_sha256_and_follows_changes(tmp_path):
    path = tmp_path / 'ann.json'
    path.write_bytes(b'one')
    cache = datasets.DigestCache(tmp_path / 'cache.json')
    assert cache.file(path) == hashlib.sha256(b'one').hexdigest()
    path.write_bytes(b'three')
    assert cache.file(path) == hashlib.sha256(b'three').hexdigest()


def folder_sha(files):
    """The rule, restated: sorted folders, in each sorted files, name and size."""
    folders = sorted({name.rpartition('/')[0] for name in files})
    sha = hashlib.sha256()
    for folder in folders:
        for name in sorted(n for n in files if n.rpartition('/')[0] == folder):
            sha.update(f'{name}\0{files[name]}\n'.encode())
    return sha.hexdigest()


def test_folder_is_listed_once_and_again_when_a_name_changes(tmp_path):
    data = tmp_path / 'train'
    files = {'n01/a.jpg': 3, 'n01/b.jpg': 5, 'n02/a.jpg': 7}
    for name, size in files.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b'x' * size)
    said = []
    cache = datasets.DigestCache(tmp_path / 'cache.json', said.append)
    first = cache.folder(data)
    assert first == dict(files=3, bytes=15, sha256=folder_sha(files))
    cache.save()
    again = datasets.DigestCache(tmp_path / 'cache.json', said.append)
    assert again.folder(data) == first and len(said) == 1, 'the second look must not list'
    (data / 'n02' / 'a.jpg').rename(data / 'n02' / 'c.jpg')
    os.utime(data / 'n02', ns=(1, 1))  # whatever the clock of the file system resolves
    assert again.folder(data)['sha256'] == folder_sha({'n01/a.jpg': 3, 'n01/b.jpg': 5, 'n02/c.jpg': 7})
    assert len(said) == 2


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'real' / 'a').write_text('abc')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'in').symlink_to(tmp_path / 'real')
    (tmp_path / 'real' / 'back').symlink_to(tmp_path / 'data')
    found = datasets.DigestCache(tmp_path / 'c.json').folder(tmp_path / 'data')
    assert (found['files'], found['bytes']) == (1, 3)


def test_sources_through_wrappers_and_splits(tmp_path):
    (tmp_path / 'val').mkdir()
    coco = dict(data_root='/d/coco', ann_file='annotations/t.json', data_prefix=dict(img='train2017/'))
    config = dict(
        train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(type='Concat', datasets=[coco]))),
        val_dataloader=dict(dataset=dict(type='ImageNet', data_root=str(tmp_path), split='val')),
    )
    found = {label: str(path) for label, path in datasets.sources(config).items()}
    assert found == {
        'train/annotations/t.json': '/d/coco/annotations/t.json',
        'train/train2017': '/d/coco/train2017',
        'val/val': str(tmp_path / 'val'),
    }
    assert datasets.sources(dict(train_dataloader=dict(dataset=dict(type='Made')))) == {}


def test_data_that_are_not_here_are_no_change():
    old = dict(a=dict(files=3, bytes=9, sha256='x'))
    assert datasets.change(old, dict(a=dict(missing=True))) is None
    assert 'a: 3 files' in datasets.change(old, dict(a=dict(files=4, bytes=9, sha256='y')))
    assert 'b added' in datasets.change(old, dict(old, b=dict(sha256='z')))


def test_a_clock_told_by_hooks_of_earlier_versions_is_the_same_clock():
    """A finished pretraining of version 0.1 names hooks that its recipe has no more."""
    ours, ramp = dict(type='Mine'), dict(type='mim_mm.ConsistencyRampHook', epochs=2)
    told = [dict(type='MaskSeedHook'), dict(type='mim_mm.MaskerEpochHook', priority='VERY_HIGH')]
    before = dict(model=dict(type='EMAE'), custom_hooks=[*told, ours, ramp])
    now = dict(
        model=dict(type='EMAE', consistency_ramp=2),
        custom_hooks=[ours],
        default_hooks=dict(clock=dict(type='mim_mm.ClockHook')),
    )
    assert identity.one_form(before)['model'] == now['model'] and identity.one_form(before)['custom_hooks'] == [ours]
    assert identity.one_form(now)['default_hooks'] == {}
    seeded = dict(before, custom_hooks=[dict(type='MaskSeedHook', seed=7)])
    assert identity.one_form(seeded)['custom_hooks'] == seeded['custom_hooks'], 'another seed, other masks'
    assert before['custom_hooks'][0] == dict(type='MaskSeedHook'), 'what was read is not changed'
