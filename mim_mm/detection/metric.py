"""COCO evaluation without files: pycocotools' from memory, or the same figures from arrays."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import metrics
from mmengine.logging import MMLogger, print_log
from torch import Tensor

from mim_mm.detection.coco_eval import ArrayCOCOeval, Detections, Truth
from mim_mm.detection.rle import encode_masks
from mim_mm.registry import METRICS

# Places of mmdet's names among pycocotools' twelve figures.
PLACES = dict(
    zip('mAP mAP_50 mAP_75 mAP_s mAP_m mAP_l AR@100 AR@300 AR@1000 AR_s@1000 AR_m@1000 AR_l@1000'.split(), range(12))
)
PER_CLASS = 'per_class.json'


@METRICS.register_module()
class InMemoryCocoMetric(metrics.CocoMetric):
    """mmdet's ``CocoMetric`` without its JSON files; same arguments, keys and figures.

    Masks are run-length encoded as they come (on the GPU if they are there), so that what processes exchange is small.
    ``stats`` has the twelve figures of the last evaluation in full: ``dict(bbox=(12,), segm=(12,))``, and
    ``class_results`` AP and AP50 of each class, which ``mim_mm.ClassResultsHook`` writes to ``per_class.json``.

    Args:
        evaluator: 'pycocotools', its own ``COCOeval`` on results in memory, or 'arrays',
            :class:`~mim_mm.detection.coco_eval.ArrayCOCOeval`, which gives the same figures sooner.
        *args, **kwargs: as ``CocoMetric``. With 'proposal', 'proposal_fast', ``classwise``, ``format_only``,
            ``outfile_prefix`` or ``use_mp_eval`` the evaluation is mmdet's own, with files.

    Raises:
        ValueError: another evaluator.
    """

    def __init__(self, *args, evaluator: str = 'pycocotools', **kwargs):
        if evaluator not in ('pycocotools', 'arrays'):
            raise ValueError(f"evaluator={evaluator!r}: use 'pycocotools' or 'arrays'")
        super().__init__(*args, **kwargs)
        self.evaluator = evaluator
        self.stats: dict[str, np.ndarray] = {}
        self.class_results: tuple[str, dict] | None = None  # a file name and its content
        self._truth: dict[str, Truth] = {}
        unknown = sorted(set(self.metric_items or ()) - set(PLACES))
        if unknown:
            raise KeyError(f'metric_items has {unknown[0]!r}: use some of {list(PLACES)}')

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep boxes, scores, labels and encoded masks; masks that are lists are taken as encoded already."""
        for sample in data_samples:
            found = sample['pred_instances']
            if 'masks' in found and isinstance(found['masks'], (Tensor, np.ndarray)):
                # Not into the sample itself: its masks may still be wanted, by a hook that draws them.
                columns = {key: found[key] for key in ('bboxes', 'scores', 'labels', 'mask_scores') if key in found}
                sample = {**sample, 'pred_instances': dict(columns, masks=encode_masks(found['masks']))}
            super().process(data_batch, [sample])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """As in mmdet; ``{}`` if nothing at all was found."""
        self.class_results = None
        left_to_mmdet = self.format_only or self.outfile_prefix or self.classwise or self.use_mp_eval
        if left_to_mmdet or not set(self.metrics) <= {'bbox', 'segm'}:
            return super().compute_metrics(results)
        logger = MMLogger.get_current_instance()
        truths, found = zip(*results)
        if self._coco_api is None:  # annotations from the samples: written and read once a run
            with tempfile.TemporaryDirectory() as folder:
                self._coco_api = COCO(self.gt_to_coco_json(truths, str(Path(folder, 'truth'))))
        if self.cat_ids is None:
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()
        figures, self.stats, by_class = {}, {}, {}
        for kind in self.metrics:
            logger.info(f'Evaluating {kind}...')
            if kind == 'segm' and 'masks' not in found[0]:
                raise KeyError('segm is not in results: the detector gives no masks, take metric=bbox')
            detections = self._detections(found, kind)
            if not len(detections.images):
                logger.error('The testing results of the whole dataset is empty.')
                break
            evaluation = self._evaluation(detections, kind)
            evaluation.params.catIds, evaluation.params.imgIds = self.cat_ids, self.img_ids
            evaluation.params.maxDets, evaluation.params.iouThrs = list(self.proposal_nums), self.iou_thrs
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            by_class[kind] = class_figures(evaluation)
            self.stats[kind] = np.array(evaluation.stats)
            for item in self.metric_items or list(PLACES)[:6]:
                figures[f'{kind}_{item}'] = float(f'{round(evaluation.stats[PLACES[item]], 3)}')
            ap = ' '.join(f'{value:.3f}' for value in evaluation.stats[:6])
            logger.info(f'{kind}_mAP_copypaste: {ap}')
        self.class_results = PER_CLASS, dict(schema=1, classes=self._by_class(by_class))
        return figures

    def _by_class(self, figures: dict[str, dict[int, tuple]]) -> list[dict]:
        """A row a class, named as the annotations name it: boxes that count, AP and AP50 of each kind.

        AP is 0 where nothing was found of a class, None where there is nothing to find.
        """
        coco = self._coco_api
        count = Counter(a['category_id'] for a in coco.loadAnns(coco.getAnnIds(self.img_ids, self.cat_ids, iscrowd=0)))
        rows = []
        for category in self.cat_ids:
            absent = (0.0, 0.0) if count[category] else (None, None)
            row = dict(name=str(coco.cats[category]['name']), boxes=count[category])
            for kind in self.metrics:
                row[kind] = dict(zip(('AP', 'AP50'), figures.get(kind, {}).get(category, absent)))
            rows.append(row)
        return rows

    def _detections(self, found: Sequence[dict], kind: str) -> Detections:
        """The results of all images as arrays, in the order in which mmdet would write them."""
        scores = 'mask_scores' if kind == 'segm' and 'mask_scores' in found[0] else 'scores'
        images = np.repeat([f['img_id'] for f in found], [len(f['labels']) for f in found])
        unknown = set(images.tolist()) - set(self._coco_api.imgs)
        if unknown:
            raise ValueError(f'image {min(unknown)} is not in the annotations: results and ann_file must be of one set')
        categories = np.asarray(self.cat_ids)[np.concatenate([f['labels'] for f in found])]
        joined = np.concatenate([f[scores] for f in found]).astype(np.float64)
        if kind == 'segm':
            return Detections(images, categories, joined, masks=[mask for f in found for mask in f['masks']])
        boxes = np.concatenate([f['bboxes'] for f in found]).astype(np.float64)
        return Detections(images, categories, joined, np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1))

    def _evaluation(self, d: Detections, kind: str) -> COCOeval:
        if self.evaluator == 'arrays':
            if kind not in self._truth:
                self._truth[kind] = Truth.from_coco(self._coco_api, self.img_ids, self.cat_ids, kind)
            return ArrayCOCOeval(self._coco_api, d, kind, self._truth[kind])
        key, values = ('bbox', d.boxes.tolist()) if kind == 'bbox' else ('segmentation', d.masks)
        columns = zip(d.images.tolist(), d.categories.tolist(), d.scores.tolist(), values)
        entries = [{'image_id': i, 'category_id': c, 'score': s, key: v} for i, c, s, v in columns]
        return COCOeval(self._coco_api, self._coco_api.loadRes(entries), kind)


def class_figures(evaluation: COCOeval) -> dict[int, tuple[float | None, float | None]]:
    """Category id -> AP and AP50 of an accumulated evaluation, None where there is no annotation that counts.

    Their means over the classes are mAP and mAP_50: all areas, AP of the 100 best detections of an image and AP50, as
    ``COCOeval.summarize`` has it, of as many as the third limit allows.
    """
    p, precision = evaluation.params, evaluation.eval['precision']  # (T, R, K, A, M)
    most = list(p.maxDets)
    hundred = most.index(100) if 100 in most else len(most) - 1
    area = list(p.areaRngLbl).index('all')
    half = np.flatnonzero(np.isclose(p.iouThrs, 0.5))
    found = {}
    for place, category in enumerate(p.catIds):
        values = precision[:, :, place, area, hundred], precision[half, :, place, area, min(2, len(most) - 1)]
        means = (v[v > -1].mean() if (v > -1).any() else None for v in values)
        found[int(category)] = tuple(None if mean is None else float(mean) for mean in means)
    return found


@METRICS.register_module()
class FastCocoMetric(InMemoryCocoMetric):
    """A name of earlier configs: ``InMemoryCocoMetric`` with ``evaluator='arrays'``.

    It was faster-coco-eval's, whose figures are not pycocotools' where an image has more than 100 detections of a class
    (by up to .009), and which was slower than the arrays.
    """

    def __init__(self, *args, evaluator: str = 'arrays', **kwargs):
        super().__init__(*args, evaluator=evaluator, **kwargs)
        print_log(
            "FastCocoMetric is InMemoryCocoMetric with evaluator=arrays now, which gives pycocotools' figures in full; "
            'faster-coco-eval is not used any more, since its figures differ above 100 detections an image',
            'current',
        )
