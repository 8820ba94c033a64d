"""What frozen features are worth on labelled images, without training an encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mim_mm.api.encoder import LoadedEncoder, load_encoder
from mim_mm.evaluation.frozen import knn, lowshot
from mim_mm.evaluation.frozen.features import Features, extract
from mim_mm.evaluation.frozen.folder_images import FolderImages

__all__ = ['evaluate']

MEASURES = ('knn', 'logistic')


def evaluate(
    encoder: str | os.PathLike | LoadedEncoder,
    data: str | os.PathLike,
    measures: Sequence[str] = MEASURES,
    *,
    batch_size: int = 128,
    workers: int = 0,
    amp: str | None = None,
) -> dict[str, dict[str, float]]:
    """Top-1 of frozen features on the images of a folder.

    Args:
        data: ``data/train/<class>/*`` and ``data/val/<class>/*``.
        measures: ``'knn'``: weighted k-NN as DINO's, with k = 20 or the least that fits; ``'logistic'``: multinomial
            logistic regression, whose C is chosen on held-out training images. Nothing is chosen by the val images.

    Returns:
        ``{measure: {pooling: per cent}}``; poolings are ``mean`` (of the patches) and, with a class token, ``cls`` and
        ``cls_mean``. ``images`` holds the counts of train and val. For published protocols: tools/transfer.py.

    Raises:
        ValueError: an unknown measure, or a val class that train lacks. FileNotFoundError: no such folder.
    """
    wrong = [name for name in measures if name not in MEASURES]
    if wrong:
        raise ValueError(f'measure {wrong[0]!r} must be one of {", ".join(MEASURES)}')
    encoder = encoder if isinstance(encoder, LoadedEncoder) else load_encoder(encoder)
    train = FolderImages(data, 'train', encoder.preprocess)
    val = FolderImages(data, 'val', encoder.preprocess, train.classes)
    options = dict(batch_size=batch_size, workers=workers, device=encoder.device)
    found = [extract(encoder.backbone, part, encoder.preprocess, amp, **options) for part in (train, val)]
    result: dict[str, dict[str, float]] = {name: _MEASURE[name](*found) for name in measures}
    return dict(result, images=dict(train=len(train), val=len(val)))


def _knn(train: Features, val: Features) -> dict[str, float]:
    k = min(20, len(train.labels))
    found = knn.evaluate(train, val, [k])['accuracy']
    return {pooling: accuracy[k]['top1'] for pooling, accuracy in found.items()}


def _logistic(train: Features, val: Features) -> dict[str, float]:
    found = {}
    for pooling in train.poolings:
        fit = lowshot.fit(train.get(pooling), train.labels)
        found[pooling] = lowshot.scores(fit.model, val.get(pooling), val.labels)['top1']
    return found


_MEASURE = dict(knn=_knn, logistic=_logistic)
