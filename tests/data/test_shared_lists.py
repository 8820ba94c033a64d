"""Lists of samples lie in one array that loader workers share: reading them costs a worker no memory of its own."""

import gc
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from mim_mm.data import unlabelled
from mim_mm.data.own_images import OwnImages
from mim_mm.data.unlabelled import UnlabelledImages

COUNT = 40_000
SMAPS = Path('/proc/self/smaps')


def own(tmp_path, monkeypatch, **options):
    listed = tmp_path / 'images.txt'
    listed.write_text(''.join(f'folder{i % 97}/{"x" * 60}{i}.jpg\n' for i in range(COUNT)))
    return OwnImages(str(tmp_path), ann_file='images.txt', **options)


def folder(tmp_path, monkeypatch, **options):
    names = [f'folder{i % 97}/{"x" * 60}{i}.jpg' for i in range(COUNT)]
    monkeypatch.setattr(unlabelled, 'list_images', lambda root: list(names))  # 40,000 files would take too long
    return UnlabelledImages(str(tmp_path), **options)


def private_kb():
    """Memory that this process shares with nobody."""
    return sum(int(line.split()[1]) for line in SMAPS.read_text().splitlines() if line.startswith('Private_Dirty'))


def read_everything(dataset, answer):
    gc.collect()
    gc.disable()
    for index in range(1000):  # what the allocator and the interpreter need anyway
        dataset.get_data_info(index)
    private_kb()  # looking takes memory, too, the first time
    before = private_kb()
    for index in range(1000, COUNT):
        dataset.get_data_info(index)
    answer.put(private_kb() - before)


def growth_in_a_worker(dataset):
    """kB that a forked process makes its own by reading every entry."""
    context = multiprocessing.get_context('fork')
    answer = context.Queue()
    worker = context.Process(target=read_everything, args=(dataset, answer))
    worker.start()
    found = answer.get(timeout=60)
    worker.join()
    return found


@pytest.mark.parametrize('make', [own, folder])
def test_the_list_is_one_array(tmp_path, monkeypatch, make):
    dataset = make(tmp_path, monkeypatch)
    assert dataset.data_list == [] and len(dataset) == COUNT
    assert dataset.data_bytes.dtype == np.uint8 and dataset.data_bytes.nbytes > 60 * COUNT
    assert dataset.data_address.shape == (COUNT,)
    info = dataset.get_data_info(COUNT - 1)
    assert info['img_path'].endswith(f'{COUNT - 1}.jpg') and info['sample_idx'] == COUNT - 1


@pytest.mark.skipif(not SMAPS.exists(), reason='reads /proc/self/smaps')
@pytest.mark.parametrize('make', [own, folder])
def test_a_worker_that_reads_all_of_it_makes_none_of_it_its_own(tmp_path, monkeypatch, make):
    shared = make(tmp_path, monkeypatch)
    size_kb = shared.data_bytes.nbytes / 1024
    assert min(growth_in_a_worker(shared) for _ in range(2)) < 0.3 * size_kb
    # The same list as Python objects: counting references writes to every one of them.
    gc.collect()
    assert growth_in_a_worker(make(tmp_path, monkeypatch, serialize_data=False)) > size_kb
