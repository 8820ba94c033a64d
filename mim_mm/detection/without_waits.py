"""mmdet's parts that ask the device something for each box, level or image, with the same results and without asking.

What stays are waits for numbers of boxes that decide shapes (samplers, RoI levels, mask targets); docs/speed.md counts
them.
"""

from __future__ import annotations

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.task_modules import AnchorGenerator, AssignResult, MaxIoUAssigner
from torch import Tensor

from mim_mm.registry import MODELS, TASK_UTILS


@TASK_UTILS.register_module()
class WaitlessMaxIoUAssigner(MaxIoUAssigner):
    """mmdet's ``MaxIoUAssigner``, which reads a number from the device for every object of an image; same arguments."""

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Which object each box is given: 1 + its number, 0 for background, -1 for none.

        Args:
            overlaps: (k, n), of k objects with n boxes.
            gt_labels: long (k,).
        """
        if 0 in overlaps.shape:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        best, which = overlaps.max(dim=0)
        low, high = self.neg_iou_thr if isinstance(self.neg_iou_thr, tuple) else (0.0, self.neg_iou_thr)
        given = torch.where((best >= low) & (best < high), 0, -1)
        given = torch.where(best >= self.pos_iou_thr, which + 1, given)
        if self.match_low_quality:
            given = self._at_least_one(given, overlaps)
        labels = torch.where(given > 0, gt_labels[(given - 1).clamp(min=0)], -1)
        return AssignResult(num_gts=len(overlaps), gt_inds=given, max_overlaps=best, labels=labels)

    def _at_least_one(self, given: Tensor, overlaps: Tensor) -> Tensor:
        """Objects in ascending number take the boxes that overlap most with them, also from those before them."""
        most, place = overlaps.max(dim=1)
        number = torch.arange(1, len(overlaps) + 1, device=overlaps.device)
        number = torch.where(most >= self.min_pos_iou, number, 0)
        if self.gt_max_assign_all:
            kind = torch.int16 if len(overlaps) < 2**15 else torch.int64
            taken = torch.where(overlaps == most[:, None], number[:, None].to(kind), 0).amax(dim=0).long()
        else:
            taken = torch.zeros_like(given).scatter_reduce(0, place, number, 'amax')
        return torch.where(taken > 0, taken, given)


@TASK_UTILS.register_module()
class WaitlessAnchorGenerator(AnchorGenerator):
    """mmdet's, whose anchors stay on the device that first asked for them; same arguments."""

    def single_level_grid_priors(
        self,
        featmap_size: tuple[int, int],
        level_idx: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cuda',
    ) -> Tensor:
        self.base_anchors[level_idx] = self.base_anchors[level_idx].to(device)
        return super().single_level_grid_priors(featmap_size, level_idx, dtype, device)


@MODELS.register_module()
class WaitlessDetDataPreprocessor(DetDataPreprocessor):
    """mmdet's, with copies to the device that are not waited for, and BGR turned into RGB without an index tensor."""

    def __init__(self, *args, non_blocking: bool = True, **kwargs) -> None:
        super().__init__(*args, non_blocking=non_blocking, **kwargs)
        self._turns, self._channel_conversion = self._channel_conversion, False

    def cast_data(self, data):
        """As mmengine's; images in three channels are turned on the way."""
        data = super().cast_data(data)
        if self._turns and isinstance(data, dict) and 'inputs' in data:
            inputs = data['inputs']
            if isinstance(inputs, Tensor):
                data['inputs'] = inputs.flip(1)
            else:
                data['inputs'] = [image.flip(0) if image.shape[0] == 3 else image for image in inputs]
        return data
