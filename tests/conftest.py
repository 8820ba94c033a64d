"""Shared by all tests: one thread (the suite runs beside other jobs on small machines), fixed seeds, clean scopes."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import random

import numpy
import pytest
import torch
from mmengine.registry import DefaultScope

import mim_mm  # noqa: F401  before any test module imports mmdet: provides mmcv._ext

torch.set_num_threads(1)


# Files of a minute or more: first, so that no process of several is left alone with one at the end.
LONG = ('test_compare_runs', 'test_own_data', 'test_sweep', 'test_chain_runs', 'test_fsdp', 'test_progressive')


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)  # stable: the others stay in their order


@pytest.fixture(autouse=True)
def fixed_seeds():
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def image_folder(tmp_path):
    """Ten 40-px PNGs in two folders, unlabelled or of two classes, as one likes."""
    from PIL import Image

    root = tmp_path / 'images'
    for i in range(10):
        folder = root / f'class{i % 2}'
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numpy.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    return root


def _restore_default_scope():
    # mmengine keeps the default scope in a process-wide table: a test that sets `mmdet` would decide where the next
    # one looks up its classes
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


scope_of_the_test = pytest.fixture(autouse=True)(_restore_default_scope)
scope_of_the_module = pytest.fixture(autouse=True, scope='module')(_restore_default_scope)
