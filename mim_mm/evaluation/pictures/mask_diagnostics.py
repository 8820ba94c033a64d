"""What masks do, in numbers: where they lie, how much they hide, what they hide of the objects, and how S is spread.

S is the salience of :func:`mim_mm.masking.salience` (SBAM, ECCV 2024). It is measured under any masker, because what
matters during a random warm-up is what a salience masker *would* find.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mim_mm.masking import MaskPlan, salience
from mim_mm.registry import METRICS

__all__ = ['MaskDiagnostics', 'centre_crop', 'coco_foreground', 'coverage', 'hidden_foreground', 'hidden_ratios']

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def coverage(plan: MaskPlan) -> Tensor:
    """(N,) fp32: of all (image, part) pairs, the share that hides the patch at each position; absent parts left out."""
    present = plan.lengths > 0
    return plan.mask[present].float().mean(dim=0)


def hidden_ratios(plan: MaskPlan) -> Tensor:
    """(B, K) fp32: the share of its patches that each part of each image hides; NaN for a part that is absent."""
    ratios = plan.mask.float().mean(dim=-1)
    return ratios.masked_fill((plan.lengths == 0).to(ratios.device), math.nan)


def hidden_foreground(mask: Tensor, foreground: Tensor) -> Tensor:
    """How much of the foreground is hidden.

    Args:
        mask: bool (B, K, N), True = hidden.
        foreground: (B, N), the share of each patch that objects cover, in 0..1.

    Returns:
        (B, K) fp32, hidden foreground area over all foreground area; NaN for an image without foreground.
    """
    if foreground.shape != mask.shape[::2]:
        raise ValueError(
            f'foreground has shape {tuple(foreground.shape)}, masks {tuple(mask.shape)}: it must be (images, patches)'
        )
    area = foreground.float()[:, None]
    return (mask * area).sum(-1) / area.sum(-1)


def masker_threshold(masker) -> float | None:
    """delta of the adaptive ratio of a masker, None when its ratio is fixed."""
    masker = getattr(masker, 'inner', masker)
    return getattr(getattr(masker, 'ratio', None), 'threshold', None)


@METRICS.register_module()
class MaskDiagnostics:
    """Measures one batch of masks; :class:`mim_mm.engine.hooks.mask_diagnostics_hook.MaskDiagnosticsHook` calls it.

    Args:
        threshold: delta of "fraction of S > delta"; None takes the masker's own where its ratio is adaptive, else 0.5.
        bins: of the histogram of S over [0, 1].
        max_images: S is measured on the first so many images of a batch, which bounds its cost (an N x N product each).
    """

    def __init__(self, threshold: float | None = None, bins: int = 20, max_images: int = 64) -> None:
        if bins < 1 or max_images < 1:
            raise ValueError(f'bins={bins} and max_images={max_images} must be at least 1')
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f'threshold is {threshold}: S lies in [0, 1], so must delta, e.g. 0.5')
        self.threshold, self.bins, self.max_images = threshold, bins, max_images

    @torch.no_grad()
    def __call__(self, tokens: Tensor, plan: MaskPlan, masker=None) -> tuple[dict, dict]:
        """One look at a batch.

        Args:
            tokens: (B, N, D) with position embedding, as the masker got them.
            plan: what the masker made of them.
            masker: read for its delta and logit scale only.

        Returns:
            Scalars for a log (``mask_ratio`` and ``mask_ratio_std`` over images and parts, ``mask_coverage_min`` and
            ``mask_coverage_max`` over positions, ``salience_median``, ``salience_above``: fraction of S > delta), and
            the arrays behind them as lists: ``coverage`` (N), ``ratio_counts`` (hidden patches -> how many parts hide
            so many), ``salience_quantiles`` (probability -> S), ``salience_histogram`` (counts), ``threshold``,
            ``images``, ``parts``.
        """
        ratios = hidden_ratios(plan)
        ratios = ratios[~ratios.isnan()]
        hidden_at = coverage(plan)
        counts = (ratios * plan.num_patches).round().long()
        values, times = counts.unique(return_counts=True)
        scalars = dict(
            mask_ratio=float(ratios.mean()),
            mask_ratio_std=float(ratios.std(correction=0)),
            mask_coverage_min=float(hidden_at.min()),
            mask_coverage_max=float(hidden_at.max()),
        )
        arrays = dict(
            images=plan.order.shape[0],
            parts=plan.num_parts,
            coverage=[round(v, 4) for v in hidden_at.tolist()],
            ratio_counts=dict(zip(map(str, values.tolist()), times.tolist())),
        )
        threshold = self.threshold
        if threshold is None:
            own = masker_threshold(masker)
            threshold = 0.5 if own is None else float(own)
        spread = self.spread(salience(tokens[: self.max_images], getattr(masker, 'logit_scale', None)), threshold)
        scalars.update(salience_median=spread['salience_quantiles']['0.5'], salience_above=spread.pop('above'))
        return scalars, {**arrays, **spread, 'threshold': threshold}

    def spread(self, scores: Tensor, threshold: float) -> dict:
        """Quantiles, histogram and ``above`` (fraction > threshold) of salience (B, N)."""
        flat = scores.float().flatten().cpu()
        quantiles = torch.quantile(flat, torch.tensor(QUANTILES)).tolist()
        return dict(
            salience_quantiles={f'{q:g}': round(v, 6) for q, v in zip(QUANTILES, quantiles)},
            salience_histogram=torch.histc(flat, self.bins, 0.0, 1.0).long().tolist(),
            above=float((flat > threshold).float().mean()),
        )


# ---- foreground of COCO-format annotations


def centre_crop(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The largest part of (H, W, ...) around its centre with the proportions of ``grid``, rows to columns."""
    rows, columns = grid
    height = min(image.shape[0], max(1, image.shape[1] * rows // columns))
    width = min(image.shape[1], max(1, image.shape[0] * columns // rows))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def coco_foreground(annotations: str | Path, folder: str | Path, grid: tuple[int, int], limit: int | None = None):
    """Images of a COCO-format file with the share of each patch that annotated objects cover.

    Everything is cropped around the centre to the proportions of the grid. Crowd regions are left out; an image whose
    crop holds no object is skipped.

    Args:
        annotations: instances file with ``images`` and ``annotations`` (``bbox``, ``segmentation`` where there is).
        folder: where the images lie.
        grid: rows and columns of patches.
        limit: at most so many images, the first of the file.

    Yields:
        ``(path, {'boxes': (N,), 'masks': (N,) or None})``, float32 in 0..1. ``masks`` is None where an object of the
        image has no outline.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: nothing to measure on.
    """
    from pycocotools.coco import COCO  # here: importing the room must not need it

    if not Path(annotations).is_file():
        raise FileNotFoundError(f'there is no annotation file {annotations}; give a COCO instances_*.json')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotations))
    found = 0
    for info in coco.loadImgs(sorted(coco.getImgIds())):
        if limit is not None and found >= limit:
            return
        objects = [a for a in coco.loadAnns(coco.getAnnIds(imgIds=info['id'])) if not a.get('iscrowd')]
        kinds = dict(boxes=_boxes(objects, info['height'], info['width']), masks=_outlines(coco, objects))
        cover = {kind: None if full is None else _to_grid(full, grid) for kind, full in kinds.items()}
        if cover['boxes'].sum() == 0 or (cover['masks'] is not None and cover['masks'].sum() == 0):
            continue
        path = Path(folder) / info['file_name']
        if not path.is_file():
            raise FileNotFoundError(
                f'{annotations} names {info["file_name"]}, which is not in {folder}; give the folder of its images'
            )
        found += 1
        yield path, cover
    if not found:
        raise ValueError(f'{annotations}: no image has an object in its centre crop, so there is nothing to measure')


def _boxes(objects: list, height: int, width: int) -> np.ndarray:
    filled = np.zeros((height, width), np.float32)
    for item in objects:
        x, y, w, h = item['bbox']
        filled[max(0, int(y)) : math.ceil(y + h), max(0, int(x)) : math.ceil(x + w)] = 1
    return filled


def _outlines(coco, objects: list) -> np.ndarray | None:
    masks = [coco.annToMask(item) for item in objects if item.get('segmentation')]
    if len(masks) < len(objects) or not masks:
        return None
    return np.maximum.reduce(masks).astype(np.float32)


def _to_grid(full: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Covered share of each patch: INTER_AREA is the mean over the patch, also where its borders cut pixels."""
    rows, columns = grid
    return cv2.resize(centre_crop(full, grid), (columns, rows), interpolation=cv2.INTER_AREA).reshape(-1)
