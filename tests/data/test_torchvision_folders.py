"""tools/class_folders.py: raw layouts of an array set and of file sets, made here, to class folders and back."""

import hashlib
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from processes import in_process
from torchvision import datasets

from mim_mm.data import torchvision_folders
from mim_mm.data.class_dataset import ClassFolders
from mim_mm.data.torchvision_folders import SETS, lay_out
from mim_mm.folders import DataError

CIFAR = ('airplane', 'automobile', 'bird')


class RunsCode:
    """What unpickling would run."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Two training files and a test file of three classes in CIFAR-10's format, and their checksums in its place."""
    rng = np.random.default_rng(0)
    folder = tmp_path / 'raw' / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    known, lists = {}, {}
    for part, names in (('train', ('data_batch_1', 'data_batch_2')), ('test', ('test_batch',))):
        pixels, labels = [], []
        for name in names:
            data, numbers = rng.integers(0, 256, (7, 3072), np.uint8), [0, 1, 2, 0, 1, 2, 0]
            (folder / name).write_bytes(pickle.dumps(dict(data=data, labels=numbers)))
            pixels, labels = pixels + [data], labels + numbers
        known[part] = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
        lists[part] = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in names]
    meta = folder / 'batches.meta'
    meta.write_bytes(pickle.dumps(dict(label_names=list(CIFAR))))
    monkeypatch.setattr(datasets.CIFAR10, 'train_list', lists['train'])
    monkeypatch.setattr(datasets.CIFAR10, 'test_list', lists['test'])
    md5 = hashlib.md5(meta.read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, 'meta', dict(datasets.CIFAR10.meta, md5=md5))
    return known


def test_arrays_become_png_without_loss(tmp_path, cifar):
    done = in_process('class_folders.py', 'cifar10', 'raw', 'out/cifar', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / 'out' / 'cifar'
    assert 'train: 14 images' in done.stdout and sorted(os.listdir(out)) == ['class_folders.json', 'test', 'train']
    for part, (pixels, labels) in cifar.items():
        assert tuple(sorted(os.listdir(out / part))) == CIFAR
        found = sorted((path.name, path) for path in (out / part).rglob('*.png'))
        assert len(found) == len(labels)
        for (_, path), image, label in zip(found, pixels, labels):
            assert path.parent.name == CIFAR[label] and np.array_equal(np.array(Image.open(path)), image)
    about = json.loads((out / 'class_folders.json').read_text())
    assert about['set'] == 'cifar10' and about['images'] == dict(train=14, test=7)
    assert len(ClassFolders(data_prefix=str(out / 'test'), classes_from=str(out / 'train'))) == 7
    assert not list((tmp_path / 'out').glob('.*')) and out.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask():
    found = os.umask(0)
    os.umask(found)
    return found


@pytest.mark.parametrize('name', ['data_batch_2', 'test_batch', 'batches.meta'])
def test_a_pickle_that_is_not_the_published_one_is_not_opened(tmp_path, cifar, name):
    (tmp_path / 'raw' / 'cifar-10-batches-py' / name).write_bytes(pickle.dumps(RunsCode(tmp_path / 'ran')))
    with pytest.raises(DataError, match='not the published ones'):
        lay_out('cifar10', tmp_path / 'raw', tmp_path / 'out')
    assert not (tmp_path / 'ran').exists() and not (tmp_path / 'out').exists() and not list(tmp_path.glob('.*'))
    pickle.loads((tmp_path / 'raw' / 'cifar-10-batches-py' / name).read_bytes())
    assert (tmp_path / 'ran').is_dir(), 'it would have run'


def test_nothing_is_overwritten(tmp_path, cifar):
    for out in (tmp_path / 'folder', tmp_path / 'file', tmp_path / 'link'):
        out.mkdir() if out.name == 'folder' else out.symlink_to('nowhere') if out.name == 'link' else out.write_text(
            'x'
        )
        with pytest.raises(DataError, match='not overwritten'):
            lay_out('cifar10', tmp_path / 'raw', out)
    assert (tmp_path / 'file').read_text() == 'x' and not list((tmp_path / 'folder').iterdir())


@pytest.fixture
def dtd(tmp_path):
    """Two images of each of two textures in train, val and test of DTD's first partition; JPEGs, and one of its own."""
    rng = np.random.default_rng(1)
    base = tmp_path / 'raw' / 'dtd' / 'dtd'
    (base / 'labels').mkdir(parents=True)
    for part in ('train', 'val', 'test'):
        lines = []
        for texture in ('banded', 'blotchy'):
            for number in range(2):
                name = f'{texture}/{texture}_{part}_{number}.jpg'
                (base / 'images' / texture).mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(base / 'images' / name)
                lines.append(name)
        (base / 'labels' / f'{part}1.txt').write_text('\n'.join(lines) + '\n')
    return base


@pytest.mark.parametrize('link', [False, True])
def test_files_stay_as_they_are(tmp_path, dtd, link):
    said = []
    counts = lay_out('dtd', tmp_path / 'raw', tmp_path / 'out', link=link, say=said.append)
    assert counts == dict(train=8, test=4) and said == ['train: 8 images', 'test: 4 images']
    for part, parts in (('train', ('train', 'val')), ('test', ('test',))):
        found = sorted(
            path.relative_to(tmp_path / 'out' / part).as_posix() for path in (tmp_path / 'out' / part).rglob('*.jpg')
        )
        assert found == sorted(line for p in parts for line in (dtd / 'labels' / f'{p}1.txt').read_text().split())
        for name in found:
            copy, raw = tmp_path / 'out' / part / name, dtd / 'images' / name
            assert copy.read_bytes() == raw.read_bytes() and copy.samefile(raw) == link
            assert copy.stat().st_mtime_ns == raw.stat().st_mtime_ns


def test_what_is_missing_leaves_nothing_behind(tmp_path, dtd):
    (dtd / 'images' / 'blotchy' / 'blotchy_test_1.jpg').unlink()
    done = in_process('class_folders.py', 'dtd', 'raw', 'out', cwd=tmp_path)
    assert done.returncode != 0 and 'blotchy_test_1.jpg' in done.stderr and done.stderr.startswith('error: ')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['raw']
    (dtd / 'labels' / 'test1.txt').write_text('banded/banded_test_0.jpg\n')
    with pytest.raises(DataError, match='different classes'):
        lay_out('dtd', tmp_path / 'raw', tmp_path / 'out')


def test_names_of_classes_become_folders(tmp_path):
    """Aircraft has variants such as F/A-18 and images that only lists give a class."""
    base = tmp_path / 'raw' / 'fgvc-aircraft-2013b' / 'data'
    (base / 'images').mkdir(parents=True)
    (base / 'variants.txt').write_text('707-320\nF/A-18\n')
    for number, (part, variant) in enumerate((('train', '707-320'), ('val', 'F/A-18'), ('test', 'F/A-18'))):
        Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(base / 'images' / f'{number}.jpg')
        (base / f'images_variant_{part}.txt').write_text(f'{number} {variant}\n')
    assert lay_out('fgvc_aircraft', tmp_path / 'raw', tmp_path / 'out') == dict(train=2, test=1)
    found = sorted(path.relative_to(tmp_path / 'out').as_posix() for path in (tmp_path / 'out').rglob('*.jpg'))
    assert found == ['test/F-A-18/2.jpg', 'train/707-320/0.jpg', 'train/F-A-18/1.jpg']
    (base / 'variants.txt').write_text('F-A-18\nF/A-18\n707-320\n')
    with pytest.raises(DataError, match='kept apart'):
        lay_out('fgvc_aircraft', tmp_path / 'raw', tmp_path / 'again')


def test_inaturalist_and_signs_without_names(tmp_path):
    raw = tmp_path / 'raw'
    for version, count in (('2021_train_mini', 2), ('2021_valid', 1)):
        for number, name in enumerate(('Animalia_A_B_C_D_E_f', 'Plantae_A_B_C_D_E_g')):
            folder = raw / version / f'{number:05}_{name}'
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((9, 9, 3), 9 * i, np.uint8)).save(folder / f'{version}{i}.jpg')
    assert lay_out('inaturalist_mini', raw, tmp_path / 'inat', link=True) == dict(train=4, val=2)
    assert (tmp_path / 'inat/val/00001_Plantae_A_B_C_D_E_g/2021_valid0.jpg').is_file()

    for folder in ('GTSRB/Training/00000', 'GTSRB/Training/00001', 'GTSRB/Final_Test/Images'):
        (raw / 'gtsrb' / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(raw / 'gtsrb' / folder / '0.ppm')
    (raw / 'gtsrb' / 'GT-final_test.csv').write_text('Filename;ClassId\n0.ppm;1\n')
    assert lay_out('gtsrb', raw, tmp_path / 'signs') == dict(train=2, test=1)
    assert (tmp_path / 'signs/test/1/0.ppm').is_file() and sorted(os.listdir(tmp_path / 'signs/train')) == ['0', '1']


def test_refusals(tmp_path, cifar):
    for name, said in (
        ('cifar11', 'none of cifar10'),
        ('caltech101', 'no official split'),
        ('flowers102', 'missing or are'),
    ):
        with pytest.raises(DataError, match=said):
            lay_out(name, tmp_path / 'raw', tmp_path / 'out')
    with pytest.raises(DataError, match='no folder'):
        lay_out('dtd', tmp_path / 'nowhere', tmp_path / 'out')
    with pytest.raises(DataError, match='leave --link out'):
        lay_out('cifar10', tmp_path / 'raw', tmp_path / 'out', link=True)
    assert not (tmp_path / 'nowhere').exists() and not (tmp_path / 'out').exists()


def test_every_set_is_one_of_torchvision_with_these_options():
    import inspect

    for raw in SETS.values():
        options = inspect.signature(getattr(datasets, raw.kind)).parameters
        assert {'root', 'download'} <= set(options)
        assert all(key in options for several in raw.parts.values() for part in several for key in part)
    assert not set(torchvision_folders.NO_SPLIT) & set(SETS)
