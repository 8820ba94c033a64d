"""What frozen features are worth on labelled images, without training an encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mim_mm.api.encoder import LoadedEncoder, load_encoder
from mim_mm.evaluation.frozen import draws as several_draws
from mim_mm.evaluation.frozen import knn, label_free, lowshot
from mim_mm.evaluation.frozen.drawn_images import DrawnImages, Views, find_images
from mim_mm.evaluation.frozen.features import Features, extract
from mim_mm.evaluation.frozen.folder_images import FolderImages

__all__ = ['effective_ranks', 'evaluate', 'few_shot']

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
    train, val = _labelled(encoder, data, amp, batch_size, workers)
    result: dict[str, dict[str, float]] = {name: _MEASURE[name](train, val) for name in measures}
    return dict(result, images=dict(train=len(train.labels), val=len(val.labels)))


def few_shot(
    encoder: str | os.PathLike | LoadedEncoder,
    data: str | os.PathLike,
    shots: Sequence[int] = (1, 2, 5),
    draws: Sequence[int] = (0, 1, 2),
    *,
    batch_size: int = 128,
    workers: int = 0,
    amp: str | None = None,
) -> list[dict]:
    """Logistic regression on n labelled images of each class, as tools/lowshot.py ``--shots``.

    Args:
        data: as for :func:`evaluate`. draws: seeds.

    Returns:
        Mean and spread over the draws for each n, see :func:`mim_mm.evaluation.frozen.draws.summarise`.

    Raises:
        ValueError: naming a class with fewer images.
    """
    train, val = _labelled(encoder, data, amp, batch_size, workers)
    splits = [lowshot.draw_shots(train.labels, n, train.classes, seed) for n in shots for seed in draws]
    return several_draws.summarise([lowshot.low_shot(train, val, split) for split in splits])


def effective_ranks(
    encoder: str | os.PathLike | LoadedEncoder,
    images: str | os.PathLike,
    *,
    at_most: int = label_free.IMAGES,
    surrogates: int = label_free.SURROGATES,
    views: int = 50,
    seed: int = 0,
    batch_size: int = 128,
    workers: int = 0,
    amp: str | None = None,
) -> dict[str, dict]:
    """RankMe and LiDAR of images without labels, as tools/label_free.py.

    Args:
        images: folder at any depth, list or tar shards. at_most, surrogates: images of RankMe and of LiDAR.

    Returns:
        ``{pooling: dict(width, rankme, lidar, below_delta)}``, see :func:`mim_mm.evaluation.frozen.label_free.ranks`.
    """
    encoder = encoder if isinstance(encoder, LoadedEncoder) else load_encoder(encoder)
    infos, root = find_images(encoder.config, images)
    parts = [(at_most, None), (surrogates, Views(views, seed=seed))]
    drawn = [DrawnImages(infos, root, encoder.preprocess, count, shown, seed) for count, shown in parts]
    options = dict(batch_size=batch_size, workers=workers, device=encoder.device)
    return label_free.ranks(*(extract(encoder.backbone, part, encoder.preprocess, amp, **options) for part in drawn))


def _labelled(encoder, data, amp: str | None, batch_size: int, workers: int) -> tuple[Features, Features]:
    encoder = encoder if isinstance(encoder, LoadedEncoder) else load_encoder(encoder)
    train = FolderImages(data, 'train', encoder.preprocess)
    val = FolderImages(data, 'val', encoder.preprocess, train.classes)
    options = dict(batch_size=batch_size, workers=workers, device=encoder.device)
    train_found, val_found = (extract(encoder.backbone, d, encoder.preprocess, amp, **options) for d in (train, val))
    return train_found, val_found


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
