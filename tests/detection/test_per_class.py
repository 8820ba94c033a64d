"""AP of each class against pycocotools with that class alone, and the file that is left of it."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from recipe_table import CONFIGS

from mim_mm.benchmarks.synthetic_coco import annotations, predictions
from mim_mm.detection.metric import InMemoryCocoMetric
from mim_mm.detection.rle import encode_masks
from mim_mm.registry import METRICS

SIZE = (60, 81)


def truth_of(tmp_path, classes=5):
    """Annotations with ids and names out of order, a class of a crowd alone and one that is nowhere; path of them."""
    truth = annotations(8, classes, seed=3, size=SIZE)
    for a in truth['annotations']:
        a['category_id'] = 10 * a['category_id']
    for category in truth['categories']:
        category.update(id=10 * category['id'], name=f'kind {"edcba"[category["id"] - 1]}')
    truth['annotations'] = [a for a in truth['annotations'] if a['category_id'] not in (20, 40)]
    area = SIZE[0] * 30  # the 30 columns on the left
    region = dict(size=list(SIZE), counts=[0, area, SIZE[0] * SIZE[1] - area])
    crowd = dict(category_id=20, iscrowd=1, bbox=[0, 0, 30, SIZE[0]], area=area, segmentation=region)
    truth['annotations'].append(dict(crowd, id=999, image_id=1))
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    return truth, str(path)


def found_in(truth):
    plain = copy.deepcopy(truth)
    for a in plain['annotations']:
        a['category_id'] //= 10
    return predictions(plain, 120)  # above the 100 that count for AP, below the third limit


def by_pycocotools(truth, samples, kind, category, limits):
    """AP and AP50 of ``COCOeval.stats`` with ``catIds`` of one class."""
    rows = []
    for sample in samples:
        found = sample['pred_instances']
        masks = encode_masks(found['masks'])
        for place, (box, score, label) in enumerate(zip(found['bboxes'].double(), found['scores'], found['labels'])):
            x1, y1, x2, y2 = box.tolist()
            row = dict(image_id=sample['img_id'], category_id=10 * (int(label) + 1), score=float(score))
            key = dict(bbox=[x1, y1, x2 - x1, y2 - y1]) if kind == 'bbox' else dict(segmentation=masks[place])
            rows.append({**row, **key})
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(truth)
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(rows), kind)
        evaluation.params.catIds, evaluation.params.maxDets = [category], limits
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else value for value in evaluation.stats[:2]]


def evaluated(path, samples, **options):
    metric = InMemoryCocoMetric(path, ['bbox', 'segm'], **options)
    metric.dataset_meta = dict(classes=[f'kind {letter}' for letter in 'edcba'])
    metric.process({}, samples)
    with contextlib.redirect_stdout(io.StringIO()):
        return metric, metric.compute_metrics(metric.results)


@pytest.mark.parametrize('evaluator', ['pycocotools', 'arrays'])
def test_each_class_is_as_pycocotools_has_it_alone(tmp_path, evaluator):
    truth, path = truth_of(tmp_path)
    samples = found_in(truth)
    metric, figures = evaluated(path, samples, evaluator=evaluator)
    name, content = metric.class_results
    rows = {row['name']: row for row in content['classes']}
    assert name == 'per_class.json' and list(rows) == [f'kind {letter}' for letter in 'edcba']
    for category in truth['categories']:
        row = rows[category['name']]
        own = [a for a in truth['annotations'] if a['category_id'] == category['id'] and not a['iscrowd']]
        assert row['boxes'] == len(own)
        for kind in ('bbox', 'segm'):
            wanted = by_pycocotools(truth, samples, kind, category['id'], [100, 300, 1000])
            assert list(row[kind].values()) == pytest.approx(wanted, abs=1e-12) and (wanted[0] is None) == (not own)
    assert rows['kind d']['bbox'] == dict(AP=None, AP50=None) and rows['kind e']['boxes'] > 0, 'a crowd is no box'
    measured = [row for row in rows.values() if row['boxes']]
    assert len(measured) == 3 and 0 < np.mean([row['bbox']['AP'] for row in measured]) < 1
    for kind in ('bbox', 'segm'):
        for key, item in (('AP', 'mAP'), ('AP50', 'mAP_50')):
            mean = np.mean([row[kind][key] for row in measured])
            assert mean == pytest.approx(figures[f'{kind}_{item}'], abs=5.1e-4), 'rounded to three places by mmdet'
    assert json.loads(json.dumps(content)) == content


def test_nothing_found_is_nought_where_there_is_something_to_find(tmp_path):
    truth, path = truth_of(tmp_path)
    samples = found_in(truth)
    for sample in samples:
        sample['pred_instances'] = {key: value[:0] for key, value in sample['pred_instances'].items()}
    metric, figures = evaluated(path, samples)
    rows = metric.class_results[1]['classes']
    assert not figures and [row['bbox']['AP'] for row in rows] == [0.0 if row['boxes'] else None for row in rows]


def test_what_mmdet_evaluates_itself_leaves_no_classes(tmp_path):
    truth, path = truth_of(tmp_path)
    metric, _ = evaluated(path, found_in(truth), evaluator='arrays')
    metric.classwise = True
    with contextlib.redirect_stdout(io.StringIO()):
        metric.compute_metrics(metric.results)
    assert metric.class_results is None


@pytest.mark.parametrize(
    'path', [*(CONFIGS / 'coco').glob('*.py'), CONFIGS / 'demo/mask_rcnn.py'], ids=lambda p: p.stem
)
def test_every_detection_recipe_has_it(path):
    cfg = Config.fromfile(path)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert METRICS.get(evaluator.type) is InMemoryCocoMetric and not evaluator.get('classwise')
