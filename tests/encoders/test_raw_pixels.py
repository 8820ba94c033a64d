"""Pixels as features: the k-NN on them is the k-NN on flattened images."""

import pytest
import torch

from mim_mm.encoders import reader_of
from mim_mm.evaluation.frozen.features import encode
from mim_mm.evaluation.frozen.knn import knn_accuracy
from mim_mm.evaluation.probes.multi_probe import MultiProbe
from mim_mm.registry import MODELS


def test_features_are_the_pixels():
    pixels = MODELS.build(dict(type='mim_mm.RawPixels', img_size=4))
    images = torch.randn(5, 3, 4, 4)
    assert torch.equal(encode(pixels, images)['mean'], images.reshape(5, 48))
    (tokens,) = reader_of(pixels).read(images, [0])
    assert torch.equal(tokens, images.reshape(5, 1, 48))


def test_nearest_neighbour_of_a_brightened_image_is_the_image_itself():
    images, labels = torch.rand(20, 3, 8, 8), torch.arange(20)
    pixels = MODELS.build(dict(type='mim_mm.RawPixels', img_size=8))
    bank, queries = (encode(pixels, each)['mean'] for each in (images, images * 1.5))
    assert knn_accuracy(bank, labels, queries, labels, 20, ks=[1])[1]['top1'] == 100


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match='set img_size'):
        MODELS.build(dict(type='mim_mm.RawPixels', img_size=8))(torch.rand(1, 3, 4, 4))


def test_probe_on_pixels_sees_every_pixel():
    probe = MultiProbe(
        dict(type='mim_mm.RawPixels', img_size=4),
        dict(num_classes=3, blocks=(1,), pooling=('mean',), norm=(False,), lrs=(0.1,)),
        autocast=False,
    )
    images = torch.randn(2, 3, 4, 4)
    linear = next(iter(probe.head.linears.values()))
    (logits,) = probe(images).values()
    torch.testing.assert_close(logits, images.reshape(2, 48) @ linear.weight.T + linear.bias)
