"""Figures made of predictions: corruption error, calibration error, ReaL accuracy. Arrays in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mim_mm.folders import DataError

# Mean top-1 error of AlexNet over the five severities: Hendrycks and Dietterich, ICLR 2019, as their repository has it.
ALEXNET = dict(
    gaussian_noise=0.886428, shot_noise=0.894468, impulse_noise=0.922640, defocus_blur=0.819880, glass_blur=0.826268,
    motion_blur=0.785948, zoom_blur=0.798360, snow=0.866816, frost=0.826572, fog=0.819324, brightness=0.564592,
    contrast=0.853204, elastic_transform=0.646056, pixelate=0.717840, jpeg_compression=0.606500,
)  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)
BINS = 15  # Guo et al., ICML 2017


def mean_corruption_error(top1: Mapping[str, Mapping[int, float]]) -> tuple[float, dict[str, float]]:
    """mCE of ImageNet-C and its parts, in per cent: 100 is AlexNet's, smaller is better.

    CE of a corruption is the sum of the errors at the five severities over AlexNet's; mCE the mean of the fifteen
    (Hendrycks and Dietterich, equation 1).

    Args:
        top1: corruption -> severity -> accuracy in per cent.

    Raises:
        DataError: a corruption or severity is missing, so that the mean would be another figure.
    """
    missing = [f'{name}/{s}' for name in ALEXNET for s in SEVERITIES if s not in top1.get(name, {})]
    if missing:
        raise DataError(f'mCE needs {len(ALEXNET)} corruptions at severities 1 to 5; {missing[0]} is missing')
    parts = {
        name: 100 * sum(1 - top1[name][s] / 100 for s in SEVERITIES) / (len(SEVERITIES) * alexnet)
        for name, alexnet in ALEXNET.items()
    }
    return sum(parts.values()) / len(parts), parts


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error in per cent (Guo et al. 2017, equation 3): bins of equal width, weighed by images.

    Args:
        confidence: (n,) probability of the predicted class.
        correct: (n,) whether it was right.
    """
    places = np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, np.asarray(correct, np.float64) - confidence, minlength=bins)  # of sums
    return float(100 * np.abs(gaps).sum() / len(confidence))


def real_accuracy(files: Sequence[str], predicted: np.ndarray, labels: Sequence[Sequence[int]]) -> tuple[float, int]:
    """ImageNet-ReaL (Beyer et al. 2020): right if among the labels that people gave; images without any do not count.

    Args:
        files: names as ``ILSVRC2012_val_00000001.JPEG``, whose number says which entry of ``labels`` is meant.
        predicted: (n,) classes.
        labels: ``real.json``, one list an image of the validation set.

    Returns:
        Accuracy in per cent, and of how many images.

    Raises:
        DataError: a file without such a number, or with one that the list does not have.
    """
    right = []
    for file, label in zip(files, predicted, strict=True):
        number = re.search(r'ILSVRC2012_val_(\d{8})', file)
        if number is None or not 0 < int(number[1]) <= len(labels):
            raise DataError(
                f"'{file}' has no number of ILSVRC2012_val_00000001 to {len(labels):08}, which ReaL goes by"
            )
        wanted = labels[int(number[1]) - 1]
        if wanted:
            right.append(int(label) in wanted)
    if not right:
        raise DataError('none of these images has a label in ReaL')
    return 100 * sum(right) / len(right), len(right)
