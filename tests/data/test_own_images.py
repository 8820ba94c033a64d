"""A user's own images: found, surveyed, decoded, read out of tars, and trained on without the broken ones."""

import io
import json
import os
import struct
import tarfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from PIL import Image
from torch.utils.data import DataLoader

from mim_mm.data import image_sources, image_survey, own_images
from mim_mm.data.decode import UnreadableImage, decode
from mim_mm.data.image_sources import SourceError, find_source, open_source


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def encoded(kind, pixels, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def readable_files():
    """name -> (content, format, width, height, channels)."""
    palette = io.BytesIO()
    Image.fromarray(noise((20, 30, 3), 4)).convert('P').save(palette, 'PNG')
    raw = io.BytesIO()
    np.save(raw, noise((12, 14, 3), 5))
    return {
        'a/colour.png': (encoded('PNG', noise((40, 50, 3))), 'PNG', 50, 40, 3),
        'a/photo.JPG': (encoded('JPEG', noise((33, 44, 3), 1)), 'JPEG', 44, 33, 3),
        'b/deep/grey.jpeg': (encoded('JPEG', noise((60, 32), 2)), 'JPEG', 32, 60, 1),
        'b/rgba.png': (encoded('PNG', noise((16, 16, 4), 3)), 'PNG', 16, 16, 4),
        'b/palette.png': (palette.getvalue(), 'PNG', 30, 20, 3),
        'c with blank/scan.tif': (encoded('TIFF', noise((24, 36, 3), 6)), 'TIFF', 36, 24, 3),
        'moving.gif': (encoded('GIF', noise((10, 11), 7)), 'GIF', 11, 10, 3),
        'web.webp': (encoded('WEBP', noise((18, 19, 3), 8)), 'WEBP', 19, 18, 3),
        'array.npy': (raw.getvalue(), 'NPY', 14, 12, 3),
    }


def broken_files():
    photo, picture = encoded('JPEG', noise((64, 64, 3), 9)), encoded('PNG', noise((64, 64, 3), 10))
    return {
        'bad/cut.jpg': photo[: len(photo) // 2],
        'bad/cut.png': picture[: len(picture) // 2],
        'bad/empty.png': b'',
        'bad/page.jpg': b'<html>not found</html>\n' * 10,
        'bad/five.npy': npy(np.zeros((4, 4, 5), np.uint8)),
    }


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    """The readable and the broken files, and others that are no images."""
    root = tmp_path / 'images'
    files = {name: entry[0] for name, entry in readable_files().items()} | broken_files()
    files |= {'notes.txt': b'no image', 'a/._photo.JPG': b'left by a Mac'}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path, files):
    with tarfile.open(path, 'w') as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


# ---------------------------------------------------------------- the survey


def test_survey_says_what_is_there(folder):
    seen = image_survey.survey(find_source(folder))
    found = {look.name: (look.format, look.width, look.height, look.channels) for look in seen.readable}
    assert found == {name: entry[1:] for name, entry in readable_files().items()}
    assert {look.name for look in seen.unreadable} == set(broken_files())
    reasons = {look.name: look.error for look in seen.unreadable}
    assert reasons['bad/empty.png'] == 'the file is empty' and 'BytesIO' not in ''.join(reasons.values())

    lines = seen.lines('images', small=20)
    assert lines[0] == 'images     9 readable of 14 in images (folder; headers read)'
    # widths 11 14 16 19 30 32 36 44 50, heights 10 12 16 18 20 24 33 40 60
    assert lines[2] == 'width      11 / 30 / 50 px (smallest / median / largest)'
    assert lines[3] == 'height     10 / 20 / 60 px (smallest / median / largest)'
    assert lines[4].startswith('small      4 with a side below')  # 16x16, 11x10, 14x12, 19x18
    assert lines[5] == 'channels   7 with 3, 1 with 1, 1 with 4; 2 converted to 3'
    assert lines[6] == 'modes      RGB 4, P 2, uint8 1, RGBA 1, L 1' and lines[7] == 'bits       8-bit 9'
    assert lines[8] == 'passed     over 1 files of other endings: .txt 1', 'notes.txt; what a Mac leaves is hidden'
    assert lines[9] == 'unreadable 5, left out:' and len(lines) == 15
    assert seen.lines('images', at_most=2)[-1] == '  ... and 3 more'


def test_survey_that_decodes_finds_damage_that_headers_hide(tmp_path):
    (tmp_path / 'i').mkdir()
    picture = bytearray(encoded('PNG', noise((64, 64, 3))))
    middle = len(picture) // 2
    picture[middle : middle + 8] = b'\xff' * 8  # both ends are whole
    (tmp_path / 'i' / 'a.png').write_bytes(picture)
    (tmp_path / 'i' / 'b.png').write_bytes(encoded('PNG', noise((64, 64, 3))))
    source = find_source(tmp_path / 'i')
    assert [look.name for look in image_survey.survey(source).unreadable] == []
    assert [look.name for look in image_survey.survey(source, full=True).unreadable] == ['a.png']


def test_long_headers_are_read_whole(tmp_path):
    (tmp_path / 'i').mkdir()
    comment = b'x' * 60000
    photo = encoded('JPEG', noise((20, 30, 3)))
    blocks = (b'\xff\xfe' + struct.pack('>H', len(comment) + 2) + comment) * 3  # 180 kB of comments before the size
    (tmp_path / 'i' / 'a.jpg').write_bytes(photo[:2] + blocks + photo[2:])
    (look,) = image_survey.survey(find_source(tmp_path / 'i')).looks
    assert (look.width, look.height, look.error) == (30, 20, '')


@pytest.mark.parametrize('bad, limit, stops', [(0, 0.0, False), (1, 0.25, False), (2, 0.25, True), (4, 1.0, True)])
def test_too_many_unreadable_files_stop(tmp_path, bad, limit, stops):
    (tmp_path / 'i').mkdir()
    for i in range(4):
        (tmp_path / 'i' / f'{i}.png').write_bytes(b'text' if i < bad else encoded('PNG', noise((8, 8, 3))))
    seen = image_survey.survey(find_source(tmp_path / 'i'))
    if stops:
        with pytest.raises(SourceError, match='none of 4 images' if bad == 4 else '2 of 4 .* 0.png'):
            seen.check(limit)
    else:
        seen.check(limit)


# ---------------------------------------------------------------- where images lie


def test_folder_list_and_tars_give_the_same_images(folder, tmp_path):
    files = {name: (folder / name).read_bytes() for name in [*readable_files(), *broken_files()]}
    plain = {p.name: p.read() for p in find_source(folder).places}
    assert plain == files

    listing = tmp_path / 'list.txt'
    listing.write_text('# mine\n\n' + ''.join(f'images/{name}\n' for name in files))
    by_list = find_source(listing)
    assert by_list.kind == 'list' and [p.read() for p in by_list.places] == list(files.values())
    assert by_list.places[0].name == 'images/a/colour.png'
    listing.write_text(''.join(f'{folder / name}\n' for name in files))
    assert [p.read() for p in find_source(listing).places] == list(files.values()), 'absolute names'

    shards = tmp_path / 'shards'
    shards.mkdir()
    names = list(files)
    write_tar(shards / 's-0.tar', {n: files[n] for n in names[:7]} | {'label.txt': b'3'})
    write_tar(shards / 's-1.tar', {n: files[n] for n in names[7:]})
    for given in (shards, f'{shards}/s-*.tar'):
        source = find_source(given)
        assert source.kind == 'tar' and [p.read() for p in source.places] == list(files.values())
        assert [p.name for p in source.places][6:8] == [f's-0.tar:{names[6]}', f's-1.tar:{names[7]}']
        assert open_source(**source.settings) == source, 'the dataset finds what the survey saw'
    one = find_source(shards / 's-0.tar')
    assert [p.read() for p in one.places] == list(files.values())[:7] and open_source(**one.settings) == one


def test_tar_index_is_kept_and_made_anew_for_another_tar(tmp_path, own_cache, monkeypatch):
    shard = tmp_path / 'a.tar'
    write_tar(shard, {'0.png': encoded('PNG', noise((8, 8, 3)))})
    first = image_sources.shard_index(str(shard))['images']
    assert len(list((own_cache / 'tar').iterdir())) == 1
    monkeypatch.setattr(image_sources, '_scan', lambda *args: pytest.fail('scanned again'))
    assert image_sources.shard_index(str(shard))['images'] == first
    monkeypatch.undo()
    monkeypatch.setenv('MIM_MM_CACHE', str(own_cache))
    write_tar(shard, {f'{i}.png': encoded('PNG', noise((8, 8, 3), i)) for i in range(3)})
    assert [row[0] for row in image_sources.shard_index(str(shard))['images']] == ['0.png', '1.png', '2.png']
    for file in (own_cache / 'tar').iterdir():
        file.write_text('{"size": ')  # a cache damaged from outside
    assert len(image_sources.shard_index(str(shard))['images']) == 3
    monkeypatch.setenv('MIM_MM_CACHE', str(shard))  # no folder can be made there
    assert len(image_sources.shard_index(str(shard))['images']) == 3


def test_tar_that_is_cut_off_or_compressed_is_refused(tmp_path):
    shard = tmp_path / 'a.tar'
    write_tar(shard, {'0.png': encoded('PNG', noise((64, 64, 3)))})
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(SourceError, match='cut off'):
        find_source(shard)
    with tarfile.open(tmp_path / 'b.tar.gz', 'w:gz'):
        pass
    with pytest.raises(SourceError, match='compressed'):
        find_source(tmp_path / 'b.tar.gz')
    os.rename(tmp_path / 'b.tar.gz', tmp_path / 'c.tar')
    with pytest.raises(SourceError, match='uncompressed tar'):
        find_source(tmp_path / 'c.tar')


def test_what_is_not_there_says_what_is_expected(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty.txt').write_text('\n')
    (tmp_path / 'binary').write_bytes(b'\0\1\2\n' * 5)
    for given in ('nothing', 'empty', 'empty.txt', 'binary', 'no-*.tar'):
        with pytest.raises(SourceError, match='expected a folder of images'):
            find_source(tmp_path / given)


def test_a_link_to_a_folder_above_ends(tmp_path):
    (tmp_path / 'i' / 'inner').mkdir(parents=True)
    (tmp_path / 'i' / 'a.png').write_bytes(encoded('PNG', noise((8, 8, 3))))
    (tmp_path / 'i' / 'inner' / 'back').symlink_to(tmp_path / 'i')
    assert [p.name for p in find_source(tmp_path / 'i').places] == ['a.png']


# ---------------------------------------------------------------- decoding


def test_conversion_to_three_and_one_channels():
    colour, grey, rgba = noise((9, 7, 3)), noise((9, 7)), noise((9, 7, 4))
    np.testing.assert_array_equal(decode(encoded('PNG', colour)), colour[..., ::-1])
    np.testing.assert_array_equal(decode(encoded('PNG', grey)), np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(decode(encoded('PNG', rgba)), rgba[..., 2::-1])
    np.testing.assert_array_equal(decode(encoded('PNG', grey), 1), grey)
    luminance = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(encoded('PNG', colour), 1) - luminance).max() < 1
    np.testing.assert_array_equal(decode(npy(colour), 3, 'x.npy'), colour[..., ::-1])
    np.testing.assert_array_equal(decode(npy(grey), 3, 'x.npy'), np.repeat(grey[..., None], 3, 2))
    # OpenCV does not read GIF everywhere; Pillow takes over
    np.testing.assert_array_equal(decode(encoded('GIF', grey)), np.repeat(grey[..., None], 3, 2))


def test_other_numbers_of_channels_are_kept_as_they_are():
    rgba, many = noise((9, 7, 4)), noise((9, 7, 6)).astype(np.uint16) * 200
    np.testing.assert_array_equal(decode(encoded('PNG', rgba), 4), rgba)
    back = decode(npy(many), 6, 'x.npy')
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, many)
    with pytest.raises(UnreadableImage, match='it has 3 channels, 4 are wanted'):
        decode(encoded('PNG', noise((9, 7, 3))), 4)
    for content, name in ((b'', 'a.png'), (b'no image', 'a.png'), (b'no array', 'a.npy')):
        with pytest.raises(UnreadableImage):
            decode(content, 3, name)
    pickled = io.BytesIO()
    np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableImage):
        decode(pickled.getvalue(), 1, 'a.npy')


@pytest.mark.parametrize('planar', ['contig', 'separate'])
def test_tiff_of_six_channels(tmp_path, planar):
    tifffile = pytest.importorskip('tifffile')
    pixels = noise((20, 24, 6))
    (tmp_path / 'i').mkdir()
    stored = pixels if planar == 'contig' else pixels.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / 'i' / 'a.tif', stored, photometric='minisblack', planarconfig=planar)
    source = find_source(tmp_path / 'i')
    np.testing.assert_array_equal(decode(source.places[0].read(), 6), pixels)
    (look,) = image_survey.survey(source, channels=6).looks
    assert (look.format, look.width, look.height, look.channels, look.error) == ('TIFF', 24, 20, 6, '')
    assert 'channels' in image_survey.survey(source, channels=5).looks[0].error


# ---------------------------------------------------------------- the data set


def pipeline(channels=3, **options):
    backend = 'pillow' if channels in (1, 3) else 'cv2'
    return [
        dict(type='mim_mm.LoadAnyImage', channels=channels, skip_unreadable=True, **options),
        dict(type='mmpretrain.RandomResizedCrop', scale=8, backend=backend, interpolation='bicubic'),
        dict(type='mmpretrain.RandomFlip', prob=0.5),
        dict(type='mim_mm.PackImage'),
    ]


@pytest.mark.parametrize('packed', [False, True])
def test_training_sees_every_readable_image_and_no_other(folder, tmp_path, packed):
    where = folder
    if packed:
        where = tmp_path / 'all.tar'
        write_tar(where, {p.name: p.read() for p in find_source(folder).places})
    seen = image_survey.survey(find_source(where))
    skip = tmp_path / 'unreadable.txt'
    skip.write_text(seen.skip_list(), encoding='utf-8', errors='surrogateescape')
    data = own_images.OwnImages(**seen.source.settings, skip_list=str(skip), pipeline=pipeline())
    assert [data.get_data_info(i)['name'] for i in range(len(data))] == [look.name for look in seen.readable]
    loader = DataLoader(data, batch_size=4, num_workers=2, collate_fn=default_collate)
    batches = [batch['inputs'] for batch in loader]
    assert [tuple(b.shape) for b in batches] == [(4, 3, 8, 8), (4, 3, 8, 8), (1, 3, 8, 8)]
    assert all(b.dtype == torch.uint8 for b in batches)


def test_what_the_survey_missed_is_passed_over_in_training_and_stops_an_evaluation(folder, tmp_path):
    data = own_images.OwnImages(str(folder), skip_list=str(tmp_path / 'none.txt'), pipeline=pipeline())
    assert len(data) == 14
    assert all(data[i]['inputs'].shape == (3, 8, 8) for i in range(14))
    strict = own_images.LoadAnyImage()
    with pytest.raises(UnreadableImage, match='empty.png.*empty'):
        strict(dict(img_path=str(folder / 'bad' / 'empty.png')))


def test_nothing_left_stops(folder, tmp_path):
    skip = tmp_path / 'all.txt'
    skip.write_text(''.join(f'{p.name}\n' for p in find_source(folder).places))
    with pytest.raises(SourceError, match='all are listed'):
        own_images.OwnImages(str(folder), skip_list=str(skip))


@pytest.mark.parametrize('channels', [1, 4, 6])
def test_other_channels_reach_the_model(tmp_path, channels):
    (tmp_path / 'i').mkdir()
    for i in range(2):
        pixels = noise((12, 12, channels), i)
        (tmp_path / 'i' / f'{i}.npy').write_bytes(npy(pixels[..., 0] if channels == 1 else pixels))
    data = own_images.OwnImages(str(tmp_path / 'i'), pipeline=pipeline(channels))
    batch = default_collate([data[0], data[1]])
    assert batch['inputs'].shape == (2, channels, 8, 8)
    stored = [np.load(tmp_path / 'i' / f'{i}.npy').reshape(12, 12, channels).astype(float) for i in range(2)]
    mean, std, count = image_survey.channel_statistics(find_source(tmp_path / 'i').places, channels)
    flat = np.stack(stored).reshape(-1, channels)
    np.testing.assert_allclose(mean, flat.mean(0), atol=1e-3)
    np.testing.assert_allclose(std, flat.std(0), atol=1e-3)
    assert count == 2
    normalizer = own_images.ChannelNormalizer(mean, std)
    images = torch.from_numpy(np.stack(stored).transpose(0, 3, 1, 2)).byte()
    out = normalizer(dict(inputs=images))['inputs']
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(channels), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.var((0, 2, 3), unbiased=False), torch.ones(channels), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match='channels'):
        normalizer(dict(inputs=images[:, :1].repeat(1, channels + 1, 1, 1)))


def test_statistics_of_colour_are_in_the_order_r_g_b(tmp_path):
    (tmp_path / 'i').mkdir()
    flat = np.zeros((4, 4, 3), np.uint8) + np.array([200, 100, 50], np.uint8)
    (tmp_path / 'i' / 'a.png').write_bytes(encoded('PNG', flat))
    mean, std, _ = image_survey.channel_statistics(find_source(tmp_path / 'i').places, 3)
    assert mean == [200, 100, 50] and std == [1, 1, 1]


def _index(path):
    return image_sources.shard_index(path)['images']


def test_many_processes_may_index_one_shard(tmp_path, own_cache):
    write_tar(tmp_path / 'a.tar', {f'{i}.png': encoded('PNG', noise((8, 8, 3), i)) for i in range(20)})
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(_index, [str(tmp_path / 'a.tar')] * 4))
    assert all(row == rows[0] for row in rows) and len(rows[0]) == 20
    (kept,) = (own_cache / 'tar').iterdir()
    assert json.loads(kept.read_text())['images'] == rows[0]
