"""Annotations and detections of COCO's kind, made from a seed: crowds, empty images, duplicates, all sizes."""

from __future__ import annotations

import numpy as np
import torch


def annotations(images: int, classes: int = 80, seed: int = 0, size: tuple[int, int] = (480, 640)) -> dict:
    """A COCO annotation file as a dict: 0 to 20 objects an image (mean 7), polygons, one crowd in 70 objects."""
    rng = np.random.default_rng(seed)
    height, width = size
    found = []
    for image in range(1, images + 1):
        own = rng.integers(1, classes + 1, 4)  # objects of an image are of few classes
        for _ in range(min(20, int(rng.gamma(1.0, 7.5)))):
            w, h = np.minimum(np.exp(rng.normal(4.0, 1.0, 2)).clip(4), (width, height))
            x, y = rng.uniform(0, (width - w, height - h))
            angles = np.sort(rng.uniform(0, 2 * np.pi, 24))
            outline = np.stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))], 1).round(2)
            crowd = bool(rng.random() < 1 / 70)
            segment = [outline.reshape(-1).tolist()]
            if crowd:
                mask = np.zeros((height, width), np.uint8)
                mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
                change = np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=0)).tolist()
                segment = dict(size=[height, width], counts=np.diff([0, *change, height * width]).tolist())
            found.append(
                dict(
                    id=len(found) + 1,
                    image_id=image,
                    category_id=int(rng.choice(own)),
                    iscrowd=int(crowd),
                    bbox=[float(v) for v in np.round((x, y, w, h), 2)],
                    area=float(round(w * h * 0.78, 2)),
                    segmentation=segment,
                )
            )
    return dict(
        images=[dict(id=i, width=width, height=height, file_name=f'{i}.jpg') for i in range(1, images + 1)],
        annotations=found,
        categories=[dict(id=c, name=f'class {c}') for c in range(1, classes + 1)],
    )


def predictions(truth: dict, count: int = 100, seed: int = 0) -> list[dict]:
    """What a detector gives for these images: the objects several times, moved, some of another class, and noise.

    Args:
        count: detections an image, the most that COCO counts.

    Returns:
        A sample an image, as mmdet's ``CocoMetric`` takes it: ``masks`` dense bool (count, H, W).
    """
    rng = np.random.default_rng(seed)
    objects: dict[int, list] = {}
    for a in truth['annotations']:
        objects.setdefault(a['image_id'], []).append(a)
    classes, samples = len(truth['categories']), []
    for image in truth['images']:
        width, height, own = image['width'], image['height'], objects.get(image['id'], [])
        boxes, labels = np.empty((count, 4)), np.empty(count, np.int64)
        for i in range(count):
            if own and rng.random() < 0.6:
                source = own[rng.integers(len(own))]
                x, y, w, h = source['bbox'] + rng.normal(0, 0.08, 4) * np.tile(source['bbox'][2:], 2)
                label = source['category_id'] - 1
            else:
                w, h = np.exp(rng.normal(4.0, 1.0, 2))
                x, y, label = rng.uniform(0, width), rng.uniform(0, height), rng.integers(classes)
            boxes[i] = np.clip((x, y, x + max(w, 2), y + max(h, 2)), 0, (width, height, width, height))
            labels[i] = label if rng.random() < 0.9 else rng.integers(classes)
        scores = torch.tensor(np.sort(rng.beta(0.5, 2, count))[::-1].copy(), dtype=torch.float32)
        found = dict(bboxes=torch.tensor(boxes, dtype=torch.float32), scores=scores, labels=torch.tensor(labels))
        found['masks'] = ellipses(boxes, height, width)
        samples.append(dict(img_id=image['id'], ori_shape=(height, width), pred_instances=found))
    return samples


def ellipses(boxes: np.ndarray, height: int, width: int) -> torch.Tensor:
    """(N, H, W) bool: the ellipse in each box (N, 4), corners."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes):
        rows, columns = slice(int(y1), int(y2) + 1), slice(int(x1), int(x2) + 1)
        y, x = torch.arange(height)[rows, None] + 0.5, torch.arange(width)[None, columns] + 0.5
        a, b = max((x2 - x1) / 2, 0.5), max((y2 - y1) / 2, 0.5)
        mask[rows, columns] = ((x - (x1 + x2) / 2) / a) ** 2 + ((y - (y1 + y2) / 2) / b) ** 2 <= 1
    return masks
