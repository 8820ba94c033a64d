"""What frozen features show without any label: RankMe and LiDAR of the images of a folder, for each pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from mim_mm.evaluation.frozen.drawn_images import DrawnImages, Views, find_images
from mim_mm.evaluation.frozen.features import Features, Source, built_once, load_or_extract
from mim_mm.evaluation.frozen.ranks import DELTA, EPSILON, lidar, rankme

__all__ = ['IMAGES', 'SURROGATES', 'measure', 'ranks', 'table']

IMAGES = 25_600  # RankMe
SURROGATES = 1_000  # LiDAR: images that are a class each


def ranks(crops: Features, views: Features, delta: float = DELTA, epsilon: float = EPSILON) -> dict[str, dict]:
    """Both ranks of each pooling.

    Args:
        crops: of images once each, as they are after the encoder's final norm; not normalised any further.
        views: of images several times each, all views of an image in succession, with the image as label.

    Returns:
        ``{pooling: dict(width, rankme, lidar, below_delta)}``; ``below_delta``: see :class:`ranks.Lidar`.
    """
    classes = int(views.labels.max()) + 1
    found = {}
    for pooling in crops.poolings:
        features = crops.get(pooling)
        value, below = lidar(views.get(pooling).unflatten(0, (classes, -1)), delta, epsilon)
        rank = float(rankme(features.double(), epsilon))
        found[pooling] = dict(width=features.shape[1], rankme=rank, lidar=value, below_delta=below)
    return found


def measure(
    source: Source,
    folder: Path,
    images: str | None = None,
    at_most: int = IMAGES,
    surrogates: int = SURROGATES,
    views: Views | None = None,
    delta: float = DELTA,
    seed: int = 0,
    begun: Callable[[Features], None] = lambda features: None,
    **extraction,
) -> tuple[dict, dict[str, dict]]:
    """Extract, or find stored, and measure.

    Args:
        folder: of stored features.
        images: see :func:`mim_mm.evaluation.frozen.drawn_images.find_images`.
        at_most, surrogates: images of RankMe and of LiDAR, drawn by ``seed``; all where there are fewer.
        begun: called with the features of the first part, before the second is extracted.
        extraction: batch_size, workers, device.

    Returns:
        ``dict(images, drawn=dict(rankme, lidar), views=dict, delta, epsilon, seed, results)`` with ``results`` of
        :func:`ranks`, and the provenance of both parts' features.

    Raises:
        ValueError: fewer than two images; others: see ``find_images`` and :func:`ranks`.
    """
    views = views or Views()
    infos, root = find_images(source.cfg, images)
    if min(len(infos), at_most, surrogates) < 2:
        raise ValueError(f'{len(infos)} images, of which {at_most} and {surrogates} are wanted: two or more are needed')
    crops = DrawnImages(infos, root, source.preprocess, at_most, seed=seed)
    again = DrawnImages(infos, root, source.preprocess, surrogates, views, seed)
    extraction['build'] = built_once(source)
    parts = dict(crops=load_or_extract(source, crops, folder, **extraction))
    begun(parts['crops'])
    parts['views'] = load_or_extract(source, again, folder, **extraction)
    result = dict(images=len(infos), drawn=dict(rankme=len(crops.infos), lidar=len(again.infos)), views=asdict(views))
    result.update(delta=delta, epsilon=EPSILON, seed=seed, results=ranks(parts['crops'], parts['views'], delta))
    return result, {name: features.provenance for name, features in parts.items()}


def table(result: dict) -> str:
    """The ranks of :func:`measure` as text, with what limits them."""
    drawn, count = result['drawn'], result['views']['count']
    lines = [
        f'RankMe of {drawn["rankme"]:,} images, LiDAR of {drawn["lidar"]:,} images in {count} views; '
        f'{result["images"]:,} are there',
        f'{"pooling":<10}{"RankMe":>9}{"LiDAR":>9}{"width":>8}',
    ]
    for pooling, v in result['results'].items():
        notes = [f'RankMe is at most {drawn["rankme"]}'] * (drawn['rankme'] <= v['width'])
        notes += [f'LiDAR is at most {drawn["lidar"] - 1}'] * (drawn['lidar'] <= v['width'])
        if v['below_delta']:
            notes.append(f'delta {result["delta"]:g} is the noise along {v["below_delta"]} directions')
        lines.append(f'{pooling:<10}{v["rankme"]:>9.2f}{v["lidar"]:>9.2f}{v["width"]:>8}  {"; ".join(notes)}'.rstrip())
    return '\n'.join(lines)
