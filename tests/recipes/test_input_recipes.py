"""A recipe trains with every way of feeding it: the default chain, shards by URL, decoding on the device."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.runner import Runner
from PIL import Image
from tiny_run import shrunken

from mim_mm.data.image_sources import open_source
from mim_mm.data.shards import plan_shards, write_shards
from mim_mm.engine.hooks.progress import ProgressHook

PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@pytest.fixture
def jpegs(tmp_path):
    root = tmp_path / 'jpegs'
    for i in range(8):
        (root / f'class{i % 2}').mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40 + i, 50, 3), dtype=np.uint8)).save(out, 'JPEG')
        (root / f'class{i % 2}' / f'{i}.jpg').write_bytes(out.getvalue())
    return root


def train(cfg, work_dir, name):
    cfg.merge_from_dict({
        'train_cfg.max_epochs': 2, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1, 'work_dir': str(work_dir),
    })  # fmt: skip
    cfg.experiment_name = name
    runner = Runner.from_cfg(cfg)
    runner.register_hook(ProgressHook(interval=1, min_seconds=0), 'LOWEST')  # as tools/train.py does
    runner.train()
    progress = json.loads((work_dir / 'progress.json').read_text())
    assert runner.iter == 4 and progress['finished'] and progress['loss'] > 0
    assert 0 <= progress['train']['data_wait'] <= 100
    if Path('/proc/self/smaps_rollup').exists():
        assert 0.05 < progress['train']['host_memory'] < 64  # GiB
    return runner


def test_the_default_chain(jpegs, tmp_path):
    cfg = shrunken(**{'train_dataloader.dataset.data_root': str(jpegs), 'train_dataloader.dataset.data_prefix': ''})
    names = [step['type'] for step in cfg.train_dataloader.dataset.pipeline]
    assert names == ['LazyLoadImageFromFile', 'FastRandomResizedCrop', 'FastRandomFlip', 'PackImage']
    train(cfg, tmp_path / 'run', 'default-input')


def test_streamed_shards(jpegs, tmp_path):
    pytest.importorskip('webdataset')
    write_shards(plan_shards(open_source(str(jpegs)), 2), tmp_path / 's', lambda text: None)
    cfg = shrunken()
    pipeline = cfg.train_dataloader.dataset.pipeline
    urls = str(tmp_path / 's/train-{000000..000003}.tar')
    cfg.train_dataloader.dataset = dict(type='StreamedImages', urls=urls, images=8, batch_size=4, pipeline=pipeline)
    cfg.train_dataloader.sampler = None
    cfg.train_dataloader.num_workers = 1
    runner = train(cfg, tmp_path / 'run', 'streamed-input')
    assert len(runner.train_dataloader) == 2


def test_decoding_on_the_device(jpegs, tmp_path):
    cfg = shrunken(**{'train_dataloader.dataset.data_root': str(jpegs), 'train_dataloader.dataset.data_prefix': ''})
    crop = dict(type='CropOnDevice', scale=32, crop_ratio_range=(0.2, 1.0))
    cfg.train_dataloader.dataset.pipeline = [dict(type='LazyLoadImageFromFile'), crop]
    cfg.train_dataloader.collate_fn = dict(type='pseudo_collate')
    cfg.model.data_preprocessor = dict(type='DecodingPreprocessor', size=32, **PREPROCESSOR)
    runner = train(cfg, tmp_path / 'run', 'device-input')
    sent = next(iter(runner.train_dataloader))
    whole = {path.read_bytes() for path in jpegs.rglob('*.jpg')}
    assert len(sent['inputs']) == 4 and all(bytes(file.numpy()) in whole for file in sent['inputs'])
    images = runner.model.data_preprocessor(sent)['inputs']
    # By Pillow: the box of the file, resized; lossy decoders and 8-bit rounding differ by a few of 255.
    for image, file, box, flip in zip(images, sent['inputs'], sent['box'], sent['flip']):
        top, left, height, width = box.tolist()
        crop = Image.open(io.BytesIO(file.numpy().tobytes())).crop((left, top, left + width, top + height))
        want = np.asarray(crop.resize((32, 32), Image.BICUBIC), np.float32)
        want = (want[:, ::-1] if flip else want) - np.float32(PREPROCESSOR['mean'])
        difference = image.permute(1, 2, 0).numpy() * np.float32(PREPROCESSOR['std']) - want
        assert np.abs(difference).mean() < 3
