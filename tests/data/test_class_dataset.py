"""A class has one number in train, val and every evaluation; what is hidden is no class and no image, anywhere."""

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset
from PIL import Image

from mim_mm.compat import doctor
from mim_mm.data import class_folders, image_sources
from mim_mm.data.class_dataset import ClassFolders
from mim_mm.data.shards import plan_shards
from mim_mm.data.unlabelled import UnlabelledImages, list_images
from mim_mm.engine.start import class_count, guard, launch
from mim_mm.evaluation.frozen.features import FolderImages, Preprocess
from mim_mm.evaluation.frozen.lowshot import read_split
from mim_mm.evaluation.quality.measure import QualityData, QualitySettings
from mim_mm.folders import DataError, in_hidden
from mim_mm.transfer.datasets import DigestCache

HIDDEN = ('.ipynb_checkpoints', '__MACOSX', '@eaDir')


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """train: ant, bee, cat; val: bee, cat; two images each, and what notebooks and Macs leave at every depth."""
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))
    root = tmp_path / 'data'
    for part, names in (('train', ('ant', 'bee', 'cat')), ('val', ('bee', 'cat'))):
        for name in names:
            for i in range(2):
                picture(root / part / name / f'{i}.png', seed=i)
            for hidden in HIDDEN:
                picture(root / part / name / hidden / '0-checkpoint.png')
            (root / part / name / '._0.png').write_bytes(b'x')
        for hidden in HIDDEN:
            picture(root / part / hidden / '0.png')
    return root


def labels(dataset):
    """path below the part -> label"""
    rows = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {row['img_path'][len(dataset.img_prefix) :].lstrip('/'): row['gt_label'] for row in rows}


def build(root, part, **options):
    return ClassFolders(data_root=str(root), data_prefix=part, **options)


TRAIN = {f'{name}/{i}.png': label for label, name in enumerate(('ant', 'bee', 'cat')) for i in range(2)}
VAL = {name: label for name, label in TRAIN.items() if not name.startswith('ant')}


def test_val_is_numbered_by_train(tree):
    train, val = build(tree, 'train'), build(tree, 'val', classes_from='train')
    assert labels(train) == TRAIN and labels(val) == VAL
    assert train.metainfo['classes'] == val.metainfo['classes'] == ('ant', 'bee', 'cat')
    assert labels(build(tree, 'val', classes_from=('ant', 'bee', 'cat'))) == VAL
    shown = build(tree, 'val', classes_from='train', metainfo=dict(classes=('Ant!', 'Bee!', 'Cat!')))
    assert labels(shown) == VAL and shown.metainfo['classes'] == ('Ant!', 'Bee!', 'Cat!')


def test_without_gaps_the_numbers_are_those_of_mmpretrain(tmp_path):
    names = ['n02', 'n01', 'N03', 'n10', 'a b', 'ä', '10', '9']
    for part in ('train', 'val'):
        for i, name in enumerate(names):
            picture(tmp_path / part / name / 'deep' / f'{i}.png')
            picture(tmp_path / part / name / f'{i}.JPEG')
    for part in ('train', 'val'):
        theirs = CustomDataset(data_root=str(tmp_path), data_prefix=part)
        ours = build(tmp_path, part, classes_from='train')
        assert list(labels(ours).items()) == list(labels(theirs).items())
        assert ours.metainfo['classes'] == theirs.metainfo['classes']


@pytest.mark.parametrize('name, words', [('dog', "'dog'"), ('Bee', "'Bee' differs from 'bee' in case only")])
def test_a_class_that_train_lacks_stops_everywhere(tree, name, words):
    picture(tree / 'val' / name / '0.png')
    preprocess = Preprocess(8, 8)
    for start in (
        lambda: build(tree, 'val', classes_from='train'),
        lambda: FolderImages(tree, 'val', preprocess, FolderImages(tree, 'train', preprocess).classes),
        lambda: QualityData(QualitySettings(data=str(tree)), preprocess),
        lambda: class_folders.class_lists(str(tree), 'train', 'val', own_names(tree)),
    ):
        with pytest.raises(ValueError, match=f'train lacks .*{words}'):
            start()
    assert doctor.check_imagenet(tree).status == doctor.Status.PROBLEM


def own_names(tree):
    return {
        part: [place.name for place in image_sources.open_source(str(tree / part)).places] for part in ('train', 'val')
    }


def test_empty_folders(tree):
    (tree / 'val' / 'dog').mkdir()
    assert labels(build(tree, 'val', classes_from='train')) == VAL, 'a stranger without images has no label to get'
    (tree / 'train' / 'bat').mkdir()  # a class of train that waits for images keeps its number
    for part in ('train', 'val'):
        assert labels(build(tree, part, classes_from='train'))['bee/0.png'] == 2
    picture(tree / 'val' / 'bat' / '0.png')
    with pytest.raises(DataError, match="class 'bat', of which train has none"):
        build(tree, 'val', classes_from='train')
    with pytest.raises(DataError, match="class 'bat', of which train has none"):
        FolderImages(tree, 'val', Preprocess(8, 8), FolderImages(tree, 'train', Preprocess(8, 8)).classes)
    with pytest.raises(FileNotFoundError, match='no image'):
        build(tree, 'val/dog')
    with pytest.raises(DataError, match='no folder .*nowhere'):
        build(tree, 'val', classes_from='nowhere')


def test_lists_with_labels(tree):
    def listed(text, **options):
        (tree / 'list.txt').write_bytes(text.encode('utf-8-sig'))
        return build(tree, 'val', ann_file='list.txt', **options)

    text = 'bee/0.png 1\n\ncat/0.png 2\nbee/.ipynb_checkpoints/0-checkpoint.png 1\nbee/._0.png 1\n'
    assert labels(listed(text)) == {'bee/0.png': 1, 'cat/0.png': 2}, 'a BOM belongs to no name'
    assert labels(listed('bee/0.png bee\n', classes_from='train')) == {'bee/0.png': 1}
    assert listed(text).labels_needed == 3
    assert labels(listed('bee/0.png 7\n', classes_from='nowhere')) == {'bee/0.png': 7}, 'the head says what is too much'
    three = dict(classes=('ant', 'bee', 'cat'))
    for wrong, match in (('bee/0.png\n', 'line 1.*a label'), ('\nbee/0.png -1\n', 'line 2'), ('a 3\n', 'below 3')):
        with pytest.raises(DataError, match=match):
            listed(wrong, metainfo=three)


def test_nothing_hidden_is_an_image_or_a_class(tree, tmp_path):
    """The same predicate for lists of folders, shards, text lists, k-NN, the class count, the data's identity."""
    train = tree / 'train'
    wanted = sorted(TRAIN)
    assert sorted(p[len(str(train)) + 1 :] for p in list_images(train)) == wanted
    assert len(UnlabelledImages(str(tree), 'train')) == 6
    source = image_sources.find_source(train)
    assert [place.name for place in source.places] == wanted and not source.passed_over
    assert plan_shards(source, seed=None).summary['images'] == 6
    with tarfile.open(tmp_path / 'all.tar', 'w') as tar:
        tar.add(train, arcname='.')
    shard = image_sources.find_source(tmp_path / 'all.tar')
    assert sorted(place.name for place in shard.places) == [f'all.tar:./{name}' for name in wanted]
    (tmp_path / 'list.txt').write_text(''.join(f'data/train/{n}\n' for n in [*wanted, 'ant/._0.png', '__MACOSX/0.png']))
    listed = image_sources.find_source(tmp_path / 'list.txt')
    assert len(listed) == 6 and listed.passed_over == dict(hidden=2)
    assert [name for name, _ in FolderImages(tree, 'train', Preprocess(8, 8)).items] == wanted
    assert class_folders.tree_parts(str(tree)) == ('train', 'val')
    assert class_folders.subfolders(str(train)) == ['ant', 'bee', 'cat']
    cfg = Config(dict(model=dict(head=dict(num_classes=9)), train_dataloader=dict(
        dataset=dict(type='mim_mm.ClassFolders', data_root=str(tree), data_prefix='train'))))  # fmt: skip
    assert class_count.fill_from_data(cfg).startswith('classes: 3') and cfg.model.head.num_classes == 3
    before = DigestCache(tmp_path / 'one.json', lambda text: None).folder(train)
    assert before['files'] == 6
    picture(train / '.ipynb_checkpoints' / 'another.png')
    assert DigestCache(tmp_path / 'two.json', lambda text: None).folder(train) == before


def test_streamed_shards_pass_over_what_is_hidden(tree, tmp_path):
    pytest.importorskip('webdataset')
    from mim_mm.data.streaming import StreamedImages

    folder = tmp_path / "it's {a}"
    folder.mkdir()
    with tarfile.open(folder / 's.tar', 'w') as tar:
        for name in ('__MACOSX/1.png', '.ipynb_checkpoints/2.png', '3.png', 'a.b.png'):
            data = (tree / 'train/ant/0.png').read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    stream = StreamedImages(str(folder / 's.tar'), images=2, batch_size=1)
    assert sorted(sample['name'] for sample in stream) == ['3.png', 'a.b.png']


@pytest.mark.parametrize('path, hidden', [
    ('a/b.png', False), ('./a/b.png', False), ('../a/b.png', False), ('a/.b/c.png', True), ('a/._c.png', True),
    ('__MACOSX/c.png', True), ('/home/x/.cache/set/c.png', False), ('/set/.ipynb_checkpoints/c.png', True),
    ('/set/._c.png', True), ('a..b/c.png', False), ('a/...png', True),
])  # fmt: skip
def test_hidden_paths(path, hidden):
    assert in_hidden(path) == hidden


def test_published_lists_may_begin_with_a_bom(tmp_path):
    (tmp_path / 'list.txt').write_text('ant/0.png\n', encoding='utf-8-sig')
    assert read_split(tmp_path / 'list.txt', ['ant/0.png', 'bee/0.png']).indices.tolist() == [0]
    (tmp_path / 'a.json').write_text(json.dumps(dict(categories=[dict(id=1, name='a')])), encoding='utf-8-sig')
    assert class_count._categories(dict(data_root=str(tmp_path), ann_file='a.json'))[0] == [(1, 'a')]


# ---------------------------------------------------------------- the recipes

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LINEAR = str(CONFIGS / 'demo' / 'linear.py')


def call(root, work_dir, *options, config=LINEAR):
    size = ['model.backbone.img_size=8', 'model.backbone.patch_size=8', 'model.backbone.arch.num_layers=1',
            'model.backbone.frozen_stages=1', 'train_dataloader.batch_size=2', 'train_cfg.max_epochs=1']  # fmt: skip
    return [config, '--data-root', str(root), '--work-dir', str(work_dir), '--cfg-options', *size, *options]


@pytest.fixture
def colours(tmp_path):
    """The colours are the classes, so that even a random encoder's probe is right; val lacks the first."""
    for part, names in (('train', ('ant', 'bee', 'cat')), ('val', ('bee', 'cat'))):
        for name in names:
            for i in range(8):
                pixels = np.zeros((8, 8, 3), np.uint8) + 15
                pixels[..., ('ant', 'bee', 'cat').index(name)] = 200 + i
                path = tmp_path / 'data' / part / name / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return tmp_path / 'data'


def test_a_linear_probe_is_right_where_val_lacks_a_class(colours, tmp_path):
    work_dir = tmp_path / "it's {a} run %s"  # a name that no config, log or template may trip over
    launch.train_main(
        call(colours, work_dir, 'classes_from_data=True', 'train_cfg.max_epochs=5', 'train_cfg.val_interval=5')
    )
    rows = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row] == [100.0]


def refused(arguments, capsys, main=launch.train_main):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(error) == 1
    return error[0]


def test_what_stops_a_training_is_one_line(colours, tmp_path, capsys):
    work = tmp_path / 'run'
    few = refused(call(colours, work, 'classes_from_data=True', 'train_dataloader.batch_size=50',
                       'train_dataloader.drop_last=True'), capsys)  # fmt: skip
    assert '24 images, less than one batch of 50' in few and 'batch_size=24' in few
    picture(colours / 'val' / 'dog' / '0.png')
    assert "train lacks (['dog'])" in refused(call(colours, work, 'classes_from_data=True'), capsys)
    (colours / 'val' / 'dog' / '0.png').unlink()
    pixels = np.full((8, 8), 4000, np.uint16)
    Image.fromarray(pixels).save(colours / 'val' / 'bee' / 'deep.png')
    deep = refused(call(colours, work, 'classes_from_data=True', 'val_dataloader.num_workers=1'), capsys)
    assert "deep.png': its values are 16-bit integers" in deep and 'value_range = (0, 4095)' in deep
    launch.train_main(call(colours, work, 'classes_from_data=True', 'value_range=(0,4095)'))


def test_upstreams_numbering_is_refused(tree):
    """mmpretrain's CustomDataset numbers val by its own folders; the hook compares the names."""

    class Loader:
        def __init__(self, dataset):
            self.dataset = dataset

    class Runner:
        model = argparse.Namespace(head=argparse.Namespace(num_classes=2), data_preprocessor=None)
        val_loop = 'there is one'

    runner = Runner()
    for hidden in HIDDEN:
        (tree / 'val' / hidden / '0.png').unlink()
        (tree / 'val' / hidden).rmdir()
    theirs = CustomDataset(data_root=str(tree), data_prefix='val')
    runner.val_dataloader = Loader(theirs)
    ants = build(tree, 'train')
    ants._metainfo['classes'] = ('ant', 'bee')  # as many as val has, and others
    runner.train_dataloader = Loader(ants)
    with pytest.raises(DataError, match='must be the same.*ClassFolders'):
        class_count.ClassCountHook().before_train(runner)
    (tree / 'list.txt').write_text('bee/0.png 2\n')
    runner.train_dataloader = Loader(build(tree, 'train', ann_file='list.txt'))
    with pytest.raises(DataError, match='labels up to 2, the head 2 classes'):
        class_count.ClassCountHook().before_train(runner)
    runner.test_dataloader = Loader(build(tree, 'train'))
    with pytest.raises(DataError, match='test set has 3 classes, the head 2'):
        class_count.ClassCountHook().before_test(runner)


def test_loaders_without_workers_and_ranges_for_all_loaders():
    cfg = Config.fromfile(CONFIGS / 'linear/vitb_linear_90e.py')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=True, prefetch_factor=2)
    guard.fit_loaders(cfg)
    assert 'persistent_workers' not in cfg.train_dataloader and 'prefetch_factor' not in cfg.train_dataloader
    assert cfg.val_dataloader.persistent_workers
    cfg.value_range = (0, 4095)
    from mim_mm.engine.start.value_range import fill_value_range

    fill_value_range(cfg)
    steps = [loader.dataset.pipeline[0] for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)]
    assert [(step.type, tuple(step.value_range)) for step in steps] == [
        ('mim_mm.LazyLoadImageFromFile', (0, 4095)), *[('mim_mm.LoadImageFromFile', (0, 4095))] * 2
    ]  # fmt: skip
    assert Preprocess.from_config(cfg).value_range == (0, 4095)


def test_recipes_number_val_by_train():
    """The files from which all recipes on class folders take their data sets."""
    seen = []
    for name in ('_base_/datasets/imagenet_linear', '_base_/datasets/imagenet_finetune', 'linear/vitb_quick_probe',
                 'demo/linear', 'demo/quick_probe'):  # fmt: skip
        for loader, dataset in guard.iter_datasets(Config.fromfile(CONFIGS / f'{name}.py')):
            if dataset.type != 'ConcatDataset':
                seen.append(loader)
                assert issubclass(DATASETS.get(dataset.type), ClassFolders)
                assert dataset.data_prefix == 'train' or dataset.classes_from == 'train', (name, loader)
    assert len(seen) == 3 * 3 + 2 * 5
    assert not [path for path in CONFIGS.rglob('*.py') if "type='CustomDataset'" in path.read_text()]
