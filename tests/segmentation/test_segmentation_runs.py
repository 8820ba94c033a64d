"""The segmentation recipes on small data, unchanged but for sizes, durations and roots; and resumed runs of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import mim_mm  # noqa: F401  (before anything that wants mmcv's compiled operations)

pytest.importorskip('mmseg', reason='the extra [seg]')

from built_recipes import load
from downstream import metrics_of, pretraining_checkpoint, small
from mmengine.runner import Runner

from mim_mm.cost.count import count
from mim_mm.evaluation.pictures.segments import segment_scenes
from mim_mm.folders import DataError
from mim_mm.report.figures_segments import draw_segments

HEADS = {'model.decode_head.num_classes': 3}
PAIRS = dict(_delete_=True, type='mim_mm.MaskPairs', metainfo=dict(classes=('ground', 'left', 'right')))
LOAD = dict(_delete_=True, type='mim_mm.LoadMask', values=(0, 4, 9))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Six images of 48 x 60 whose left and right thirds are classes 4 and 9, with a column that is not labelled."""
    root = tmp_path_factory.mktemp('masks')
    rng = np.random.default_rng(0)
    for index in range(6):
        pixels, numbers = rng.integers(0, 60, (48, 60, 3), dtype=np.uint8), np.zeros((48, 60), np.uint8)
        numbers[:, :20], numbers[:, 40:], numbers[:, 30] = 4, 9, 255
        pixels[:, :20] += 90
        pixels[:, 40:] += 190
        Image.fromarray(pixels).save(root / f'{index}.png')
        Image.fromarray(numbers).save(root / f'{index}_mask.png')
    for part, places in (('train', range(4)), ('val', range(4, 6))):
        (root / f'{part}.txt').write_text(''.join(f'{i}.png\t{i}_mask.png\n' for i in places))
    return root


def config(name, work_dir, root, tmp_path, **options):
    """The recipe for images of 32 px: ``name`` below configs/seg."""
    checkpoint = tmp_path / 'epoch_1.pth'
    if not checkpoint.exists():
        pretraining_checkpoint(checkpoint)
    cfg = load(f'seg/{name}.py')
    width, side = 32, (32, 32)
    heads = {'model.decode_head.in_channels': [width] * 4}
    if name.startswith('linear'):
        heads |= {'model.blocks': (0, 1, 2, 3), 'model.decode_head.channels': 4 * width}
    else:
        heads |= {
            'model.neck.embed_dim': width, 'model.decode_head.channels': 16, 'model.auxiliary_head.in_channels': width,
            'model.auxiliary_head.channels': 16, 'model.auxiliary_head.num_classes': 3,
            'model.backbone.out_indices': (0, 1, 2, 3),
        }  # fmt: skip
    for part, pipeline in (('train', 'train_pipeline'), ('val', 'test_pipeline')):
        steps = cfg[pipeline]
        for step in steps:
            if 'scale' in step:
                step['scale'] = (128, 32)
            if 'crop_size' in step:
                step['crop_size'] = side
        steps = [LOAD | {} if s['type'] == 'LoadAnnotations' else s for s in steps]
        for step in steps:
            step.pop('_delete_', None)
        options[f'{part}_dataloader.dataset'] = dict(
            PAIRS, data_root=str(root), ann_file=f'{part}.txt', pipeline=steps, test_mode=part == 'val'
        )
    settings = {
        **HEADS, **heads, 'model.backbone.img_size': 32, 'init': str(checkpoint),
        'model.data_preprocessor.size': side, 'model.data_preprocessor.test_cfg.size': side,
        'model.test_cfg.crop_size': side, 'model.test_cfg.stride': (21, 21), 'train_dataloader.batch_size': 2,
        'train_cfg.max_iters': 4, 'train_cfg.val_interval': 4, 'param_scheduler.0.end': 2,
        'param_scheduler.1.begin': 2, 'default_hooks.logger.interval': 1, 'default_hooks.checkpoint.interval': 2,
    }  # fmt: skip
    return small(cfg, work_dir, **{**settings, **options})


@pytest.mark.parametrize('name', ['upernet_vitb_160k', 'upernet_vitb_ibot_160k', 'linear_vitb_160k'])
def test_a_recipe_trains_evaluates_and_draws(name, root, tmp_path):
    cfg = config(name, tmp_path / 'run', root, tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 4
    rows = metrics_of(tmp_path / 'run')
    assert all(np.isfinite(row['loss']) for row in rows if 'loss' in row)
    assert 0 <= rows[-1]['mIoU'] <= 100 and {'mAcc', 'aAcc'} <= set(rows[-1])
    report = json.loads((tmp_path / 'run' / 'load_report.json').read_text())
    assert report['fraction'] == 1.0 and not report['random'] and 'pos_embed' not in report['random']
    started = torch.load(tmp_path / 'epoch_1.pth')['state_dict']['backbone.layers.0.attn.qkv.weight']
    trained = runner.model.backbone.layers[0].attn.qkv.weight
    assert torch.equal(trained, started) == name.startswith('linear')
    # Half way from the peak down the line from 1 at 0 to 0 at 4, in the last iteration.
    peak = cfg.optim_wrapper.optimizer.lr
    assert max(g['lr'] for g in runner.optim_wrapper.param_groups) == pytest.approx(peak / 4)

    dumped = tmp_path / 'config.py'
    cfg.dump(dumped)
    result = segment_scenes(dumped, tmp_path / 'run' / 'iter_4.pth', limit=2)
    assert [s['found'].shape for s in result['scenes']] == [(48, 60)] * 2
    assert set(np.unique(result['scenes'][0]['truth'])) == {0, 1, 2, 255}
    assert result['classes'] == ['ground', 'left', 'right']
    assert draw_segments(result, tmp_path / 'p.png').stat().st_size > 5000
    with pytest.raises(ValueError, match='is not in the test set'):
        segment_scenes(dumped, tmp_path / 'run' / 'iter_4.pth', ['0.png'])


def test_a_resumed_run_is_the_run_that_was_not_interrupted(root, tmp_path):
    whole = Runner.from_cfg(config('upernet_vitb_160k', tmp_path / 'whole', root, tmp_path))
    whole.train()
    cfg = config('upernet_vitb_160k', tmp_path / 'resumed', root, tmp_path)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'whole' / 'iter_2.pth')
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    ours = resumed.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in whole.model.state_dict().items())


@pytest.mark.parametrize('name', ['upernet_vitb_160k', 'linear_vitb_160k'])
def test_other_classes_than_the_data_stop_before_training(name, root, tmp_path):
    options = {'model.decode_head.num_classes': 150}
    if name.startswith('upernet'):
        options['model.auxiliary_head.num_classes'] = 150
    runner = Runner.from_cfg(config(name, tmp_path / 'run', root, tmp_path, **options))
    with pytest.raises(DataError, match=r'MaskPairs has 3 classes, decode_head 150.*decode_head.num_classes=3'):
        runner.train()


def test_a_bad_step_is_left_out(root, tmp_path):
    """A loss that is not finite: the step is not taken, and the run goes on."""
    runner = Runner.from_cfg(config('upernet_vitb_160k', tmp_path / 'run', root, tmp_path))
    head, calls = runner.model.decode_head, []
    plain = head.loss_by_feat

    def spoilt(*args):
        losses = plain(*args)
        calls.append(1)
        return losses | {'loss_ce': losses['loss_ce'] * float('nan')} if len(calls) == 2 else losses

    head.loss_by_feat = spoilt
    runner.train()
    assert runner.iter == 4
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


def test_cost_of_one_image():
    """UperNet on ViT-B at 512 px: the encoder's matrix products counted by hand, and all parameters."""
    cfg = load('seg/upernet_vitb_160k.py').to_dict()
    work = count(cfg)
    assert work.kind == 'seg' and work.size == (512, 512)
    assert work.params == pytest.approx(163.87e6, rel=1e-3)
    tokens, width = 1025, 768
    products = 12 * 2 * tokens * (12 * width**2 + 2 * tokens * width) + 2 * 1024 * width * 768
    encoder = sum(part.forward for part in work.parts if part.name.startswith('backbone'))
    assert encoder == pytest.approx(products, rel=0.02)
    assert count(load('seg/linear_vitb_160k.py').to_dict()).kind == 'seg_linear'
