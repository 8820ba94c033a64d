"""COCO's evaluation on arrays: the figures of pycocotools' ``COCOeval`` without its loops over detections.

Overlaps are computed by pycocotools' own compiled functions. The matching takes every pair of image and category at a
time, all area ranges and thresholds together, one detection rank after the other; the curves are accumulated by
category. Figures are equal to the last bit where numpy's sums are, which the tests compare.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

LARGEST = 1 << 22  # elements of an array during matching


@dataclass(frozen=True)
class Detections:
    """N detections in any order; equal scores keep it.

    images, categories: (N,) ids of the annotation file. scores: (N,). boxes: (N, 4) x, y, w, h in pixels, or None.
    masks: N compressed run lengths, or None.
    """

    images: np.ndarray
    categories: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None = None
    masks: list[dict] | None = None


@dataclass(frozen=True)
class Truth:
    """Annotations as arrays: ids, images, categories (G,) ids, areas (G,), crowd (G,) bool, boxes (G, 4), masks."""

    ids: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray | None
    masks: list[dict] | None

    @classmethod
    def from_coco(cls, coco: COCO, images: Sequence[int], categories: Sequence[int], kind: str) -> Truth:
        """Of these images and categories, in the order in which pycocotools meets them; ``coco`` is not changed."""
        found = coco.loadAnns(coco.getAnnIds(imgIds=images, catIds=categories))
        columns = ([a[key] for a in found] for key in ('id', 'image_id', 'category_id', 'area'))
        crowd = np.array([bool(a.get('iscrowd', 0)) for a in found], bool)
        boxes = np.array([a['bbox'] for a in found], np.float64).reshape(-1, 4) if kind == 'bbox' else None
        masks = [coco.annToRLE(a) for a in found] if kind == 'segm' else None
        ids, image, category, area = map(np.array, columns)
        return cls(ids, image, category, area.astype(np.float64), crowd, boxes, masks)


class ArrayCOCOeval(COCOeval):
    """pycocotools' ``COCOeval`` for 'bbox' and 'segm' from arrays; ``eval``, ``stats`` and ``summarize`` are its own.

    Args:
        coco: annotations.
        detections: what was found; of unknown images and categories, and above the largest ``maxDets``, left out.
        kind: 'bbox' or 'segm'.
        truth: of the same annotations and the same ``imgIds`` and ``catIds``, to save making it again.

    Raises:
        ValueError: another kind, or detections without the boxes or masks that it needs.
    """

    def __init__(self, coco: COCO, detections: Detections, kind: str, truth: Truth | None = None):
        if kind not in ('bbox', 'segm'):
            raise ValueError(f"kind={kind!r}: use 'bbox' or 'segm', or pycocotools' COCOeval")
        if (detections.boxes if kind == 'bbox' else detections.masks) is None:
            raise ValueError(f'{kind} needs {"boxes" if kind == "bbox" else "masks"}, the detections have none')
        super().__init__(coco, None, kind)
        self.detections, self.truth = detections, truth

    def evaluate(self) -> None:
        """Match detections with annotations; the result is :attr:`matched` and :attr:`ignored`, each (A, T, N)."""
        p = self.params
        if not p.useCats:
            raise ValueError("useCats=0 (proposals) is not done here: use pycocotools' COCOeval")
        p.imgIds, p.catIds = list(np.unique(p.imgIds)), list(np.unique(p.catIds))
        p.maxDets = sorted(p.maxDets)
        self._paramsEval = copy.deepcopy(p)
        truth = self.truth or Truth.from_coco(self.cocoGt, p.imgIds, p.catIds, p.iouType)
        gt_key = _keys(truth.images, truth.categories, p.imgIds, p.catIds)
        gt = np.flatnonzero(gt_key >= 0)
        gt = gt[np.argsort(gt_key[gt], kind='stable')]
        gt_key = gt_key[gt]

        d = self.detections
        key = _keys(d.images, d.categories, p.imgIds, p.catIds)
        order = np.lexsort((-np.asarray(d.scores, np.float64), key))
        order = order[key[order] >= 0]
        key = key[order]
        rank = np.arange(len(key)) - np.searchsorted(key, key)
        kept = rank < p.maxDets[-1]
        order, self.key, self.rank = order[kept], key[kept], rank[kept]
        self.scores = np.asarray(d.scores, np.float64)[order]

        low, high = np.array(p.areaRng, np.float64).T[:, :, None]
        area = truth.areas[gt]
        gt_ignored = truth.crowd[gt] | (area < low) | (area > high)  # (A, G)
        category = gt_key // len(p.imgIds)
        self.relevant = np.stack([np.bincount(category[~row], minlength=len(p.catIds)) for row in gt_ignored], 1)
        if p.iouType == 'bbox':
            found, wanted = np.asarray(d.boxes, np.float64)[order], truth.boxes[gt]
            areas = found[:, 2] * found[:, 3]
        else:
            found, wanted = [d.masks[i] for i in order], [truth.masks[i] for i in gt]
            areas = _areas(found)
        shape = (len(p.areaRng), len(p.iouThrs), len(order))
        self.matched, self.ignored = np.zeros(shape, bool), np.zeros(shape, bool)
        pairs = _pairs(self.key, gt_key, found, wanted, truth.crowd[gt], min(p.iouThrs))
        for detection, chosen in _match(pairs, gt_ignored, truth.crowd[gt], np.asarray(p.iouThrs)):
            # chosen (n, A, T): the annotation's number or -1
            hit = chosen >= 0
            self.ignored[:, :, detection] = (hit & gt_ignored[np.arange(shape[0])[:, None], chosen]).transpose(1, 2, 0)
            # pycocotools marks a match by the annotation's id, so that id 0 counts as none.
            self.matched[:, :, detection] = (hit & (truth.ids[gt][chosen] != 0)).transpose(1, 2, 0)
        outside = (areas < low) | (areas > high)
        self.ignored |= ~self.matched & outside[:, None]

    def accumulate(self, p=None) -> None:
        """Precision (T, R, K, A, M), recall (T, K, A, M) and scores as in pycocotools; ``p`` must be left out."""
        if p is not None:
            raise ValueError('other parameters than those of evaluate() are not taken: set them before and evaluate')
        p = self._paramsEval
        sizes = [len(v) for v in (p.iouThrs, p.recThrs, p.catIds, p.areaRng, p.maxDets)]
        precision, scores = -np.ones(sizes), -np.ones(sizes)
        recall = -np.ones([sizes[0], *sizes[2:]])
        bounds = np.searchsorted(self.key, np.arange(len(p.catIds) + 1) * len(p.imgIds))
        for k, (start, stop) in enumerate(zip(bounds, bounds[1:])):
            if not self.relevant[k].any():
                continue
            order = start + np.argsort(-self.scores[start:stop], kind='mergesort')
            rank, done = self.rank[order], None
            for m, most in enumerate(p.maxDets):
                if done is None or len(done) != np.count_nonzero(rank < most):
                    done = order[rank < most]
                    curves = self._curves(done, self.relevant[k])
                for a, (recalls, precisions, at) in curves.items():
                    recall[:, k, a, m], precision[:, :, k, a, m], scores[:, :, k, a, m] = recalls, precisions, at
        self.eval = dict(
            params=self.params,
            counts=sizes,
            date=datetime.datetime.now().strftime('%Y-%m-%d %H:%M:%S'),
            precision=precision,
            recall=recall,
            scores=scores,
        )

    def _curves(self, order: np.ndarray, relevant: np.ndarray) -> dict[int, tuple]:
        """Area range -> recall (T,), precision (T, R) and score (T, R) of the detections in falling order of score."""
        found = {}
        steps = np.asarray(self._paramsEval.recThrs)
        scores = np.append(self.scores[order], 0)
        for a, count in enumerate(relevant):
            if not count:
                continue
            counted, hit = ~self.ignored[a][:, order], self.matched[a][:, order]
            right = np.cumsum(hit & counted, 1).astype(float)
            wrong = np.cumsum(~hit & counted, 1).astype(float)
            recalls = right / count
            precisions = right / (wrong + right + np.spacing(1))
            precisions = np.maximum.accumulate(precisions[:, ::-1], 1)[:, ::-1]
            precisions = np.pad(precisions, [(0, 0), (0, 1)])  # beyond the last detection: 0
            places = np.stack([np.searchsorted(row, steps, side='left') for row in recalls])
            reached = recalls[:, -1] if len(order) else np.zeros(len(recalls))
            found[a] = reached, np.take_along_axis(precisions, places, 1), scores[places]
        return found


def _areas(masks: list[dict]) -> np.ndarray:
    """Pixels of each mask; pycocotools puts their number in a byte, and numpy 2 refuses more than 255 there."""
    parts = [mask_utils.area(masks[i : i + 250]) for i in range(0, len(masks), 250)]
    return np.concatenate([np.zeros(0), *parts])


def _keys(images, categories, image_ids, category_ids) -> np.ndarray:
    """category number x images + image number, -1 for what is not among the ids."""
    keys, known = np.zeros(len(images), np.int64), np.ones(len(images), bool)
    for values, ids, factor in ((images, image_ids, 1), (categories, category_ids, len(image_ids))):
        values, ids = np.asarray(values), np.asarray(ids)
        place = np.searchsorted(ids, values).clip(max=max(len(ids) - 1, 0))
        known &= (ids[place] == values) if len(ids) else False
        keys += place * factor
    return np.where(known, keys, -1)


def _pairs(key, gt_key, found, wanted, crowd, lowest):
    """(detections (D,), annotations (G,), overlaps (D, G)) of each image and category that has both.

    Only the detections that overlap some annotation by at least ``lowest``: no other can be matched.
    """
    flags = crowd.astype(np.uint8)
    shared = np.intersect1d(key, gt_key)
    sides = (('left', 'right'), (key, gt_key))
    (d0, d1), (g0, g1) = ([np.searchsorted(keys, shared, side).tolist() for side in sides[0]] for keys in sides[1])
    for a, b, c, d in zip(d0, d1, g0, g1):
        overlaps = np.asarray(mask_utils.iou(found[a:b], wanted[c:d], flags[c:d]))
        rows = np.flatnonzero(overlaps.max(1) >= min(lowest, 1 - 1e-10))
        if len(rows):
            yield rows + a, np.arange(c, d), overlaps[rows]


def _match(pairs, gt_ignored, crowd, thresholds):
    """(detections (n,), annotation of each, (n, A, T), -1 for none), in batches of pairs of similar size."""
    batches: dict[tuple[int, int], list] = {}
    for pair in pairs:
        rows, columns = pair[2].shape
        batches.setdefault((1 << (rows - 1).bit_length(), 1 << (columns - 1).bit_length()), []).append(pair)
    for (rows, columns), batch in batches.items():
        size = max(1, LARGEST // (len(gt_ignored) * max(len(thresholds), rows) * columns))
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            overlaps = np.full((len(part), rows, columns), -1.0)
            number = np.zeros((len(part), columns), np.int64)
            for i, (_, wanted, values) in enumerate(part):
                overlaps[i, : values.shape[0], : values.shape[1]] = values
                number[i, : len(wanted)] = wanted
            chosen = _greedy(overlaps, gt_ignored[:, number].swapaxes(0, 1), crowd[number], thresholds)
            absolute = np.where(chosen >= 0, number[np.arange(len(part))[:, None, None, None], chosen], -1)
            real = np.arange(rows) < np.array([len(pair[0]) for pair in part])[:, None]
            yield np.concatenate([pair[0] for pair in part]), absolute[real]


def _greedy(overlaps, ignored, crowd, thresholds) -> np.ndarray:
    """COCO's matching of P pairs at once: detections by falling score, each takes the best annotation that is free.

    A free one that counts goes before one that is ignored, then the larger overlap, then the later one; a crowd stays
    free. The comparison is one of whole numbers: the rank of the overlap among those of the detection, plus G for
    those that count.

    Args:
        overlaps: (P, D, G), -1 where there is nothing. ignored: (P, A, G). crowd: (P, G).

    Returns:
        (P, D, A, T) places among the G, or -1.
    """
    pairs, rows, columns = overlaps.shape
    areas, limits = ignored.shape[1], np.minimum(thresholds, 1 - 1e-10)
    order = np.argsort(overlaps, axis=-1, kind='stable')
    rank = np.empty(order.shape, np.int32)
    np.put_along_axis(rank, order, np.arange(columns, dtype=np.int32)[None, None], -1)
    free = np.ones((pairs, areas, len(limits), columns), bool)
    chosen = np.empty((pairs, rows, areas, len(limits)), np.int64)
    for row in range(rows):
        worth = rank[:, row, None] + columns * ~ignored  # (P, A, G)
        enough = overlaps[:, row, None] >= limits[:, None]  # (P, T, G)
        worth = np.where(enough[:, None] & free, worth[:, :, None], -1)
        best = worth.argmax(-1)
        hit = np.take_along_axis(worth, best[..., None], -1)[..., 0] >= 0
        chosen[:, row] = np.where(hit, best, -1)
        taken = hit[..., None] & (best[..., None] == np.arange(columns))
        free &= ~taken | crowd[:, None, None]
    return chosen
