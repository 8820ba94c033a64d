"""Shared by all tests: one thread (the suite runs beside other jobs on small machines), fixed seeds, clean scopes."""

import functools
import os
import sys

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import logging
import random

import numpy
import pytest
import torch
from mmengine.config import utils as config_utils
from mmengine.registry import DefaultScope
from reaches import PROCESSES, TRAININGS, reaches
from yapf.yapflib import yapf_api

import mim_mm  # noqa: F401  before any test module imports mmdet: provides mmcv._ext

torch.set_num_threads(1)
# mmengine's loggers keep the stream of the test that made them; writing to it later is no error of the test that does.
logging.raiseExceptions = False


# Files of half a minute or more, the longest first: so that no process of several is left alone with one at the end.
LONG = (
    'test_fsdp', 'test_compare_runs', 'test_polite_stop', 'test_own_data', 'test_progressive', 'test_dist_train',
    'test_chain_runs', 'test_interruptions', 'test_chain_execute',
)  # fmt: skip


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))  # stable: the others stay in their order
    for item in items:
        for marker, words in (('process', PROCESSES), ('slow', TRAININGS)):
            if reaches(item.path, getattr(item, 'originalname', item.name), words):
                item.add_marker(marker)


class _Watch:
    """What the running test may not do, told by the interpreter itself: start Python or a script unmarked."""

    forbidden: str | None = None

    def __call__(self, event, arguments):
        if self.forbidden and event == 'subprocess.Popen':
            command = [str(word) for word in arguments[1]]
            if any(word == sys.executable or word.endswith('.sh') for word in command[:3]):
                raise AssertionError(f'{self.forbidden} starts {command}: mark it with @pytest.mark.process')


_watch = _Watch()
sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def unmarked_tests_start_no_process(request):
    _watch.forbidden = None if request.node.get_closest_marker('process') else request.node.nodeid
    yield
    _watch.forbidden = None


@pytest.fixture(autouse=True)
def fixed_seeds():
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def _each_text_is_laid_out_once():
    """mmengine formats the text of the same config five times a run, which would take most of many tests' time."""
    known, format_code = {}, yapf_api.FormatCode

    def cached(text, **options):
        if text not in known:
            known[text] = format_code(text, **options)
        return known[text]

    yapf_api.FormatCode = cached


_each_text_is_laid_out_once()
# For every base of another package in a config mmengine reads all its hundred metafiles: most of the time of a reading.
config_utils.load = functools.cache(config_utils.load)


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


@pytest.fixture
def image_folders(tmp_path, monkeypatch):
    """Three classes, eight training and two validation images each, at <root>/{train,val}/<class>/."""
    from downstream import write_image_folders

    monkeypatch.setenv('IMAGENET_ROOT', str(tmp_path / 'images'))
    return write_image_folders(tmp_path / 'images')


@pytest.fixture
def coco_root(tmp_path, monkeypatch):
    """Four images of 60 x 80 with two rectangles each, COCO annotations with polygons."""
    from downstream import write_coco

    monkeypatch.setenv('COCO_ROOT', str(tmp_path / 'coco'))
    return write_coco(tmp_path / 'coco')


@pytest.fixture
def tokenizer_file(tmp_path):
    """Weights of a small random DALL-E encoder: 4 x 4 tokens of a 32-px image."""
    from input_tokens import write_tokenizer

    return write_tokenizer(tmp_path / 'dalle.pth')
