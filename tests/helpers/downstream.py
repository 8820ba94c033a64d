"""The downstream recipes on data of a few images: what a user may set with --cfg-options, and nothing else."""

import json

import numpy as np
import torch
from mmpretrain.models.backbones import VisionTransformer
from PIL import Image

LINEAR = 'linear/vitb_linear_90e.py'
FINETUNE = 'finetune/vitb_finetune_100e.py'
COCO = 'coco/mask_rcnn_vitb_fpn_lsj_100e.py'
ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
CLASSES = ('ant', 'bee', 'cat')
IMAGE_OPTIONS = {
    'model.head.num_classes': 3,
    'model.head.in_channels': 32,
    'model.backbone.img_size': 32,
    'train_dataloader.batch_size': 12,
    'train_dataloader.dataset.pipeline.1.scale': 32,
    'val_dataloader.dataset.pipeline.1.scale': 36,
    'val_dataloader.dataset.pipeline.2.crop_size': 32,
    'val_evaluator.topk': (1,),
    'train_cfg.max_epochs': 2,
    'param_scheduler.0.end': 1,
    'param_scheduler.1.begin': 1,
}


def small(cfg, work_dir, **options):
    loaders = {}
    for split in ('train', 'val', 'test'):
        loaders |= {f'{split}_dataloader.num_workers': 0, f'{split}_dataloader.persistent_workers': False}
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'experiment_name': work_dir.parent.name + work_dir.name,
            'env_cfg.dist_cfg.backend': 'gloo',
            'model.backbone.arch': dict(ARCH, _delete_=True),
            **loaders,
            **options,
        }
    )
    return cfg


def pretraining_checkpoint(path) -> VisionTransformer:
    source = VisionTransformer(arch=ARCH, img_size=32, patch_size=16)
    torch.nn.init.normal_(source.pos_embed, std=0.02)
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}}, path)
    return source


def metrics_of(work_dir) -> list[dict]:
    scalars = next(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in scalars.read_text().splitlines()]


def write_image_folders(root):
    """Three classes, eight training and two validation images each, at <root>/{train,val}/<class>/."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 2)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 80, (40, 48, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(folder / f'{index}.png')
    return root


def write_coco(root):
    """Four images of 60 x 80 with two rectangles each, COCO annotations with polygons."""
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        images, annotations = [], []
        for index in range(4):
            pixels = rng.integers(0, 60, (60, 80, 3), dtype=np.uint8)
            for x, y, w, h, category in ((5, 5, 40, 30, 1), (35, 20, 40, 36, 2)):
                pixels[y : y + h, x : x + w] += np.uint8(80 * category)
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    dict(id=len(annotations) + 1, image_id=index + 1, category_id=category, bbox=[x, y, w, h],
                         area=w * h, iscrowd=0, segmentation=[polygon])
                )  # fmt: skip
            Image.fromarray(pixels).save(root / split / f'{index}.jpg')
            images.append(dict(id=index + 1, file_name=f'{index}.jpg', height=60, width=80))
        categories = [dict(id=1, name='person'), dict(id=2, name='bicycle')]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return root
