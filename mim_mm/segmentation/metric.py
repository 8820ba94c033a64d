"""Intersection over union, counted in whole pixels."""

from __future__ import annotations

import torch
from mmseg.evaluation.metrics import IoUMetric
from torch import Tensor

from mim_mm.folders import DataError
from mim_mm.registry import METRICS


@METRICS.register_module()
class ExactIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric``, same arguments, keys and definition, with exact counts.

    mIoU is the mean over the classes that truth or prediction have anywhere in the set, of the pixels of all images
    together: intersection / union; pixels of ``ignore_index`` count nowhere. mmseg adds up pixels in fp32, which has no
    odd numbers above 16.8 million, and passes over labels that are no class.

    Raises:
        DataError: a label of the truth is no class.
    """

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixels (H, W) of one image -> intersection, union, predicted and true pixels of each class, fp64."""
        counted = label != ignore_index
        pred_label, label = pred_label[counted].long(), label[counted].long()
        if label.numel() and not 0 <= int(label.min()) <= int(label.max()) < num_classes:
            raise DataError(
                f'a mask has labels {int(label.min())} to {int(label.max())}, but there are {num_classes} classes '
                f'(0 to {num_classes - 1}; {ignore_index} is passed over): correct the mask or the classes'
            )

        def count(values: Tensor) -> Tensor:
            return torch.bincount(values, minlength=num_classes).double().cpu()

        both, predicted, true = count(pred_label[pred_label == label]), count(pred_label), count(label)
        return both, predicted + true - both, predicted, true
