"""benchmark.py coco and probe: what is added up, what is counted, and that both run."""

import argparse
import json
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image

from mim_mm.benchmarks import coco, detector, probe, synthetic_coco
from mim_mm.evaluation.frozen.features import Preprocess

CPU = torch.device('cpu')


def options(module, *given):
    parser = argparse.ArgumentParser()
    module.arguments(parser)
    return parser.parse_args([*given, '--device', 'cpu'])


@pytest.fixture(scope='module')
def tiny():
    cfg = detector.recipe(detector.RECIPE, 'tiny', 64)
    cfg.model.neck.fpn.out_channels = 16
    cfg.model.rpn_head.update(in_channels=16, feat_channels=16)
    heads = cfg.model.roi_head
    heads.bbox_roi_extractor.out_channels = heads.mask_roi_extractor.out_channels = 16
    heads.bbox_head.update(in_channels=16, conv_out_channels=16, fc_out_channels=32)
    heads.mask_head.update(in_channels=16, conv_out_channels=16)
    return cfg


# ---------------------------------------------------------------- the ledger


def test_a_part_inside_another_counts_for_itself_alone():
    ticks = count()
    ledger = detector.Ledger(lambda: float(next(ticks)))  # every look at the clock takes 1
    with ledger.part('outer'):  # 0
        with ledger.part('inner'):  # 1 to 2
            pass
        with ledger.part('inner'):  # 3 to 6
            with ledger.part('innermost'):  # 4 to 5
                pass
    # 7
    assert ledger.total == {'outer': 7 - 1 - 3, 'inner': 1 + 2, 'innermost': 1}


def test_an_error_leaves_the_model_as_it_was(tiny):
    model, _ = detector.build(tiny, CPU)
    ledger = detector.Ledger(lambda: 0.0)
    with pytest.raises(RuntimeError), ledger.watching(model):
        assert 'forward' in vars(model.backbone)
        raise RuntimeError
    owners = [model.get_submodule(path.rsplit('.', 1)[0]) for path in detector.PARTS.values()]
    assert not any({'forward', 'loss', 'bbox_loss', 'mask_loss', 'loss_and_predict'} & set(vars(o)) for o in owners)


# ---------------------------------------------------------------- the detector's step


def test_watching_changes_no_loss(tiny):
    losses = []
    for watched in (False, True):
        torch.manual_seed(0)
        model, wrapper = detector.build(tiny, CPU)
        data = detector.batch(2, 64, 80)
        ledger = detector.Ledger(lambda: 0.0)
        torch.manual_seed(1)
        if watched:
            with ledger.watching(model):
                losses.append(detector.step(model, wrapper, data, ledger))
        else:
            losses.append(detector.step(model, wrapper, data))
    assert losses[0] == losses[1] and set(ledger.total) == {*detector.PARTS, 'backward', 'optimizer', 'other'}


def test_flops_of_the_parts_are_those_of_their_layers(tiny):
    result = detector.account(tiny, 2, 64, CPU, 1, lambda text: None)
    flops, tokens = result['flops'], 2 * (64 // 16) ** 2
    layer = 4 * 32 * 32 + 2 * 32 * 64  # qkv, projection and the two of the FFN: multiplications a token
    linears = 2 * tokens * (4 * layer + 3 * 16 * 16 * 32)
    attention = 4 * 2 * 2 * tokens * 16 * 32  # 4 layers, scores and values, one window of 16 tokens
    assert linears <= flops['backbone'] <= linears + 2 * attention
    assert flops['box head'] > 0 and flops['mask head'] > 0 and flops['neck'] > 0 and flops['rpn'] > 0
    assert flops['preprocessing'] == flops['optimizer'] == flops['assign, sample'] == flops['other'] == 0
    forward = sum(flops[name] for name in ('neck', 'rpn', 'box head', 'mask head'))
    assert forward < flops['backward'] < 2.2 * (forward + flops['backbone'])
    assert all(value > 0 for value in result['seconds'].values()) and result['images_s'] == 2 / result['step']
    assert torch.is_grad_enabled()


def test_the_offender_is_the_part_with_most_time_beyond_its_work():
    result = dict(seconds=dict(a=3.0, b=2.0, c=0.5), flops=dict(a=25.0, b=1.0, c=0))
    assert coco.offender(result, 10.0) == ('b', pytest.approx(1.9))


def test_recipe_at_another_size(tmp_path):
    cfg = detector.recipe(detector.RECIPE, 'small', 256)
    assert cfg.model.backbone.img_size == 256 and cfg.model.neck.in_channels == 384
    resize, crop = (s for s in cfg.train_dataloader.dataset.pipeline if s['type'] in ('RandomResize', 'RandomCrop'))
    assert resize['scale'] == (256, 256) and crop['crop_size'] == (256, 256)
    assert detector.recipe(detector.RECIPE, None, 1024).model.backbone.arch == 'base'
    with pytest.raises(FileNotFoundError, match='laid out as COCO'):
        detector.recipe(detector.RECIPE, None, 1024, tmp_path)


# ---------------------------------------------------------------- synthetic detections


def test_synthetic_detections_have_all_cases_and_a_seed():
    truth = synthetic_coco.annotations(40, 5)
    per_image = np.bincount([a['image_id'] for a in truth['annotations']], minlength=41)[1:]
    areas = np.array([a['area'] for a in truth['annotations']])
    assert (per_image == 0).any() and per_image.max() > 10 and any(a['iscrowd'] for a in truth['annotations'])
    assert (areas < 32**2).any() and (areas > 96**2).any()
    assert truth == synthetic_coco.annotations(40, 5) != synthetic_coco.annotations(40, 5, seed=1)
    sample = synthetic_coco.predictions(synthetic_coco.annotations(1, 5), 30)[0]
    found = sample['pred_instances']
    assert found['masks'].shape == (30, 480, 640) and found['masks'].any(2).any(1).all()
    x1, y1, x2, y2 = found['bboxes'].unbind(1)
    box = ((x2 - x1) * (y2 - y1)).clamp(min=400)
    assert (found['masks'].sum((1, 2)) < 1.1 * box).all()


# ---------------------------------------------------------------- the commands


def coco_folder(root):
    truth = synthetic_coco.annotations(3, 2, size=(60, 80))
    for category, name in zip(truth['categories'], ('person', 'bicycle')):
        category['name'] = name
    (root / 'annotations').mkdir()
    (root / 'train2017').mkdir()
    for image in truth['images']:
        Image.new('RGB', (80, 60), (90, 60, image['id'])).save(root / 'train2017' / image['file_name'])
    (root / 'annotations/instances_train2017.json').write_text(json.dumps(truth))
    return root


def test_coco_measures_evaluation(capsys):
    given = options(coco, '--images', '3', '--rounds', '1', '--batch', '0')
    result = coco.execute(given, lambda text: None)
    rows = {row['name']: row for row in result['evaluation']['rows']}
    assert rows['in memory, arrays']['exact'] == 0 and rows['in memory, arrays']['difference'] == 0
    assert 'in memory, pycocotools' in result['text'] and 'step' not in result
    json.dumps({key: value for key, value in result.items()})
    assert not capsys.readouterr().out.count('Average Precision'), "pycocotools' own printing stays out of the table"


@pytest.mark.slow
def test_training_falls_on_a_coco_folder(tiny, tmp_path):
    cfg = tiny.copy()
    loader = detector.recipe(detector.RECIPE, 'tiny', 64, coco_folder(tmp_path)).train_dataloader
    cfg.train_dataloader = loader
    said = []
    result = detector.train(cfg, 8, 2, CPU, 0, 1e-3, said.append)
    assert len(result['losses']) == 8 and result['losses'][-1] < result['losses'][0] and result['images_s'] > 0
    assert 0 <= result['waited'] <= 1 and len(said) == 8
    assert coco.train_table(result).splitlines()[-2].count('|') == 9


def test_what_coco_refuses():
    with pytest.raises(ValueError, match='--train 5 needs --data'):
        coco.execute(options(coco, '--train', '5'), print)
    with pytest.raises(ValueError, match='0 or more'):
        coco.execute(options(coco, '--images', '-1'), print)


def test_probe_measures_all(tmp_path):
    for number in range(3):
        Image.new('RGB', (50, 40), (number, 9, 9)).save(tmp_path / f'{number}.jpg')
    arch = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
    given = options(probe, '--size', '32', '--batch', '4', '--classes', '3', '--bank', '50', '--rounds', '1',
                    '--images', str(tmp_path), '--workers', '0')  # fmt: skip
    given.arch = arch
    result = probe.execute(given, lambda text: None)
    assert [row['name'] for row in result['rows']] == [
        'bare forward', 'features for k-NN', 'quick probe, 156 heads, training', 'quick probe, 156 heads, evaluation',
        'k-NN search, bank of 50', 'features of image files',
    ]  # fmt: skip
    assert all(row['seconds'] > 0 and row['ratio'] > 0 for row in result['rows'])
    assert result['rows'][0]['ratio'] == 1 and result['text'].count('\n') == 9


def test_probe_reads_files_as_evaluation_does(tmp_path):
    from mim_mm.evaluation.frozen.features import FolderImages

    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    (tmp_path / 'val' / 'cat').mkdir(parents=True)
    path = tmp_path / 'val' / 'cat' / '1.png'
    Image.fromarray(pixels).save(path)
    preprocess = Preprocess(resize=40, crop=32)
    (mine, _), (wanted, _) = probe.Labelled([str(path)], preprocess)[0], FolderImages(tmp_path, 'val', preprocess)[0]
    assert torch.equal(mine, wanted)
