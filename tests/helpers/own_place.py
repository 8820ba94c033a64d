"""A folder with images, classes, boxes and a method of somebody's own, as ``tools/transfer.py --images`` takes them."""

import json

import numpy as np
from mmengine.config import Config
from PIL import Image
from tiny_run import ROOT

from mim_mm.engine.start import guard
from mim_mm.transfer.own.own_data import OwnData

METHOD = f"""
_base_ = r'{ROOT}/configs/emae/emae_vitb_300e.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),
        img_size=32, patch_size=8),
    decoder=dict(embed_dims=32, depth=1, num_heads=2))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomResizedCrop', scale=32, backend='pillow', interpolation='bicubic'),
    dict(type='PackImage'),
]
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader['dataset'] = dict(pipeline=train_pipeline)
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""


def picture(path, shape=(40, 48, 3), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)


def write_place(tmp_path):
    """12 images of 3 classes in one tree, one broken file, boxes of categories 9 and 4 without masks, a tiny method."""
    for label, name in enumerate(('ant', 'bee', 'cat')):
        for i in range(4):
            picture(tmp_path / 'tree' / name / f'{i}.png', seed=10 * label + i)
    (tmp_path / 'tree' / 'ant' / 'broken.jpg').write_text('no image')
    boxes = dict(
        images=[dict(id=i, file_name=f'{i % 4}.png', width=48, height=40) for i in range(4)],
        annotations=[dict(id=i + 1, image_id=i, category_id=(9, 4)[i % 2], bbox=[2, 2, 30, 30]) for i in range(4)],
        categories=[dict(id=9, name='nine'), dict(id=4, name='four')],
    )
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
    (tmp_path / 'tiny.py').write_text(METHOD)
    return tmp_path


def arguments(place, **more):
    return dict(dict(chain=None, work_dir=str(place / 'work'), gpus=0, cfg_options=()), **more)


def everything(place, **more):
    own = dict(
        images=str(place / 'tree'), classes=str(place / 'tree'), boxes=str(place / 'boxes.json'),
        boxes_images=str(place / 'tree' / 'bee'), method=str(place / 'tiny.py'),
    )  # fmt: skip
    return OwnData(**{**own, **more})


def small(path, work_dir, **options):
    cfg = Config.fromfile(str(path))
    for split in [name for name in ('train', 'val', 'test') if f'{name}_dataloader' in cfg]:
        options |= {f'{split}_dataloader.num_workers': 0, f'{split}_dataloader.persistent_workers': False}
    cfg.merge_from_dict({**options, 'work_dir': str(work_dir), 'experiment_name': work_dir.parent.name + work_dir.name})
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    guard.check_config(cfg)
    guard.check_data_roots(cfg)
    return cfg
