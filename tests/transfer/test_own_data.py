"""``tools/transfer.py --images``: what it writes, what it refuses, and that what it writes trains."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from own_chain import chain_of
from own_place import arguments, everything, picture, small, write_place
from PIL import Image

from mim_mm.data import mask_files
from mim_mm.engine.start import launch, schedule
from mim_mm.transfer import Call, ChainError, load_chain, run_chain
from mim_mm.transfer.own import own_configs, own_data, own_detection, own_encoder, own_segmentation
from mim_mm.transfer.own.own_options import OwnData

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))
    return write_place(tmp_path)


def scalars(folder):
    return [json.loads(line) for line in next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()]


def test_twelve_bits_in_a_folder_with_an_apostrophe(place):
    """The range is decided for the set and written; the names of folders are nobody's syntax."""
    odd = place / 'it\'s {a} "b" %s'
    for label, name in enumerate(('ant', 'bee')):
        for i in range(4):
            path = odd / 'tree' / name / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 48), 4000 * label + i, np.uint16)).save(path)
    (odd / 'tree' / 'ant' / 'phone.heic').write_text('x')
    said, args = [], arguments(place, work_dir=str(odd / 'work'))
    own = OwnData(images=str(odd / 'tree'), classes=str(odd / 'tree'), method=str(place / 'tiny.py'))
    chain = load_chain(chain_of(own, args, said.append))
    text = '\n'.join(said)
    assert 'integer files of more than 8 bits: 0 to 4003, value range 0 to 4095' in text and '.heic 1' in text
    assert chain.work_dir == odd / 'work'
    for stage in ('pretrain', 'quick_probe', 'linear', 'finetune'):
        cfg = launch.load_config(
            argparse.Namespace(config=str(chain[stage].config), cfg_options={}, launcher='none', work_dir=None,
                               seed=None, data_root=None, trust_pickle=False)
        )  # fmt: skip
        assert cfg.value_range == dict(integer=(0, 4095))
        assert cfg.train_dataloader.dataset.pipeline[0].value_range == dict(integer=(0, 4095))
    assert Config.fromfile(chain['pretrain'].config).train_dataloader.dataset.skip_list.startswith(str(odd))
    with pytest.raises(ChainError, match='cannot be read.*outside of value_range'):
        own.value_range = (0, 3000)
        chain_of(own, arguments(place, work_dir=str(odd / 'other')), said.append)


def test_what_is_written(place):
    said, args = [], arguments(place, cfg_options=['linear.train_cfg.max_epochs=3', 'detect.train_cfg.max_iters=9'])
    call = own_data.write_own_chain(Call(**args, own=everything(place)), said.append, None)
    chain = load_chain(call.chain)
    text = '\n'.join(said)
    assert 'images     12 readable of 13' in text and 'ant/broken.jpg: cannot identify image file' in text
    assert 'classes    3, 9 training and 3 validation images (0.2 of each class, divided by seed 0)' in text
    assert 'boxes      2 classes, 3 training and 1 validation images' in text and 'Faster R-CNN' in text
    assert call.cfg_options == () and call.own == OwnData(), 'they are in the chain now'
    assert [(s.name, s.kind, s.init) for s in chain.stages] == [
        ('pretrain', 'pretrain', None),
        ('quick_probe', 'probe', 'pretrain'), ('quick_probe_scratch', 'probe', None),
        ('linear', 'linear', 'pretrain'), ('linear_scratch', 'linear', None),
        ('finetune', 'finetune', 'pretrain'), ('finetune_scratch', 'finetune', None),
        ('detect', 'coco', 'pretrain'), ('detect_scratch', 'coco', None), ('report', 'report', None),
    ]  # fmt: skip
    assert chain['linear'].options == chain['linear_scratch'].options == {'train_cfg.max_epochs': 3}
    assert chain['linear'].arm == chain['quick_probe'].arm
    assert chain.work_dir == place / 'work', 'a moved work dir stays a chain'
    pretrain, linear, detect = (Config.fromfile(chain[name].config) for name in ('pretrain', 'linear', 'detect'))
    assert pretrain.train_dataloader.batch_size == 8 and pretrain.model.type == 'EMAE'
    assert linear.train_dataloader.batch_size == 9, 'shrunk from 2048 to the set'
    assert linear.model.head.num_classes == 3 and linear.model.head.in_channels == 32
    assert linear.model.backbone.frozen_stages == 4 and linear.val_evaluator.topk == (1,)
    finetune = Config.fromfile(chain['finetune'].config)
    for evaluator in (linear.val_evaluator, linear.test_evaluator, finetune.val_evaluator, finetune.test_evaluator):
        assert evaluator.type == 'mim_mm.ClassAccuracy' and evaluator.collect_device == 'gpu'
    assert linear.train_dataloader.dataset.metainfo.classes == ('ant', 'bee', 'cat')
    listed = (place / 'work' / 'configs' / 'train.txt').read_text() + (
        place / 'work' / 'configs' / 'val.txt'
    ).read_text()
    assert sorted(listed.split()[::2]) == sorted(f'{c}/{i}.png' for c in ('ant', 'bee', 'cat') for i in range(4))
    assert detect.train_dataloader.dataset.metainfo.classes == ('four', 'nine')
    assert detect.model.roi_head.bbox_head.num_classes == 2 and detect.model.roi_head.mask_head is None
    assert detect.train_cfg.max_iters == 100, '100 epochs of 3 images in one batch of 3'
    assert (place / 'work' / 'unreadable.txt').read_text().splitlines()[1].startswith('ant/broken.jpg\tcannot identify')


def test_every_stage_trains_and_tests_at_the_size_of_the_pretraining(place):
    chain = load_chain(chain_of(everything(place, boxes=None, boxes_images=None), arguments(place)))
    for stage in chain.stages[:-1]:
        cfg = Config.fromfile(stage.config)
        steps = [*cfg.train_pipeline, *cfg.get('test_pipeline', [])]
        sizes = [step.get('crop_size') or step.scale for step in steps if step.type.endswith('Crop')]
        assert sizes and set(sizes) == {32} == {cfg.model.backbone.img_size}, (stage.name, steps)


def test_a_recipe_whose_crop_is_unknown_is_refused():
    with pytest.raises(ChainError, match="'TenCrop'.*32 px"):
        own_configs._resized([dict(type='TenCrop', size=224)], 32)


def test_a_file_that_the_user_changed_is_not_overwritten(place):
    chain_of(everything(place), arguments(place))
    before = {path: path.read_bytes() for path in (place / 'work').rglob('*.*')}
    chain_of(everything(place), arguments(place))
    assert {path: path.read_bytes() for path in (place / 'work').rglob('*.*')} == before, (
        'the same call, the same files'
    )
    chain_of(everything(place, val_fraction=0.5), arguments(place))
    assert (place / 'work' / 'configs' / 'val.txt').read_bytes() != before[place / 'work' / 'configs' / 'val.txt']
    edited = place / 'work' / 'configs' / 'linear.py'
    edited.write_text(edited.read_text() + 'train_cfg = dict(max_epochs=5)\n')
    now = {path: path.read_bytes() for path in (place / 'work').rglob('*.*')}
    with pytest.raises(ChainError, match='linear.py was changed since'):
        chain_of(everything(place), arguments(place))
    assert {path: path.read_bytes() for path in (place / 'work').rglob('*.*')} == now


@pytest.mark.parametrize(
    'own, args, message',
    [
        (dict(), dict(chain='x.py'), 'not both'),
        (dict(images=None), {}, '--classes needs --images'),
        (dict(), dict(work_dir=None), '--work-dir'),
        (dict(), dict(cfg_options=['detekt.x=1']), 'with a stage of pretrain'),
        (dict(images='/no/such/folder'), {}, 'expected a folder of images'),
        (dict(max_unreadable=0.01), {}, '1 of 13 images cannot be read'),
        (dict(channels=0), {}, 'at least 1'),
        (dict(channels=4), {}, 'none of 13 images'),
        (dict(boxes_images=None), {}, '--boxes-images'),
        (dict(val_fraction=1.5), {}, 'between 0 and 1'),
        (dict(method='configs/linear/vitb_linear_90e.py', boxes='none.json'), {}, 'none.json'),
        (dict(method='configs/beit/beit_vitb_300e.py'), {}, 'pretrain.model.tokenizer_checkpoint=FILE'),
        (dict(image_size=36), {}, 'multiple of 8'),
        (dict(image_size=64, small=True), {}, 'cannot both be given'),
        (dict(method='configs/coco/mask_rcnn_fpn.py'), {}, '--method'),
    ],
)
def test_calls_that_cannot_work_write_nothing(place, own, args, message):
    with pytest.raises(ChainError, match=message):
        chain_of(everything(place, **own), arguments(place, **args))
    assert not (place / 'work').exists()


def test_a_call_without_a_chain_says_what_to_give():
    with pytest.raises(ChainError, match='give a chain config, or --images'):
        run_chain(Call())


def test_boxes_alone_in_the_folder_train_a_detector(place):
    """Two iterations of the config as written, shrunk by what a user may set with --cfg-options."""
    chain = load_chain(chain_of(everything(place, classes=None), arguments(place)))
    assert [s.name for s in chain.stages] == ['pretrain', 'detect', 'detect_scratch', 'report']
    width = 16
    cfg = small(chain['detect'].config, place / 'run', **{
        'model.backbone.img_size': 64, 'model.backbone.window_size': 2, 'model.neck.fpn.out_channels': width,
        'model.rpn_head.in_channels': width, 'model.rpn_head.feat_channels': width,
        'model.roi_head.bbox_roi_extractor.out_channels': width, 'model.roi_head.bbox_head.in_channels': width,
        'model.roi_head.bbox_head.conv_out_channels': width, 'model.roi_head.bbox_head.fc_out_channels': 32,
        'model.data_preprocessor.pad_size_divisor': 64, 'model.test_cfg.rcnn.score_thr': 0.0,
        'train_dataloader.dataset.pipeline.3.scale': (64, 64),
        'train_dataloader.dataset.pipeline.4.crop_size': (64, 64),
        'val_dataloader.dataset.pipeline.1.scale': (64, 64),
        'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.logger.interval': 1,
        'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
    })  # fmt: skip
    runner = Runner.from_cfg(cfg)
    runner.train()
    rows = scalars(place / 'run')
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == 2 and np.isfinite(losses).all() and 'coco/bbox_mAP' in rows[-1]
    assert not any('mask' in key or 'segm' in key for row in rows for key in row)
    labels = {int(v) for i in range(3) for v in runner.train_dataloader.dataset[i]['data_samples'].gt_instances.labels}
    assert labels <= {0, 1} and labels


@pytest.mark.parametrize('channels', [1, 4])
def test_other_numbers_of_channels_pretrain_and_probe(place, channels):
    for path in (place / 'tree').rglob('*.png'):
        if channels == 4:
            picture(path, (40, 48, 4), seed=len(path.name))
    own = everything(place, channels=channels, boxes=None, boxes_images=None)
    said = []
    chain = load_chain(chain_of(own, arguments(place), said.append))
    stats = dict(re.findall(r'(mean|std) +(\[.*?\])', '\n'.join(said)))
    assert len(json.loads(stats['mean'])) == channels == len(json.loads(stats['std']))
    for name in ('pretrain', 'linear', 'finetune'):
        cfg = small(chain[name].config, place / name, **{
            'train_cfg.max_epochs': 2, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
            'default_hooks.logger.interval': 1,
        })  # fmt: skip
        runner = Runner.from_cfg(cfg)
        runner.train()
        assert runner.model.backbone.patch_embed.projection.in_channels == channels
        assert runner.iter >= 1 and all(np.isfinite(row['loss']) for row in scalars(place / name) if 'loss' in row)
    if channels == 4:
        with pytest.raises(ChainError, match='1 or 3 channels'):
            chain_of(everything(place, channels=4), arguments(place))


def test_every_named_size_has_its_recipes(tmp_path):
    for method, size in (('emae_vits_300e', 'vits'), ('emae_vitb_300e', 'vitb'), ('emae_vitl_800e', 'vitl')):
        _, _, encoder = own_encoder.read_method(f'configs/emae/{method}.py')
        data = own_configs.Labelled('/x', ('a', 'b', 'c', 'd', 'e', 'f'), 5000)
        for stage in ('linear', 'finetune', 'quick_probe'):
            path = tmp_path / f'{method}_{stage}.py'
            path.write_text(own_configs.classification_text(stage, encoder, data, 3, None, 1))
            assert size in Config.fromfile(str(path)).filename or stage == 'quick_probe' or size in path.read_text()
        boxes = own_detection.Boxes('a.json', 'b.json', '/x/t', '/x/v', ('a', 'b'), True, 5000)
        path.write_text(own_detection.detection_text(encoder, boxes, 3, None, 2))
        cfg = Config.fromfile(str(path))
        assert size in path.read_text() and cfg.model.roi_head.mask_head.num_classes == 2
        # the recipe's 100 epochs: 500,000 images in steps of 2 devices x 8
        assert cfg.train_cfg.max_iters == 31250 and cfg.train_dataloader.batch_size == 8
        assert cfg.model.neck.in_channels == encoder.width


@pytest.mark.parametrize(
    'value', [1, 'a b', None, dict(a=1), dict(a=[dict(b=(1,)), 'x' * 120], c={}), [], (), {'a.b': 2}]
)
def test_literals_read_back(value):
    assert eval(own_configs.literal(value)) == value  # noqa: S307


@pytest.mark.slow
def test_from_tar_shards_to_a_probe_with_one_command(place):
    """Pretraining from a tar, linear probe and report by the tool; the second call finds all done."""
    import tarfile

    with tarfile.open(place / 'all.tar', 'w') as tar:
        tar.add(place / 'tree', 'tree')
    call = [
        sys.executable, str(ROOT / 'tools' / 'transfer.py'), '--images', 'all.tar', '--classes', 'tree',
        '--method', 'tiny.py', '--work-dir', 'out', '--gpus', '0', '--only', 'pretrain', 'linear', '--cfg-options',
        'linear.train_cfg.max_epochs=2', 'linear.train_dataloader.num_workers=0', 'linear.val_dataloader.num_workers=0',
        'linear.train_dataloader.persistent_workers=False', 'linear.val_dataloader.persistent_workers=False',
    ]  # fmt: skip
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    run = subprocess.run(call, cwd=place, env=env, text=True, capture_output=True, timeout=400)
    assert run.returncode == 0, run.stdout + run.stderr
    assert 'images     12 readable of 13 in all.tar (tar; headers read)' in run.stdout
    assert 'all.tar:tree/ant/broken.jpg: cannot identify' in run.stdout
    record = json.loads((place / 'out' / 'linear' / 'run.json').read_text())
    assert record['status'] == 'done' and 0 <= record['metrics']['accuracy/top1'] <= 100
    assert json.loads((place / 'out' / 'linear' / 'load_report.json').read_text())['fraction'] == 1.0
    log = (place / 'out' / 'pretrain' / 'chain.log').read_text()
    assert 'broken.jpg' not in log, 'it is left out, not met and passed over'
    again = subprocess.run(
        [*call[:2], 'out/chain.py', '--gpus', '0', '--dry-run'], cwd=place, env=env, text=True, capture_output=True
    )
    assert again.returncode == 0 and again.stdout.count('skip     done') == 2, again.stdout + again.stderr


# ---------------------------------------------------------------- plans, sizes, methods, steps


def test_a_dry_run_shows_the_plan_and_writes_nothing(place, capsys):
    """Stages, commands and reasons of the chain that a run would write, under the names that it would have."""
    args = arguments(place, dry_run=True, gpus=1, cfg_options=['linear.train_cfg.max_epochs=3'])
    before = sorted(place.rglob('*'))
    assert run_chain(Call(**args, own=everything(place))) == 0
    said = capsys.readouterr().out
    assert sorted(p for p in place.rglob('*') if 'cache' not in p.parts) == before
    for stage in ('pretrain', 'quick_probe', 'linear_scratch', 'finetune', 'detect', 'detect_scratch'):
        assert f'--work-dir {place}/work/{stage} ' in said and f'plan       {stage}: ' in said
    assert 'plan       pretrain: 2 epochs of 8 images a step, 32 px, from scratch' in said
    assert 'plan       linear: 3 epochs' in said
    assert 'plan       detect: 100 iterations of 3 images a step, 1024 px' in said
    assert f'config  {place}/work/configs/finetune.py' in said and '/tmp/tmp' not in said
    assert 'data: everything planned stages read is there' in said


def test_a_dry_run_of_what_is_written_plans_from_it(place):
    chain_of(everything(place), arguments(place))
    there = {path: path.read_bytes() for path in (place / 'work').rglob('*.*')}
    said = []
    same = chain_of(everything(place), arguments(place, dry_run=True), said.append, place / 'other')
    assert same == str(place / 'work' / 'chain.py') and not (place / 'other').exists()
    (place / 'work' / 'configs' / 'linear.py').write_text('changed = 1')
    chain_of(everything(place, val_fraction=0.5), arguments(place, dry_run=True), said.append, place / 'other')
    assert any('linear.py since it was written' in line for line in said)
    assert any('would write' in line and 'configs/val.txt' in line and 'chain.py' not in line for line in said)
    del there[place / 'work' / 'configs' / 'linear.py']
    assert all(path.read_bytes() == content for path, content in there.items())


def test_without_the_runs_from_scratch(place):
    chain = load_chain(chain_of(everything(place, no_scratch=True), arguments(place)))
    assert [s.arm for s in chain.stages] == ['pretrained'] * 5 + ['']


def test_the_twin_from_scratch_has_one_rate_for_all_blocks(place):
    """A rate that falls from block to block spares what is learnt already; of a random encoder it spares nothing."""
    args = arguments(place, cfg_options=['finetune_scratch.train_cfg.max_epochs=7', 'finetune.train_cfg.max_epochs=5'])
    chain = load_chain(chain_of(everything(place), args))
    assert chain['finetune_scratch'].options == {
        'optim_wrapper.paramwise_cfg.layer_decay_rate': 1.0, 'train_cfg.max_epochs': 7
    }  # fmt: skip
    assert chain['finetune_scratch'].config == chain['finetune'].config
    assert chain['finetune'].options == {'train_cfg.max_epochs': 5} and not chain['detect_scratch'].options


@pytest.mark.parametrize('options, size', [(dict(image_size=64), 64), (dict(small=True), 16)])
def test_one_size_shrinks_every_stage(place, options, size):
    """The detector too: 1024 px belong to 224, and a side is a whole number of windows of 16 tokens of 8 px."""
    chain = load_chain(chain_of(everything(place, **options), arguments(place)))
    side = max(1, round(1024 * (size / 32) / 128)) * 128
    for stage in chain.stages[:-1]:
        cfg = Config.fromfile(stage.config)
        steps = [*cfg.train_pipeline, *cfg.get('test_pipeline', [])]
        sizes = {repr(step.get('crop_size') or step.scale) for step in steps if step.type.endswith('Crop')}
        if stage.kind == 'coco':
            assert sizes == {f'({side}, {side})'} and cfg.model.backbone.img_size == side
            assert cfg.model.data_preprocessor.pad_size_divisor == side and cfg.test_pipeline[1].scale == (side, side)
            assert cfg.model.backbone.pretrain_img_size == size
        else:
            assert sizes == {str(size)} and cfg.model.backbone.img_size == size, stage.name


@pytest.mark.parametrize('count, gpus', [(9, 1), (100, 1), (600, 1), (600, 4), (5000, 2), (100_000, 1), (1_281_167, 8)])
@pytest.mark.parametrize('stage', ['linear', 'finetune'])
def test_at_least_500_steps(tmp_path, stage, count, gpus):
    _, _, encoder = own_encoder.read_method('configs/emae/emae_vitb_300e.py')
    data = own_configs.Labelled('/x', tuple('abcdef'), count)
    path = tmp_path / 'stage.py'
    path.write_text(own_configs.classification_text(stage, encoder, data, 3, None, gpus))
    cfg, recipe = Config.fromfile(str(path)), Config.fromfile(f'configs/{encoder.recipes()[stage]}.py')
    batch, epochs = cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs
    assert epochs * max(1, count // (batch * gpus)) >= 500 and batch <= max(1, count // gpus)
    share, published = (
        [s.get('end', s.get('begin')) / c.train_cfg.max_epochs for s in c.param_scheduler] for c in (cfg, recipe)
    )
    assert share == pytest.approx(published, abs=0.01)
    if count > 1_000_000:
        assert (batch, epochs) == (recipe.train_dataloader.batch_size, recipe.train_cfg.max_epochs)


FOLDERS = 'mae emae sbam amr simmim beit cae cmae bootmae ijepa data2vec convnets'.split()
METHODS = [path for folder in FOLDERS for path in sorted((ROOT / 'configs' / folder).glob('*.py'))]


@pytest.mark.parametrize('path', METHODS, ids=lambda path: path.stem)
def test_every_method_of_ours_writes_its_stages(path, tmp_path):
    """Texts alone: each has an encoder of known width, and stages whose recipes are there."""
    base, method, encoder = own_encoder.read_method(str(path))
    assert encoder.width and encoder.depth and encoder.recipes()
    where = dict(data_root='/x', source='folder')
    texts = [own_configs.pretrain_text(base, method, encoder, 3, None, where, 8, 100, 1)]
    data = own_configs.Labelled('/x', tuple('abcdef'), 5000)
    boxes = own_detection.Boxes('a.json', 'b.json', '/x/t', '/x/v', ('a', 'b'), True, 5000)
    pairs = (('images/a.jpg', 'masks/a.png'),) * 8
    masks = mask_files.MaskSet('/x', ('a', 'b'), (0, 1), (255,), pairs, pairs, ())
    for stage in encoder.recipes():
        if stage == 'detect':
            texts.append(own_detection.detection_text(encoder, boxes, 3, None, 1))
        elif stage == 'segment':
            texts.append(own_segmentation.segmentation_text(encoder, masks, 3, None, 1))
        else:
            texts.append(own_configs.classification_text(stage, encoder, data, 3, None, 1))
    cfgs = []
    for i, text in enumerate(texts):
        (tmp_path / f'{i}.py').write_text(text)
        cfgs.append(Config.fromfile(str(tmp_path / f'{i}.py')))
    pretrain = cfgs[0]
    assert not pretrain.get('strategy') and not pretrain.get('runner_type'), 'one process has nobody to share with'
    assert pretrain.get('optim_wrapper', {}).get('accumulative_counts', 1) * 8 <= 100


@pytest.mark.parametrize('size', [224, 112])
def test_views_keep_their_proportions_at_another_size(size):
    def pipeline(name):
        return Config.fromfile(ROOT / f'configs/_base_/datasets/{name}.py').train_pipeline

    crop, _, shifted, _ = own_configs._resized(pipeline('imagenet_shifted_views'), size)[1:]
    assert (crop['scale'], shifted['size']) == (256 * size // 224, size)
    assert [view['shift'] for view in shifted['views']] == [0, 31 * size // 224]
    views = own_configs._resized(pipeline('imagenet_multi_crop'), size)[1]['views']
    assert [view['scale'] for view in views] == [size, size, 96 if size == 224 else 48]


TINY_VIT = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
TINY_SWIN = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
TINY_HIVIT = dict(embed_dims=64, depths=[1, 1, 4], num_heads=2)
TINY_CONVNEXT = dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])
FAMILIES = {
    'convnets/emae_convnextt_300e': (TINY_CONVNEXT, 64, {'decoder': dict(embed_dims=32, depth=1, num_heads=2)}),
    'simmim/simmim_vitb_800e': (TINY_VIT, 64, {}),
    'simmim/simmim_swinb_800e': (TINY_SWIN, 192, {}),
    'emae/emae_hivitb_300e': (TINY_HIVIT, 64, {'decoder': dict(embed_dims=32, depth=1, num_heads=2)}),
}


@pytest.mark.parametrize('name', FAMILIES)
def test_the_stages_of_each_family_take_the_encoder(place, name):
    """Each stage's model is built as written, and the pretrained encoder loads into it; one step of the pretraining."""
    from mmengine.registry import init_default_scope

    from mim_mm.checkpoint.load import load_encoder
    from mim_mm.registry import MODELS

    arch, size, more = FAMILIES[name]
    (place / 'tiny.py').write_text(
        f"_base_ = r'{ROOT}/configs/{name}.py'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{arch!r})), **{more!r})\n'
        'train_dataloader = dict(batch_size=4)\ndefault_hooks = dict(checkpoint=dict(interval=1))\n'
    )
    own = everything(place, no_scratch=True, image_size=size)
    chain = load_chain(chain_of(own, arguments(place)))
    cfg = small(chain['pretrain'].config, place / 'pre', **{'train_cfg.max_epochs': 1})
    schedule.fit_schedule(cfg)
    Runner.from_cfg(cfg).train()
    assert {s.kind for s in chain.stages} >= {'pretrain', 'coco' if 'simmim_vit' not in name else 'linear'}
    for stage in chain.stages[1:-1]:
        cfg = Config.fromfile(stage.config)
        init_default_scope(cfg.default_scope)
        preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
        model = MODELS.build(dict(cfg.model, data_preprocessor=preprocessor))
        hook = cfg.custom_hooks[0]
        load_encoder(model.backbone, str(place / 'pre' / 'epoch_1.pth'), **{
            k: v for k, v in hook.items() if k in ('prefix', 'min_loaded', 'rename', 'resample_patches')
        })  # fmt: skip
