"""COCO figures from arrays against pycocotools itself: crowds, empty images, ties, area ranges, maxDets, odd ids."""

import contextlib
import copy
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric
from mmengine.config import Config
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mim_mm.benchmarks.synthetic_coco import annotations, predictions
from mim_mm.detection.coco_eval import ArrayCOCOeval, Detections, Truth
from mim_mm.detection.metric import InMemoryCocoMetric
from mim_mm.detection.rle import changes_on_device, encode_masks
from mim_mm.registry import METRICS

SIZE = (60, 81)


def quiet(call, *args):
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*args)


def coco(truth):
    api = COCO()
    api.dataset = copy.deepcopy(truth)
    quiet(api.createIndex)
    return api


def random_truth(rng, images=14, classes=4):
    """Objects of 1 to 60 px, a third crowds, all on the first images: the others have none."""
    truth = annotations(images, classes, seed=int(rng.integers(1000)), size=SIZE)
    for a in truth['annotations']:
        a['area'] = float(rng.choice([10, 500, 1024, 5000, 9216, 20000]))  # on the borders of the ranges, too
        if a['image_id'] > images - 3:
            a['image_id'] = 1
        if rng.random() < 0.3:
            x, y, w, h = (int(v) for v in a['bbox'])
            mask = np.zeros(SIZE, np.uint8, order='F')
            mask[y : y + h + 1, x : x + w + 1] = 1
            a['iscrowd'], a['segmentation'] = 1, mask_utils.encode(mask)
    return truth


def random_detections(rng, truth, count=150, levels=6):
    """Copies of the annotations, moved or not, and noise; scores of few levels, so that many are equal."""
    found = []
    for _ in range(count):
        a = truth['annotations'][rng.integers(len(truth['annotations']))]
        image = a['image_id'] if rng.random() < 0.8 else int(rng.integers(1, 15))
        box = np.array(a['bbox']) + (rng.random() < 0.7) * rng.normal(0, 3, 4)
        box[2:] = np.abs(box[2:]) + 1
        box = box.astype(np.float32).astype(float)
        x, y, w, h = box
        mask = np.zeros(SIZE, np.uint8, order='F')
        mask[max(0, int(y)) : int(y + h) + 1, max(0, int(x)) : int(x + w) + 1] = 1
        label = a['category_id'] if rng.random() < 0.8 else int(rng.integers(1, 5))
        found.append((image, label, float(rng.integers(levels)) / levels, box.tolist(), mask_utils.encode(mask)))
    return found


def by_pycocotools(truth, found, kind, **params):
    api, key = coco(truth), dict(bbox=3, segm=4)[kind]
    name = dict(bbox='bbox', segm='segmentation')[kind]
    entries = [{'image_id': f[0], 'category_id': f[1], 'score': f[2], name: copy.deepcopy(f[key])} for f in found]
    return finished(COCOeval(api, quiet(api.loadRes, entries), kind), params)


def by_arrays(truth, found, kind, **params):
    images, labels, scores, boxes, masks = (list(column) for column in zip(*found))
    detections = Detections(np.array(images), np.array(labels), np.array(scores), np.array(boxes), masks)
    return finished(ArrayCOCOeval(coco(truth), detections, kind), params)


def finished(evaluation, params):
    for name, value in params.items():
        setattr(evaluation.params, name, value)
    for call in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        quiet(call)
    return evaluation


def assert_equal(mine, reference):
    for name in ('precision', 'recall', 'scores'):
        np.testing.assert_array_equal(mine.eval[name], reference.eval[name], name)
    assert mine.eval['counts'] == reference.eval['counts']
    np.testing.assert_allclose(mine.stats, reference.stats, rtol=0, atol=1e-12)


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('seed', range(6))
def test_every_number_is_that_of_pycocotools(kind, seed):
    rng = np.random.default_rng(seed)
    truth = random_truth(rng)
    found = random_detections(rng, truth)
    assert len({f[2] for f in found}) <= 6, 'there are ties'
    reference = by_pycocotools(truth, found, kind)
    assert_equal(by_arrays(truth, found, kind), reference)
    assert len(reference.stats) == 12 and 0 < reference.stats[0] < 1 and len(set(reference.stats[3:6])) > 1


@pytest.mark.parametrize(
    'params',
    [
        dict(maxDets=[1, 3, 100]),
        dict(maxDets=[100, 300, 1000]),
        dict(maxDets=[2, 1, 3]),
        dict(iouThrs=np.array([0.3, 0.5, 1.0])),
        dict(catIds=[3, 1]),
        dict(imgIds=[2, 1, 4, 5, 5]),
        dict(areaRng=[[0, 1e10], [0, 500], [500, 9216], [9216, 1e10]], areaRngLbl=['all', 'small', 'medium', 'large']),
    ],
)
def test_parameters_act_as_in_pycocotools(params):
    rng = np.random.default_rng(7)
    truth = random_truth(rng)
    found = random_detections(rng, truth, count=300)
    for kind in ('bbox', 'segm'):
        assert_equal(by_arrays(truth, found, kind, **params), by_pycocotools(truth, found, kind, **params))


def test_an_annotation_with_id_0_counts_as_in_pycocotools():
    truth = random_truth(np.random.default_rng(2))
    truth['annotations'][0]['id'] = 0
    found = [(a['image_id'], a['category_id'], 0.5, a['bbox'], None) for a in truth['annotations']]
    assert_equal(by_arrays(truth, found, 'bbox'), by_pycocotools(truth, found, 'bbox'))


def test_two_annotations_of_one_overlap_by_hand():
    box = [0, 0, 40, 40]
    truth = annotations(1, 1, size=SIZE)
    plain = dict(image_id=1, category_id=1, bbox=box, area=1600)
    truth['annotations'] = [dict(plain, id=1, iscrowd=0), dict(plain, id=2, iscrowd=1)]
    # The first takes the object, the other two fall to the crowd and count neither way; the last is wrong.
    found = [(1, 1, 0.9, box, None), (1, 1, 0.8, box, None), (1, 1, 0.7, box, None), (1, 1, 0.6, [50, 0, 9, 9], None)]
    mine = by_arrays(truth, found, 'bbox')
    assert mine.matched[0, 0].tolist() == [True, True, True, False]
    assert mine.ignored[0, 0].tolist() == [False, True, True, False]
    assert mine.stats[0] == pytest.approx(1.0)


def test_nothing_found_in_a_category_and_nothing_to_find():
    truth = random_truth(np.random.default_rng(3))
    truth['annotations'] = [a for a in truth['annotations'] if a['category_id'] != 2]
    found = [f for f in random_detections(np.random.default_rng(3), truth) if f[1] != 3]
    for kind in ('bbox', 'segm'):
        mine = by_arrays(truth, found, kind)
        assert_equal(mine, by_pycocotools(truth, found, kind))
        assert (mine.eval['precision'][:, :, 1] == -1).all() and (mine.eval['recall'][:, 2, 0] == 0).all()


def test_truth_can_be_used_again_and_is_not_changed():
    rng = np.random.default_rng(5)
    truth = random_truth(rng)
    found = random_detections(rng, truth)
    api = coco(truth)
    before = copy.deepcopy(api.dataset)
    kept = Truth.from_coco(api, sorted(api.imgs), sorted(api.cats), 'segm')
    images, labels, scores, _, masks = (list(column) for column in zip(*found))
    detections = Detections(np.array(images), np.array(labels), np.array(scores), masks=masks)
    for _ in range(2):
        mine = finished(ArrayCOCOeval(api, detections, 'segm', kept), {})
        assert_equal(mine, by_pycocotools(truth, found, 'segm'))
    assert api.dataset == before


def test_what_is_refused():
    api = coco(annotations(2, 2, size=SIZE))
    one = Detections(np.array([1]), np.array([1]), np.array([0.5]), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="kind='keypoints'"):
        ArrayCOCOeval(api, one, 'keypoints')
    with pytest.raises(ValueError, match='segm needs masks'):
        ArrayCOCOeval(api, one, 'segm')
    evaluation = ArrayCOCOeval(api, one, 'bbox')
    evaluation.params.useCats = 0
    with pytest.raises(ValueError, match='useCats=0'):
        evaluation.evaluate()
    with pytest.raises(ValueError, match='set them before'):
        evaluation.accumulate(evaluation.params)


# ---------------------------------------------------------------- masks


def odd_masks():
    rng = np.random.default_rng(0)
    masks = np.zeros((40, 13, 17), bool)
    masks[1] = True
    masks[2, 0, 0] = masks[3, -1, -1] = masks[4, 5, 6] = True
    masks[5, :, 4:9] = True  # whole columns: one run through all of them
    masks[6, 2:7] = True
    masks[7, ::2], masks[8, :, ::2], masks[9, ::2, ::2] = True, True, True
    masks[10, 0], masks[11, -1], masks[12, :, 0], masks[13, :, -1] = True, True, True, True
    masks[14, -1, 3] = masks[14, 0, 4] = True  # ends a column and starts the next
    masks[15:30] = rng.random((15, 13, 17)) < 0.5
    masks[30:40, 3:9, 5:14] = rng.random((10, 6, 9)) < 0.8
    return masks


def by_pycocotools_encoded(masks):
    return [mask_utils.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


@pytest.mark.parametrize('kind', [np.asarray, torch.tensor, lambda m: m.astype(np.uint8) * 7])
def test_masks_are_encoded_byte_for_byte(kind):
    masks = odd_masks()
    assert encode_masks(kind(masks)) == by_pycocotools_encoded(masks)
    large = np.random.default_rng(1).random((3, 480, 640)) < 0.001  # runs of several letters
    large[1, 100:300, 50:600] = True
    assert encode_masks(kind(large)) == by_pycocotools_encoded(large)
    assert encode_masks(kind(masks[:0])) == []


def test_the_way_of_a_gpu_finds_the_same_changes():
    masks = torch.tensor(odd_masks())
    places, runs = changes_on_device(masks)
    for mask, own in zip(masks, np.split(places, np.cumsum(runs)[:-1])):
        column_major = [0, *mask.T.reshape(-1).int().tolist()]
        assert own.tolist() == [i for i, (a, b) in enumerate(zip(column_major, column_major[1:])) if a != b]
    with pytest.raises(ValueError, match=r'shape \(13, 17\)'):
        encode_masks(masks[0])


# ---------------------------------------------------------------- the metric


@pytest.fixture
def data(tmp_path):
    truth = annotations(6, 3, seed=1, size=SIZE)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    return truth, str(path), predictions(truth, 20)


def evaluate(kind, path, samples, metric=('bbox', 'segm'), **options):
    made = kind(path, list(metric), **options)
    made.dataset_meta = dict(classes=['class 1', 'class 2', 'class 3'])
    made.process({}, samples)
    return made, quiet(made.compute_metrics, made.results)


@pytest.mark.parametrize('evaluator', ['pycocotools', 'arrays'])
@pytest.mark.parametrize('options', [{}, dict(metric_items=['mAP_75', 'AR_s@1000']), dict(proposal_nums=(1, 10, 100))])
def test_the_metric_has_mmdets_keys_and_figures(data, evaluator, options):
    _, path, samples = data
    _, wanted = evaluate(CocoMetric, path, samples, **options)
    metric, found = evaluate(InMemoryCocoMetric, path, samples, evaluator=evaluator, **options)
    assert dict(found) == dict(wanted) and list(found) == list(wanted)
    assert any(0 < value < 1 for value in wanted.values())
    assert {kind: len(stats) for kind, stats in metric.stats.items()} == dict(bbox=12, segm=12)
    again = quiet(metric.compute_metrics, metric.results)
    assert dict(again) == dict(wanted), 'the next epoch, on annotations that are kept'


def test_a_recipe_takes_it_by_name(data):
    cfg = Config.fromfile(Path(__file__).resolve().parents[2] / 'configs/coco/mask_rcnn_vitb_simple_lsj_100e.py')
    cfg.val_evaluator.merge(dict(type='mim_mm.InMemoryCocoMetric', evaluator='arrays', ann_file=data[1]))
    metric = METRICS.build(dict(cfg.val_evaluator, _scope_='mmdet'))
    assert isinstance(metric, InMemoryCocoMetric) and metric.metrics == ['bbox', 'segm']


def test_mask_scores_and_encoded_masks_are_taken(data):
    _, path, samples = data
    for sample in samples:
        found = sample['pred_instances']
        found['mask_scores'] = found['scores'].flip(0)
        found['masks'] = by_pycocotools_encoded(found['masks'].numpy())
    _, wanted = evaluate(CocoMetric, path, copy.deepcopy(samples))
    _, plain = evaluate(InMemoryCocoMetric, path, copy.deepcopy(samples), evaluator='arrays')
    assert dict(plain) == dict(wanted)
    del samples[0]['pred_instances']['mask_scores'], samples[1:]
    _, without = evaluate(InMemoryCocoMetric, path, samples, evaluator='arrays')
    assert without['segm_mAP'] != wanted['segm_mAP']


def test_what_processes_exchange_is_small_and_the_samples_stay(data):
    _, path, samples = data
    metric, _ = evaluate(InMemoryCocoMetric, path, samples)
    dense = sum(s['pred_instances']['masks'].numel() for s in samples)
    assert len(pickle.dumps(metric.results)) < dense / 20
    assert all(isinstance(s['pred_instances']['masks'], torch.Tensor) for s in samples)


@pytest.mark.parametrize('options', [dict(classwise=True), dict(metric=['proposal'])])
def test_the_rest_is_left_to_mmdet(data, options):
    _, path, samples = data
    _, wanted = evaluate(CocoMetric, path, samples, **options)
    _, found = evaluate(InMemoryCocoMetric, path, samples, evaluator='arrays', **options)
    assert repr(dict(found)) == repr(dict(wanted)) and wanted


def test_files_are_still_written_where_they_are_asked_for(data, tmp_path):
    _, path, samples = data
    options = dict(format_only=True, outfile_prefix=str(tmp_path / 'out'))
    assert not evaluate(InMemoryCocoMetric, path, samples, **options)[1]
    assert len(json.loads((tmp_path / 'out.segm.json').read_text())) == 120


@pytest.mark.parametrize('evaluator', ['pycocotools', 'arrays'])
def test_annotations_from_the_samples(data, evaluator):
    truth, _, samples = data
    for sample in samples:
        own = [a for a in truth['annotations'] if a['image_id'] == sample['img_id']]
        sample['instances'] = []
        for a in own:
            x, y, w, h = a['bbox']
            instance = dict(bbox=[x, y, x + w, y + h], bbox_label=a['category_id'] - 1, ignore_flag=a['iscrowd'])
            sample['instances'].append(instance)
    _, wanted = evaluate(CocoMetric, None, samples, metric=['bbox'])
    _, found = evaluate(InMemoryCocoMetric, None, samples, metric=['bbox'], evaluator=evaluator)
    assert dict(found) == dict(wanted) and 0 < wanted['bbox_mAP'] < 1


def test_what_the_metric_refuses(data):
    _, path, samples = data
    with pytest.raises(ValueError, match="evaluator='fast'"):
        InMemoryCocoMetric(path, evaluator='fast')
    with pytest.raises(KeyError, match="'mAP_90'"):
        InMemoryCocoMetric(path, metric_items=['mAP_90'])
    with pytest.raises(ValueError, match='image 77 is not in the annotations'):
        evaluate(InMemoryCocoMetric, path, [dict(samples[0], img_id=77)], evaluator='arrays')
    boxes = {key: value for key, value in samples[0]['pred_instances'].items() if key != 'masks'}
    with pytest.raises(KeyError, match='segm is not in results'):
        evaluate(InMemoryCocoMetric, path, [dict(samples[0], pred_instances=boxes)], evaluator='arrays')
    nothing = {key: value[:0] for key, value in samples[0]['pred_instances'].items()}
    for evaluator in ('pycocotools', 'arrays'):
        empty = [dict(samples[0], pred_instances=nothing)]
        assert evaluate(InMemoryCocoMetric, path, empty, evaluator=evaluator)[1] == {}
