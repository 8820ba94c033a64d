"""tools/label_free.py from images to ranks: what is drawn, what a view is, what is stored and found again."""

import json
import tarfile

import numpy as np
import pytest
import torch
from knn_data import CONFIG, colour_images
from mmengine.config import Config
from PIL import Image
from processes import in_process

import mim_mm
from mim_mm.evaluation.frozen.drawn_images import DrawnImages, Views, find_images
from mim_mm.evaluation.frozen.features import Source, build_encoder, encode
from mim_mm.evaluation.frozen.folder_images import FolderImages, Preprocess
from mim_mm.evaluation.frozen.ranks import lidar, rankme

PREPROCESS = Preprocess(resize=36, crop=32)


@pytest.fixture
def photos(tmp_path):
    """Nine images at several depths, each of one colour that says its number."""
    for number in range(9):
        path = tmp_path / 'photos' / ('deep/er' if number % 2 else '') / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40 + number, 60, 3), 20 * number, np.uint8)).save(path)
    return tmp_path / 'photos'


def number_of(crop):
    return round(float(crop.float().mean()) / 20)


def test_draws_are_nested_and_repeat(photos):
    infos, root = find_images(Config(), photos)
    assert len(infos) == 9 and root == photos

    def names(*args, **options):
        return [name for name, _ in DrawnImages(infos, root, PREPROCESS, *args, **options).items]

    assert len(names(4)) == 4 and set(names(4)) < set(names(6)) < set(names(100)) and len(names(100)) == 9
    assert names(4) == names(4) != names(4, seed=1)
    data = DrawnImages(infos, root, PREPROCESS, 5)
    for index, (name, label) in enumerate(data.items):
        crop, number = data[index]
        assert crop.shape == (3, 32, 32) and crop.dtype == torch.uint8 and number == label == index
        assert number_of(crop) == int(name.split('/')[-1][0])


def test_images_once_are_what_every_other_tool_sees(tmp_path):
    colour_images(tmp_path)
    infos, root = find_images(Config(), tmp_path / 'val')
    mine, known = DrawnImages(infos, root, PREPROCESS, 100), FolderImages(tmp_path, 'val', PREPROCESS)
    assert [name for name, _ in mine.items] == [name for name, _ in known.items]
    assert all(torch.equal(mine[i][0], known[i][0]) for i in range(len(known)))


def test_views_are_of_their_image_random_and_repeatable(photos):
    infos, root = find_images(Config(), photos)
    views = Views(count=5, seed=3)
    data = DrawnImages(infos, root, PREPROCESS, 4, views)
    assert len(data) == 20 and [label for _, label in data.items] == [i // 5 for i in range(20)]
    before = torch.get_rng_state()
    first = [data[i] for i in range(20)]
    assert torch.equal(before, torch.get_rng_state()), 'the global generator is left alone'
    for (crop, number), (name, label) in zip(first, data.items):
        assert number == label and number_of(crop) == int(name.split('/')[-1][0])
    again = DrawnImages(infos, root, PREPROCESS, 4, views)
    assert all(torch.equal(again[i][0], first[i][0]) for i in reversed(range(20))), 'in any order, as of workers'
    # A view depends on its image's place in the set, so a larger draw has the same ones.
    more = DrawnImages(infos, root, PREPROCESS, 9, views)
    place = {name: i for i, (name, _) in reversed(list(enumerate(more.items)))}
    assert torch.equal(more[place[data.items[5][0]] + 1][0], first[6][0])


def test_a_view_is_a_crop_of_the_stated_area_and_maybe_mirrored(tmp_path):
    """A ramp from left to right and one from top to bottom: the corners of a view say where it was cut."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 2], ramp[..., 0] = np.arange(64)[None] * 4, np.arange(64)[:, None] * 4  # red along x, blue along y
    (tmp_path / 'one').mkdir()
    Image.fromarray(ramp[..., ::-1]).save(tmp_path / 'one' / 'ramp.png')
    infos, root = find_images(Config(), tmp_path / 'one')

    def crops(**options):
        data = DrawnImages(infos, root, PREPROCESS, 1, Views(count=200, **options))
        return torch.stack([data[i][0] for i in range(200)]).float()

    found = crops(area=(0.25, 0.25), aspect=(1.0, 1.0))
    wide = (found[:, 2, 16, -2] - found[:, 2, 16, 1]) / 4  # over 29 of 32 columns, of 32 pixels of the image
    assert torch.allclose(wide.abs(), torch.tensor(29.0), atol=1)
    down = (found[:, 0, -2, 16] - found[:, 0, 1, 16]) / 4
    assert torch.allclose(down, torch.tensor(29.0), atol=1), 'never upside down'
    assert 70 < int((wide < 0).sum()) < 130 and len(found.flatten(1).unique(dim=0)) > 150
    assert ((crops(flip=0.0)[:, 2, 16, -2] - crops(flip=0.0)[:, 2, 16, 1]) > 0).all()
    whole = crops(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)
    assert (whole == whole[0]).all() and whole[0, 2, 0, -1] > 240 > 10 > whole[0, 2, 0, 0]
    for wrong in (dict(count=1), dict(area=(0.5, 0.2)), dict(area=(0.5, 2.0)), dict(flip=2.0), dict(aspect=(2.0, 1.0))):
        with pytest.raises(ValueError):
            Views(**wrong)


def test_other_views_and_files_are_other_features(photos):
    infos, root = find_images(Config(), photos)

    def digest(*args):
        return DrawnImages(infos, root, PREPROCESS, 4, *args).digest()

    digests = [digest(), digest(Views(5)), digest(Views(6)), digest(Views(5, (0.2, 1.0))), digest(Views(5, seed=1))]
    digests.append(DrawnImages(infos, root, PREPROCESS, 5).digest())
    assert len(set(digests)) == 6 and digest(Views(5)) == digests[1]


def test_shards_and_configs_are_read_as_pretraining_reads_them(photos, tmp_path):
    with tarfile.open(tmp_path / 'shard.tar', 'w') as tar:
        tar.add(photos, 'photos')
    folder, shard = (find_images(Config(), where)[0] for where in (photos, tmp_path / 'shard.tar'))
    dataset = dict(type='mim_mm.UnlabelledImages', data_root=str(tmp_path), data_prefix='photos')
    cfg = Config(dict(default_scope='mim_mm', train_dataloader=dict(dataset=dataset)))
    configured, root = find_images(cfg)
    assert sorted(info['name'] for info in configured) == sorted(f'photos/{info["name"]}' for info in folder)
    for infos in (folder, shard, configured):
        data = DrawnImages(infos, root, PREPROCESS, 9)
        assert sorted(number_of(data[i][0]) for i in range(9)) == list(range(9))
    with pytest.raises(ValueError, match='give --images'):
        find_images(Config())


def test_tool_from_images_to_ranks(photos, tmp_path):
    (tmp_path / 'tiny.py').write_text(CONFIG)
    rng = np.random.default_rng(0)
    for number in range(9):  # structure, or all views of an image would be the same
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(photos / f'{number}.png')
    words = ['tiny.py', 'random', '--images', 'photos', '--workers', '0', '--device', 'cpu', '--views', '4']
    words += ['--rankme-images', '12', '--lidar-images', '6', '--batch-size', '5']
    first = in_process('label_free.py', *words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    written = json.loads((tmp_path / 'work_dirs/frozen/tiny/random_0/label_free.json').read_text())
    assert written['images'] == 13 and written['drawn'] == dict(rankme=12, lidar=6) and written['views']['count'] == 4
    assert set(written['features']) == {'crops', 'views'} and not written['features']['views']['reused']

    cfg = Config.fromfile(tmp_path / 'tiny.py')
    preprocess = Preprocess.from_config(cfg)
    backbone, _ = build_encoder(Source(cfg, None, preprocess))
    infos, root = find_images(cfg, photos)

    def features(data):
        return encode(backbone, preprocess.normalize(torch.stack([data[i][0] for i in range(len(data))])))

    crops = features(DrawnImages(infos, root, preprocess, 12))
    views = features(DrawnImages(infos, root, preprocess, 6, Views(4)))
    for pooling in ('cls', 'mean'):
        found = written['results'][pooling]
        assert found['rankme'] == pytest.approx(float(rankme(crops[pooling].double())), rel=1e-3)
        assert found['lidar'] == pytest.approx(lidar(views[pooling].view(6, 4, -1)).value, rel=1e-2)
    assert written['results']['cls_mean']['width'] == 64
    assert 'LiDAR is at most 5' in first.stdout and f'{written["results"]["mean"]["rankme"]:.2f}' in first.stdout

    second = in_process('label_free.py', *words, cwd=tmp_path)
    again = json.loads((tmp_path / 'work_dirs/frozen/tiny/random_0/label_free.json').read_text())
    assert second.returncode == 0 and again['results'] == written['results']
    assert again['features']['crops']['reused'] and again['features']['views']['reused']

    encoder = mim_mm.api.load_encoder(None, tmp_path / 'tiny.py')
    ranks = mim_mm.api.effective_ranks(encoder, photos, at_most=12, surrogates=6, views=4, batch_size=5)
    assert ranks == written['results'], 'in Python as by the tool'

    (photos / '0.png').write_bytes(b'no image')
    broken = in_process('label_free.py', *words[:-6], cwd=tmp_path)
    assert broken.returncode != 0 and "'0.png' cannot be read" in broken.stderr
    for wrong, said in (
        (['--views', '1'], 'at least 2'),
        (['--lidar-images', '1'], 'two or more'),
        (['--area', '1', '0'], 'area'),
    ):
        refused = in_process('label_free.py', *words, *wrong, cwd=tmp_path)
        assert refused.returncode != 0 and refused.stderr.startswith('error: ') and said in refused.stderr
