"""Batches that reach the device without a wait: labelled images in two copies, and BEiT's two views.

mmpretrain's default makes a list: each image and its DataSample pass from the worker, to the device and through the
normalisation by themselves, and the host waits for the device once an image. The numbers are the same, bit by bit.
"""

from __future__ import annotations

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmpretrain.models.utils.batch_augments import CutMix, Mixup
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor, TwoNormDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from mim_mm.registry import FUNCTIONS, MODELS


@FUNCTIONS.register_module()
def collate_labelled(samples: list[dict]) -> dict:
    """What mmpretrain's ``PackInputs`` gives of B images, as two tensors; for ``train_dataloader.collate_fn``.

    Args:
        samples: ``dict(inputs=tensor (C, h, w), data_samples=DataSample)``.

    Returns:
        ``dict(inputs=(B, C, h, w), labels=long (B,))`` for images of one size with one ``gt_label`` each and nothing
        else but what describes the file, which is dropped; with ``boxes``, long (B, 4), where ``RandomErasingBox``
        drew some. Anything else as mmengine's ``pseudo_collate`` leaves it.
    """
    plain = all(
        set(sample) == {'inputs', 'data_samples'}
        and set(sample['data_samples'].keys()) == {'gt_label'}
        and len(sample['data_samples'].gt_label) == 1
        for sample in samples
    )
    if not plain or len({sample['inputs'].shape for sample in samples}) > 1:
        return pseudo_collate(samples)
    labels = torch.cat([sample['data_samples'].gt_label for sample in samples])
    batch = dict(inputs=default_collate([sample['inputs'] for sample in samples]), labels=labels)
    boxes = [sample['data_samples'].metainfo.get('erase_box') for sample in samples]
    return batch if None in boxes else dict(batch, boxes=torch.tensor(boxes))


@MODELS.register_module()
class LabelledPreprocessor(ClsDataPreprocessor):
    """mmpretrain's, without a wait for the device in batches of :func:`collate_labelled`.

    Mixup and CutMix draw as mmpretrain's and mix the same pairs. Boxes of :class:`mim_mm.data.erasing.RandomErasingBox`
    are filled behind the normalisation and in front of these. Other batches (lists of images, of validation for one)
    go mmpretrain's way. Arguments are those of ``ClsDataPreprocessor``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.batch_augments is not None:
            self.batch_augments.augments = [_without_wait(augment) for augment in self.batch_augments.augments]

    def forward(self, data: dict, training: bool = False) -> dict:
        """Standardised images (B, C, H, W) and B DataSamples with ``gt_label``, and ``gt_score`` where they are mixed.

        Raises:
            ValueError: one-hot labels are wanted and ``num_classes`` is not known, or boxes to be erased came with
                images that are no plain batch.
        """
        if 'labels' not in data:
            if any('erase_box' in sample for sample in data.get('data_samples') or ()):
                raise ValueError(
                    'RandomErasingBox wants batches of one image size with one label each, and as collate_fn of the '
                    "loader dict(type='mim_mm.collate_labelled'); else take mmpretrain's RandomErasing"
                )
            return super().forward(data, training)
        images = super().forward(dict(inputs=copied(data['inputs'], self.device)), training)['inputs']
        if 'boxes' in data:
            images = erased(images, data['boxes'])
        labels, scores = copied(data['labels'], self.device), None
        samples = [DataSample().set_gt_label(label) for label in labels.split(1)]
        if self.to_onehot:
            if self.num_classes is None:
                raise ValueError('data_preprocessor.num_classes is None: mixed labels need the number of classes')
            scores = F.one_hot(labels, self.num_classes)
            if training and self.batch_augments is not None:
                images, scores = self.batch_augments(images, scores)
            for sample, score in zip(samples, scores.unbind()):
                sample.set_gt_score(score)
        return dict(inputs=images, data_samples=samples)


@MODELS.register_module()
class TwoNormPreprocessor(TwoNormDataPreprocessor):
    """mmpretrain's, turning BGR into RGB without the index tensor that it sends to the device for each view."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._turns, self._channel_conversion = self._channel_conversion, False

    def forward(self, data: dict, training: bool = False) -> dict:
        """``data['inputs']``, two views (B, 3, h, w) as uint8, to the same as normalised fp32, each in its own way."""
        data = self.cast_data(data)
        if self._turns:
            data['inputs'] = [view.flip(1) for view in data['inputs']]
        return super().forward(data, training)


def erased(images: Tensor, boxes: Tensor) -> Tensor:
    """Standardised images with N(0, 1) in their boxes; the device is not waited for.

    Args:
        images: (B, C, H, W).
        boxes: long (B, 4) on the host: top, left, height, width; a height of 0 for none.
    """
    chosen = boxes[:, 2].nonzero().flatten()
    if not len(chosen):
        return images
    top, left, height, width = boxes[chosen].T[..., None]
    rows, columns = (torch.arange(side) for side in images.shape[-2:])
    inside = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    hidden = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    chosen, hidden = (copied(part, images.device) for part in (chosen, hidden))
    picked = images[chosen]
    noise = torch.randn_like(picked)
    return images.index_copy(0, chosen, torch.where(hidden, noise, picked))


def copied(host: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on the device; nobody waits for the copy (a tensor that is not pinned yet is)."""
    device = torch.device(device)
    if device.type != 'cuda' or host.device.type != 'cpu':
        return host.to(device)
    return (host if host.is_pinned() else host.pin_memory()).to(device, non_blocking=True)


class _Mixup(Mixup):
    """mmpretrain's, whose order of the images is not waited for."""

    def mix(self, batch_inputs: Tensor, batch_scores: Tensor) -> tuple[Tensor, Tensor]:
        lam = np.random.beta(self.alpha, self.alpha)
        order = copied(torch.randperm(len(batch_inputs)), batch_inputs.device)
        mixed = (lam * values + (1 - lam) * values[order] for values in (batch_inputs, batch_scores))
        return tuple(mixed)


class _CutMix(CutMix):
    """mmpretrain's, whose order of the images is not waited for."""

    def mix(self, batch_inputs: Tensor, batch_scores: Tensor) -> tuple[Tensor, Tensor]:
        lam = np.random.beta(self.alpha, self.alpha)
        order = copied(torch.randperm(len(batch_inputs)), batch_inputs.device)
        (top, bottom, left, right), lam = self.cutmix_bbox_and_lam(batch_inputs.shape[-2:], lam)
        batch_inputs[:, :, top:bottom, left:right] = batch_inputs[order, :, top:bottom, left:right]
        return batch_inputs, lam * batch_scores + (1 - lam) * batch_scores[order]


def _without_wait(augment):
    """The same augmentation with ours in the place of mmpretrain's own; others, and None, as they are."""
    kind = {Mixup: _Mixup, CutMix: _CutMix}.get(type(augment))
    if kind is None:
        return augment
    ours = kind.__new__(kind)
    vars(ours).update(vars(augment))
    return ours
