"""Mutated COCO files: each is refused by our own error, or trains and evaluates."""

import json
import os
import random

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.logging import MMLogger
from mutated import mutated_bytes
from PIL import Image
from pycocotools import mask as mask_utils

from mim_mm.data.coco_file import read_coco
from mim_mm.data.image_sources import SourceError
from mim_mm.detection.metric import InMemoryCocoMetric

TRIALS = int(os.environ.get('TRIALS') or 80)
CLASSES = ('cat', 'dog')
HEIGHT, WIDTH = 24, 32


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for i in range(3):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / f'{i}.png')
    return folder


def whole():
    """Every kind of mask that COCO has, on three images."""
    filled = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    filled[4:12, 5:15] = 1
    code = mask_utils.encode(filled)
    text = dict(size=[HEIGHT, WIDTH], counts=code['counts'].decode())
    runs = dict(size=[HEIGHT, WIDTH], counts=[124, 8, 16, 8, HEIGHT * WIDTH - 156])
    shapes = [[[1, 1, 9, 1, 9, 9]], text, runs, [[2, 2, 20, 2, 20, 20, 2, 20], [22, 2, 30, 2, 30, 9]]]
    rows = [
        dict(id=i + 1, image_id=10 + i % 3, category_id=1 + i % 2, bbox=[1, 1, 12, 10], area=60.5, iscrowd=int(i == 2),
             segmentation=shapes[i % 4])
        for i in range(8)
    ]  # fmt: skip
    return dict(
        info=dict(year=2017),
        images=[dict(id=10 + i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT) for i in range(3)],
        annotations=rows,
        categories=[dict(id=1, name='cat', supercategory='animal'), dict(id=2, name='dog')],
    )


def use(path, folder, masks, classes):
    """What mmdet's data set and both ways of evaluating make of an accepted file."""
    pipeline = [
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=masks),
    ]
    dataset = CocoDataset(
        ann_file=path, data_prefix=dict(img=str(folder)), metainfo=dict(classes=classes), pipeline=pipeline
    )
    samples = [dataset[i] for i in range(len(dataset))]
    for evaluator in ('pycocotools', 'arrays'):
        kinds = ['bbox', 'segm'] if masks else ['bbox']
        metric = InMemoryCocoMetric(ann_file=path, metric=kinds, evaluator=evaluator, iou_thrs=np.array([0.5, 0.75]))
        metric.dataset_meta = dict(classes=classes)
        for sample in samples:
            found = dict(bboxes=torch.tensor([[1.0, 1, 13, 11]]), labels=torch.tensor([0]), scores=torch.tensor([0.9]))
            if masks:
                found['masks'] = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
            shape = dict(img_id=sample['img_id'], ori_shape=(HEIGHT, WIDTH))
            metric.process({}, [dict(shape, pred_instances=found)])
        if samples:
            figures = metric.compute_metrics(metric.results)
            assert all(-1 <= value <= 1 for value in figures.values()), figures


def test_a_mutated_file_is_refused_in_our_words_or_evaluates(images, tmp_path):
    MMLogger.get_current_instance().setLevel('ERROR')
    accepted, refused = 0, 0
    for trial in range(TRIALS):
        rng = random.Random(trial)
        path = tmp_path / 'mutated.json'
        path.write_bytes(mutated_bytes(whole(), rng))
        masks, classes = rng.choice((True, False, None)), rng.choice((CLASSES, (), None))
        try:
            found = read_coco(str(path), str(images), masks=masks, classes=classes, complete=rng.random() < 0.5)
        except SourceError as error:
            refused += 1
            assert str(path) in str(error) and '\n' not in str(error).strip(), error
            continue
        except Exception as error:
            raise AssertionError(f'trial {trial}: {path.read_bytes()[:4000]!r}') from error
        accepted += 1
        if found.changed:
            path.write_text(json.dumps(found.content))
        try:
            use(str(path), images, masks is not False and found.masks, classes or found.classes)
        except Exception as error:
            raise AssertionError(f'trial {trial} was accepted: {json.dumps(found.content)[:4000]}') from error
    print(f'{TRIALS} mutated files: {refused} refused, {accepted} accepted and evaluated')
    assert min(accepted, refused) > TRIALS / 10, 'the mutations are too mild or too harsh to say anything'
