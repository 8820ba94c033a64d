"""Progressive resolution in real runs: with workers, stopped, killed and resumed, and what is refused before."""

import itertools
import os
import pickle
import signal
import types
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from tiny_run import Killed, StopHook, shrunken

from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.engine.hooks.progressive_hook import ProgressiveResolutionHook, SharedSize, crops_of
from mim_mm.engine.stop.signals import REQUEST
from mim_mm.engine.stop.stop_hook import Stopped
from mim_mm.registry import DATASETS, MODELS, TRANSFORMS
from mim_mm.resolution import STAGES, read_stages, span_of, spans

TINY_STAGES = [(0.0, 16), (0.3, 24), (0.6, 32)]  # one epoch each of three
RECIPES = {kind: f'configs/{kind}/{kind}_vitb_800e_progressive.py' for kind in ('mae', 'emae')}


@pytest.fixture(autouse=True)
def no_request():
    yield
    REQUEST.forget()


class Watch(Hook):
    """Notes epoch, size of the batch and its sum; sends a signal in one iteration (0: never)."""

    priority = 'LOW'

    def __init__(self, at=0):
        self.at, self.seen = at, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        images = data_batch['inputs']
        self.seen.append((runner.epoch, batch_idx, *images.shape[-2:], images.double().sum().item()))
        if runner.iter + 1 == self.at:
            os.kill(os.getpid(), signal.SIGUSR1)


def config(image_folder, work_dir, kind='emae', stages=TINY_STAGES, workers=0, epochs=3, **options):
    """A recipe at test size: patches of 4 px, so that 16, 24 and 32 px are 16, 36 and 64 of them; three batches."""
    cfg = shrunken(RECIPES[kind], **{
        'model.backbone.patch_size': 4,
        'train_dataloader.dataset.data_root': str(image_folder), 'train_dataloader.dataset.data_prefix': '',
        'train_dataloader.batch_size': 3, 'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': workers > 0,
        'train_cfg.max_epochs': epochs, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
        # A kill in the middle of an accumulation would lose its first half.
        'optim_wrapper.accumulative_counts': 1,
        'custom_hooks.1.stages': stages, 'work_dir': str(work_dir), **options,
    })  # fmt: skip
    assert cfg.custom_hooks[1].type == 'mim_mm.ProgressiveResolutionHook'
    return cfg


runs = itertools.count()


def run(cfg, watch=None, kill_after=None):
    """Resumes where the work dir has a checkpoint."""
    found = latest_checkpoint(cfg.work_dir) if os.path.isdir(cfg.work_dir) else None
    cfg.resume, cfg.load_from = bool(found), str(found) if found else None
    cfg.experiment_name = f'progressive-{next(runs)}'
    runner = Runner.from_cfg(cfg)
    sizes = []
    runner.model.backbone.patch_embed.register_forward_pre_hook(lambda _, x: sizes.append(tuple(x[0].shape[-2:])))
    if watch:
        runner.register_hook(watch)
    if kill_after:
        runner.register_hook(StopHook(kill_after), 'LOWEST')
    try:
        runner.train()
    except (Killed, Stopped):
        pass
    return runner, sizes


def without_chance(cfg):
    """The whole square image as the crop, no flip: what an epoch sees is the same in whichever process."""
    crop, flip = cfg.train_dataloader.dataset.pipeline[1:3]
    crop.update(crop_ratio_range=(1.0, 1.0), aspect_ratio_range=(1.0, 1.0))
    flip.prob = 0.0
    return cfg


def equal_weights(a, b):
    ours, theirs = (torch.load(latest_checkpoint(x), weights_only=True) for x in (a, b))
    assert ours['state_dict'].keys() == theirs['state_dict'].keys()
    assert all(torch.equal(value, theirs['state_dict'][key]) for key, value in ours['state_dict'].items())
    assert ours['meta']['epoch'] == theirs['meta']['epoch'] == 3


@pytest.mark.parametrize('kind', RECIPES)
def test_batches_grow_also_where_workers_live_on(kind, image_folder, tmp_path):
    watch = Watch()
    cfg = config(image_folder, tmp_path / 'run', kind, workers=1)
    cfg.custom_hooks.append(dict(type='CompileHook', backend='aot_eager'))
    torch._dynamo.reset()
    runner, sizes = run(cfg, watch)
    assert [seen[:4] for seen in watch.seen] == [
        (epoch, batch, side, side) for epoch, side in enumerate((16, 24, 32)) for batch in range(3)
    ]
    assert sizes == [seen[2:4] for seen in watch.seen], 'the model got them'
    assert runner.train_dataloader._iterator is not None, 'the workers did live on'
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert '16 px in epochs 1 to 1, 24 px in epochs 2 to 2, 32 px in epochs 3 to 3' in log
    assert 'its figures do not apply' in log and 'epoch 2: images of 24 px from here on' in log
    assert runner.model.sizes_vary is False
    weights = torch.load(latest_checkpoint(tmp_path / 'run'), weights_only=True)['state_dict']
    assert weights['backbone.pos_embed'].shape == (1, 65, 32), 'the checkpoint is one for the last size'


@pytest.mark.parametrize('kill_after, workers', [(1, 1), (2, 0)])
def test_killed_after_an_epoch_and_resumed_equals_uninterrupted(image_folder, tmp_path, kill_after, workers):
    whole, first, second = Watch(), Watch(), Watch()
    made = {name: tmp_path / name for name in ('whole', 'cut')}
    run(without_chance(config(image_folder, made['whole'], workers=workers)), whole)
    run(without_chance(config(image_folder, made['cut'], workers=workers)), first, kill_after)
    run(without_chance(config(image_folder, made['cut'], workers=workers)), second)
    assert len(first.seen) == 3 * kill_after and first.seen + second.seen == whole.seen
    equal_weights(made['whole'], made['cut'])


@pytest.mark.parametrize('stop_at', [2, 5, 8])
def test_stopped_inside_an_epoch_and_resumed_equals_uninterrupted(image_folder, tmp_path, stop_at):
    whole, first, second = Watch(), Watch(stop_at), Watch()
    made = {name: tmp_path / name for name in ('whole', 'cut')}

    def ready(name):
        cfg = config(image_folder, made[name])
        cfg.custom_hooks.append(dict(type='mim_mm.StopOnSignalHook'))
        return cfg

    run(ready('whole'), whole)
    run(ready('cut'), first)
    run(ready('cut'), second)
    assert len(first.seen) == stop_at and first.seen + second.seen == whole.seen
    equal_weights(made['whole'], made['cut'])


def test_images_that_the_device_crops(image_folder, tmp_path):
    for path in sorted(image_folder.rglob('*.png'))[:5]:  # the others stay PNG, which workers crop
        Image.open(path).save(path.with_suffix('.jpg'))
        path.unlink()
    cfg = config(image_folder, tmp_path / 'run')
    cfg.train_dataloader.dataset.pipeline[1:] = [dict(type='CropOnDevice', scale=32)]
    cfg.train_dataloader.collate_fn = dict(type='pseudo_collate')
    old = cfg.model.data_preprocessor
    cfg.model.data_preprocessor = dict(type='DecodingPreprocessor', mean=old.mean, std=old.std, size=32)
    _, sizes = run(cfg)
    assert sizes == [(side, side) for side in (16, 24, 32) for _ in range(3)]


def test_streamed_images(image_folder, tmp_path):
    pytest.importorskip('webdataset')
    import tarfile

    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        for path in sorted(image_folder.rglob('*.png')):
            tar.add(path, path.name)
    cfg = config(image_folder, tmp_path / 'run', workers=1)
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(
        type='StreamedImages', urls=str(tmp_path / 'a.tar'), images=10, batch_size=3, pipeline=pipeline
    )
    cfg.train_dataloader.sampler = None
    watch = Watch()
    run(cfg, watch)
    assert [seen[2] for seen in watch.seen] == [16] * 3 + [24] * 3 + [32] * 3


@pytest.mark.parametrize('change, error, message', [
    (dict(stages=[(0, 16), (0.5, 24)]), ValueError, 'last size is 24 x 24 px, but the backbone .* 32 x 32'),
    (dict(stages=[(0, 18), (0.5, 32)]), ValueError, '18 x 18 px are no whole number of 4-px patches; 16 x 16'),
    (dict(stages=TINY_STAGES, epochs=2), ValueError, '2 epochs leave none for 32 px'),
    ({'model.masker': dict(_delete_=True, type='GridMasking', stride=4)}, ValueError,
     r'GridMasking cannot mask images of 24 px \(6 x 6 patches\).*stride that divides'),
    ({'model.masker': dict(_delete_=True, type='BlockMasking', grid=(8, 8))}, ValueError,
     'BlockMasking cannot mask images of 16 px .*16 patches are not a grid of 8 x 8'),
])  # fmt: skip
def test_what_cannot_be_stops_before_training(image_folder, tmp_path, change, error, message):
    cfg = config(image_folder, tmp_path / 'run', **change)
    watch = Watch()
    with pytest.raises(error, match=message):
        run(cfg, watch)
    assert not watch.seen


def test_iterations_other_models_and_other_crops_are_refused(image_folder, tmp_path):
    cfg = config(image_folder, tmp_path / 'a')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=1000)
    cfg.param_scheduler = []
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    with pytest.raises(TypeError, match='counts epochs, and IterBasedTrainLoop has none'):
        run(cfg)
    cfg = config(image_folder, tmp_path / 'b')
    cfg.train_dataloader.dataset.pipeline[:2] = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32))]
    with pytest.raises(TypeError, match='UnlabelledImages has no random resized crop'):
        run(cfg)
    cfg = config(image_folder, tmp_path / 'c')
    cfg.train_dataloader.dataset.pipeline.insert(2, dict(type='mmpretrain.CenterCrop', crop_size=8))
    with pytest.raises(RuntimeError, match=r'epoch 1 is to have images of \(16, 16\) px.*\[\(8, 8\)\]'):
        run(cfg)
    runner = types.SimpleNamespace(model=torch.nn.Linear(2, 2), train_loop=_loop())
    with pytest.raises(TypeError, match='Linear takes one size only'):
        ProgressiveResolutionHook(TINY_STAGES).before_train(runner)


def _loop():
    from mmengine.runner import EpochBasedTrainLoop

    return EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)


def test_parts_that_become_unequal_are_said_and_train(image_folder, tmp_path):
    """Eight parts of 16, 36 and 64 patches: the second is cut into parts of 5 and 4."""
    cfg = config(image_folder, tmp_path / 'run', **{'model.masker.num_parts': 8})
    _, sizes = run(cfg)
    assert len(sizes) == 9
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert 'images of 24 px are 36 patches, of which the parts of ParallelMasking see (5, 5, 5, 5, 4, 4, 4, 4)' in log
    assert log.count('are packed, which is slower') == 1


def test_the_size_travels_to_other_processes_and_behaves_as_a_scale():
    shared = SharedSize((16, 24))
    copy = pickle.loads(ForkingPickler.dumps(shared))
    shared.set((32, 40))
    assert tuple(copy) == (32, 40) and copy[::-1] == (40, 32) and len(copy) == 2 and repr(copy) == '(32, 40)'


def test_crops_are_found_inside_wrappers(image_folder):
    MODELS.get('MAE')  # imports the rooms
    crop = dict(type='mmpretrain.RandomResizedCrop', scale=32)
    once = TRANSFORMS.build(dict(type='MAERandomResizedCrop', scale=32))
    maybe = dict(type='RandomApply', transforms=[crop], prob=0.5)
    fast = TRANSFORMS.build(dict(type='FastRandomResizedCrop', scale=32))
    inner = DATASETS.build(dict(
        type='UnlabelledImages', data_root=str(image_folder), data_prefix='', pipeline=[fast, maybe, once],
    ))  # fmt: skip
    outer = torch.utils.data.ConcatDataset([torch.utils.data.Subset(inner, [0]), inner])
    names = [type(found).__name__ for found in crops_of(outer)]
    assert names == 2 * ['FastRandomResizedCrop', 'RandomResizedCrop', 'MAERandomResizedCrop']


def test_epochs_of_the_stages_by_hand():
    assert [(s.first, s.end, s.size[0]) for s in spans(read_stages(STAGES), 800)] == [
        (0, 320, 160), (320, 560, 192), (560, 800, 224),
    ]  # fmt: skip
    # 0.7 * 10 is a little more than 7; of 7 epochs, 2.8 and 4.9 are rounded up.
    assert [s.first for s in spans(read_stages(STAGES), 10)] == [0, 4, 7]
    plan = spans(read_stages([(0, 160), (0.4, [160, 192]), (0.7, 224)]), 7)
    assert [s.first for s in plan] == [0, 3, 5]
    assert [span_of(plan, e).size[1] for e in range(8)] == [160, 160, 160, 192, 192, 224, 224, 224]
    assert [s.text for s in plan] == ['160 px', '160 x 192 px', '224 px']
    for stages, message in (
        ([], 'give pairs'), ([160, 224], 'give pairs'), ([(0.1, 160), (0.5, 224)], 'must start at 0'),
        ([(0, 160), (0.5, 192), (0.5, 224)], 'ascend'), ([(0, 160), (1.0, 224)], 'all below 1'),
        ([(0, 160.5)], 'no number of pixels'), ([(0, 0)], 'no number of pixels'), ([(0, (1, 2, 3))], 'no number'),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ProgressiveResolutionHook(stages)
    with pytest.raises(ValueError, match=r'2 epochs leave none for 224 px.*\[1, 2, 3\]'):
        spans(read_stages(STAGES), 2)
