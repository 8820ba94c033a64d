"""Decoding in the preprocessor gives the crops of the plain path; on a CPU here, as on a machine without a GPU."""

import numpy as np
import pytest
import torch
from jpegs import KINDS, encoded, fast, photo, psnr
from mmengine.dataset import pseudo_collate
from PIL import Image

from mim_mm.data.device_decode import CropOnDevice, DecodingPreprocessor
from mim_mm.registry import MODELS

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
RATIOS = dict(crop_ratio_range=(0.2, 1.0))


def test_a_batch_of_every_kind(tmp_path):
    files = {f'{kind}.jpg': encoded(photo(60, 90), **dict(options)) for kind, options in KINDS.items()}
    exif = Image.Exif()
    exif[0x0112] = 6
    files |= {'turned.jpg': encoded(photo(60, 90), exif=exif), 'a.png': encoded(photo(60, 90), format='PNG')}
    transform, samples, wanted = CropOnDevice(32, **RATIOS), [], []
    for seed, (name, content) in enumerate(files.items()):
        path = tmp_path / name
        path.write_bytes(content)
        wanted.append(fast(path, 32, seed, 'opencv', flip=0.5))
        np.random.seed(seed)
        samples.append(transform(dict(img_path=str(path), img_bytes=content)))
    on_device = [sample['inputs'].ndim == 1 for sample in samples]
    assert on_device == [name not in ('grey.jpg', 'CMYK.jpg', 'turned.jpg', 'a.png') for name in files]
    assert {sample['flip'] for sample in samples} == {True, False}

    found = DecodingPreprocessor(MEAN, STD, 32)(pseudo_collate(samples))['inputs']
    assert found.shape == (len(files), 3, 32, 32) and found.dtype == torch.float32
    for one, old in zip(found, wanted):
        pixels = one * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        assert psnr(pixels, old) >= 50


def test_it_is_built_by_name_and_refuses_what_cannot_be():
    built = MODELS.build(dict(type='mim_mm.DecodingPreprocessor', mean=MEAN, std=STD))
    assert isinstance(built, DecodingPreprocessor) and built.size == (224, 224)
    with pytest.raises(ValueError, match='std above 0'):
        DecodingPreprocessor(MEAN, [1, 0, 1])
    with pytest.raises(ValueError, match='flip_prob=2'):
        CropOnDevice(32, flip_prob=2)
    assert CropOnDevice(32, skip_unreadable=True)(dict(img_path='a', img_bytes=b'broken')) is None


def test_bytes_that_only_the_host_decodes(monkeypatch):
    """Where the decoder refuses a batch for one file, the others still go through it."""
    import torchvision.io

    real, calls = torchvision.io.decode_jpeg, []

    def picky(data, mode, device='cpu'):
        calls.append((len(data) if isinstance(data, list) else 1, str(device)))
        if isinstance(data, list) or (str(device) == 'cuda' and len(data) == longest):
            raise RuntimeError('not supported')
        return real(data, mode)

    files = [torch.frombuffer(bytearray(encoded(photo(20, 30 + 40 * i, i))), dtype=torch.uint8) for i in range(3)]
    longest = max(len(file) for file in files)
    monkeypatch.setattr(torchvision.io, 'decode_jpeg', picky)
    monkeypatch.setattr(DecodingPreprocessor, 'device', property(lambda self: 'cuda'))
    monkeypatch.setattr(torch.Tensor, 'to', lambda self, *args, **kwargs: self)
    found = DecodingPreprocessor._decode(object.__new__(DecodingPreprocessor), files)
    assert [tuple(image.shape) for image in found] == [(3, 20, 30), (3, 20, 70), (3, 20, 110)]
    assert calls == [(3, 'cuda'), (1, 'cuda'), (1, 'cuda'), (1, 'cuda'), (1, 'cpu')]
