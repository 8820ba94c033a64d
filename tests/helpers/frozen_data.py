"""A small encoder with dropout, and labelled images, for the tests of frozen features."""

import numpy
from PIL import Image

VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
    img_size=32,
    patch_size=8,
    drop_rate=0.5,
    drop_path_rate=0.5,
)


def write_classes(root):
    """Classes a, b, c in train (3, 2, 1 images), only a and c in val; 50 x 40 pixels."""
    rng = numpy.random.default_rng(0)
    for name in ('train/a/0', 'train/a/1', 'train/a/2', 'train/b/0', 'train/b/1', 'train/c/0', 'val/a/7', 'val/c/8'):
        file = root / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=numpy.uint8)).save(file)
    return root
