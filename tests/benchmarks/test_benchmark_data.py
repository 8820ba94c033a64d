"""``tools/benchmark.py data``: the pipelines draw the same crops, the figures follow from the seconds."""

import argparse

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from PIL import Image

from mim_mm.benchmarks import data


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / 'photos'
    root.mkdir()
    for i in range(6):
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 255, (9, 12, 3), dtype=np.uint8))
        coarse.resize((120, 90), Image.BICUBIC).save(root / f'{i}.jpg')
    return root


def test_a_whole_run(photos, tmp_path, monkeypatch):
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))  # the crop-only decoder is not built there
    parser = argparse.ArgumentParser()
    data.arguments(parser)
    picture = tmp_path / 'p.png'
    words = ['--images', str(photos), '--count', '4', '--rounds', '2', '--size', '32', '--picture', str(picture)]
    threads = torch.get_num_threads()
    result = data.execute(parser.parse_args(words), lambda text: None)
    torch.set_num_threads(threads)
    rows = {row['name']: row for row in result['rows']}
    assert list(rows)[:2] == [data.REFERENCE, data.PLAIN] and result['images'] == 4
    assert rows[data.REFERENCE]['ratio'] == 1 and rows[data.PLAIN]['identical'] == 1
    fast, reference = rows['fast, OpenCV decodes'], rows[data.REFERENCE]
    assert fast['psnr_min'] >= 50 and fast['ratio'] == pytest.approx(fast['images_s'] / reference['images_s'])
    assert 'not built' in rows['fast, crop-only decoder']['error']
    assert len(result['text'].splitlines()) == 3 + 2 + 5
    with Image.open(picture) as sheet:
        assert sheet.size == (4 * 36, 3 * 50)


def test_all_pipelines_cut_the_same_box(photos):
    path = str(next(photos.iterdir()))
    wanted = (data.REFERENCE, data.PLAIN, 'fast, OpenCV decodes')
    found = {name: Compose(data.pipelines(32)[name]) for name in wanted}
    for seed in range(8):
        crops = {name: data.as_rgb(name, data.crop_of(pipeline, path, seed)) for name, pipeline in found.items()}
        assert len(crops) == 3 and all(data.psnr(crops[data.REFERENCE], crop) >= 50 for crop in crops.values())


def test_psnr_by_hand():
    black = torch.zeros(3, 2, 2, dtype=torch.uint8)
    assert data.psnr(black, black) == float('inf')
    assert data.psnr(black, black + 255) == 0
    assert data.psnr(black, black + 1) == pytest.approx(48.1308, abs=1e-3)  # 20 log10(255)
