"""Points and pictures whose neighbours are known, and a config whose features are trivial."""

import numpy
import torch
from PIL import Image


def clouds(count, classes=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    return centres[labels] * 0.7 + torch.randn(count, width, generator=generator), labels


def colour_images(root):
    """Three classes of one colour each, with noise: any encoder that sees colour tells them apart."""
    rng = numpy.random.default_rng(0)
    for split, count in (('train', 5), ('val', 2)):
        for label, colour in enumerate(([200, 40, 40], [40, 200, 40], [40, 40, 200])):
            folder = root / split / f'class{label}'
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = numpy.clip(rng.normal(colour, 25, (36, 36, 3)), 0, 255).astype(numpy.uint8)
                Image.fromarray(pixels).save(folder / f'{split}{label}_{i}.png')


CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
    ),
)
"""
