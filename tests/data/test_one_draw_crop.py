"""MAE's crop: one draw, clipped; against a plain restatement and against mmpretrain's ten tries."""

import math

import numpy as np
import pytest
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import Image

from mim_mm.data.one_draw_crop import MAERandomResizedCrop
from mim_mm.registry import TRANSFORMS


def boxes(crop, image, count=400):
    np.random.seed(3)
    return np.array([crop.rand_crop_params(image) for _ in range(count)])


def test_one_draw_clipped_to_the_image():
    image = np.zeros((30, 200, 3), np.uint8)
    crop = MAERandomResizedCrop(scale=16)
    np.random.seed(7)
    found = [crop.rand_crop_params(image) for _ in range(200)]
    np.random.seed(7)
    for top, left, h, w in found:
        area = (0.08 + 0.92 * np.random.rand()) * 30 * 200
        low, high = math.log(3 / 4), math.log(4 / 3)
        aspect = math.exp(low + (high - low) * np.random.rand())
        assert h == min(30, round(math.sqrt(area / aspect))) and w == min(200, round(math.sqrt(area * aspect)))
        assert top == np.random.randint(30 - h + 1) and left == np.random.randint(200 - w + 1)


def test_large_crops_of_a_wide_image_are_kept():
    image = np.zeros((30, 200, 3), np.uint8)
    once, tries = (boxes(kind(scale=16), image) for kind in (MAERandomResizedCrop, RandomResizedCrop))
    assert (once[:, 2] <= 30).all() and (once[:, 1] + once[:, 3] <= 200).all()
    # most draws are higher than 30 px: cut here, drawn again there until one happens to fit
    assert (once[:, 2] == 30).mean() > 0.8 and (once[:, 3] > 40).mean() > 0.6
    assert (tries[:, 3] > 40).mean() < 0.1 and np.median(once[:, 3]) > np.median(tries[:, 3])


def test_crops_that_fit_anyway_are_the_same():
    image = np.zeros((100, 100, 3), np.uint8)
    options = dict(scale=16, crop_ratio_range=(0.08, 0.5), aspect_ratio_range=(0.8, 1.25))
    once, tries = (boxes(kind(**options), image) for kind in (MAERandomResizedCrop, RandomResizedCrop))
    assert np.array_equal(once, tries) and len(np.unique(once, axis=0)) > 390


def test_in_a_pipeline():
    step = dict(type='mim_mm.MAERandomResizedCrop', scale=24, interpolation='bicubic')
    image = np.random.default_rng(0).integers(0, 255, (3, 90, 3), dtype=np.uint8)
    result = TRANSFORMS.build(step)(dict(img=image))
    assert result['img'].shape == (24, 24, 3) and result['img_shape'] == (24, 24)
    np.random.seed(0)
    whole = MAERandomResizedCrop(scale=(3, 90), crop_ratio_range=(90.0, 90.0))
    assert np.array_equal(whole(dict(img=image))['img'], image)  # cut at every side
    with pytest.raises(ValueError, match='aspect_ratio_range=.2, 1. must be'):
        MAERandomResizedCrop(scale=24, aspect_ratio_range=(2, 1))


def test_pixels_are_those_of_mmpretrains_crop():
    smooth = np.random.default_rng(0).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((60, 50), Image.Resampling.BICUBIC))
    options = dict(scale=24, crop_ratio_range=(0.1, 0.4), interpolation='bicubic')
    np.random.seed(1)
    once = MAERandomResizedCrop(**options)(dict(img=image))
    np.random.seed(1)
    tries = RandomResizedCrop(backend='pillow', **options)(dict(img=image))
    # Pillow and torch round in different places.
    assert np.abs(once['img'].astype(int) - tries['img'].astype(int)).max() <= 1


def test_a_file_is_decoded_no_further_than_its_crop(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((120, 90), Image.Resampling.BICUBIC).save(tmp_path / 'a.jpg', quality=95)
    crops = []
    for steps in (
        [dict(type='mim_mm.LazyLoadImageFromFile'), dict(type='mim_mm.MAERandomResizedCrop', scale=32)],
        [dict(type='mmpretrain.LoadImageFromFile'), dict(type='mim_mm.MAERandomResizedCrop', scale=32)],
    ):
        np.random.seed(4)
        results = dict(img_path=str(tmp_path / 'a.jpg'))
        for step in steps:
            results = TRANSFORMS.build(step)(results)
        crops.append(results['img'].astype(int))
    assert np.abs(crops[0] - crops[1]).max() <= 3  # decoders differ in the last bits of chroma
