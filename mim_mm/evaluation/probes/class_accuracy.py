"""Accuracy as mmpretrain measures it, and which classes were taken for which."""

from __future__ import annotations

import torch
from mmpretrain.evaluation import Accuracy, ConfusionMatrix

from mim_mm.registry import METRICS

CONFUSION = 'confusion.json'


@METRICS.register_module()
class ClassAccuracy(Accuracy):
    """mmpretrain's ``Accuracy``, same arguments, keys and figures, that keeps the confusion matrix.

    ``class_results`` of the last evaluation is ``('confusion.json', dict(schema=1, classes, counts))``, which
    ``mim_mm.ClassResultsHook`` writes: names in label order, and how many images of class i were taken for class j,
    by the largest score, as rows of a square matrix.
    """

    class_results: tuple[str, dict] | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        found = super().compute_metrics(results)
        self.class_results = None
        target = torch.cat([result['gt_label'] for result in results]).long()
        if 'pred_score' in results[0]:
            scores = torch.stack([result['pred_score'] for result in results])
            counts = ConfusionMatrix.calculate(scores, target)
            known = list((self.dataset_meta or {}).get('classes') or ())
            names = known if len(known) == len(counts) else [str(label) for label in range(len(counts))]
            self.class_results = CONFUSION, dict(schema=1, classes=[*map(str, names)], counts=counts.tolist())
        return found
