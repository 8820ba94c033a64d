"""``FastCocoMetric``, a name of earlier configs, against mmdet's metric by pycocotools, through a recipe."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

import mim_mm.detection  # noqa: F401  registers the metric, as building any of our detectors does
from mim_mm.registry import METRICS

RECIPE = Path(__file__).resolve().parents[2] / 'configs/coco/mask_rcnn_vitb_simple_lsj_100e.py'


def toy_detections(folder):
    """12 images with 5 objects each, and predictions that are a little off; path of the annotations, predictions."""
    rng = np.random.default_rng(0)
    images, annotations, found = [], [], []
    for index in range(1, 13):
        images.append(dict(id=index, file_name=f'{index}.jpg', height=160, width=200))
        boxes, masks, labels = [], [], []
        for _ in range(5):
            x, y, w, h = (int(v) for v in (*rng.integers(0, 100, 2), *rng.integers(8, 100, 2)))
            w, h, category = min(w, 200 - x), min(h, 160 - y), int(rng.integers(1, 3))
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=index, category_id=category, bbox=[x, y, w, h], area=w * h,
                     iscrowd=0, segmentation=[polygon])
            )  # fmt: skip
            box = np.clip(np.array([x, y, x + w, y + h]) + rng.normal(0, 2, 4), 0, [200, 160, 200, 160])
            mask = np.zeros((160, 200), bool)
            mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
            boxes.append(box)
            masks.append(mask)
            labels.append(category - 1 if rng.random() < 0.85 else 2 - category)
        instances = dict(bboxes=torch.tensor(np.array(boxes)), masks=torch.tensor(np.array(masks)),
                         labels=torch.tensor(labels), scores=torch.tensor(rng.random(5)))  # fmt: skip
        found.append(dict(img_id=index, ori_shape=(160, 200), pred_instances=instances))
    categories = [dict(id=1, name='person'), dict(id=2, name='bicycle')]
    path = folder / 'truth.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return str(path), found


def coco_metric(path, **options):
    cfg = Config.fromfile(RECIPE).val_evaluator
    metric = METRICS.build(dict(cfg, _scope_='mmdet', ann_file=path, **options))
    metric.dataset_meta = dict(classes=('person', 'bicycle'))
    return metric


def crowded(found):
    """The same images with 130 detections each, so that pycocotools' limit of 100 decides."""
    rng = np.random.default_rng(1)
    for sample in found:
        instances = sample['pred_instances']
        places = torch.tensor(rng.integers(0, 5, 130))
        shifted = instances['bboxes'][places] + torch.tensor(rng.normal(0, 6, (130, 4)))
        instances.update(
            bboxes=shifted, masks=instances['masks'][places], labels=instances['labels'][places],
            scores=torch.tensor(rng.random(130)),
        )  # fmt: skip
    return found


@pytest.mark.parametrize('change', [lambda found: found, crowded])
def test_the_earlier_name_gives_pycocotools_figures(tmp_path, change):
    path, found = toy_detections(tmp_path)
    scores = []
    for options in (dict(type='CocoMetric'), dict(type='mim_mm.FastCocoMetric')):
        metric = coco_metric(path, **options)
        metric.process({}, change(found))
        scores.append(metric.compute_metrics(metric.results))
        found = toy_detections(tmp_path)[1]
    slow, fast = scores
    assert type(metric).__name__ == 'FastCocoMetric' and metric.evaluator == 'arrays'
    assert 0.1 < slow['bbox_mAP'] < 0.9 and 0.1 < slow['segm_mAP'] < 0.9, 'neither all right nor all wrong'
    assert slow == fast
