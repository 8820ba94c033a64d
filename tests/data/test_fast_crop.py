"""The fast crop is the plain one: same boxes, pixels within rounding, every kind of file, no aliasing."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from jpegs import KINDS, RATIOS, encoded, fast, photo, psnr
from mmengine.dataset import Compose
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import Image

from mim_mm.data import crop_decode, fast_crop
from mim_mm.data.decode import UnreadableImage
from mim_mm.data.fast_crop import (
    FastRandomFlip,
    FastRandomResizedCrop,
    LazyLoadImageFromFile,
    TwoSizeRandomResizedCrop,
    read_jpeg_header,
)
from mim_mm.data.unlabelled import PackImage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module', autouse=True)
def native(tmp_path_factory):
    """The C decoder, built where it can be; its cache is the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MIM_MM_CACHE', str(tmp_path_factory.mktemp('cache')))
        try:
            crop_decode.build()
            yield True
        except crop_decode.CannotBuild as error:
            yield str(error)
    crop_decode._load.cache_clear()


@pytest.fixture
def decoder(request, native):
    """Skips a decoder that is not there."""
    name = request.param
    if name == 'simplejpeg':
        pytest.importorskip('simplejpeg')
    if name == 'crop' and native is not True:
        pytest.skip(native.splitlines()[-1])
    return name


each_decoder = pytest.mark.parametrize('decoder', ['opencv', 'simplejpeg', 'crop'], indirect=True)


def plain(path, scale, seed, flip=0.0):
    """mmpretrain's chain, as the recipes had it; the loader is mmcv's own, as ours is registered under its name."""
    np.random.seed(seed)
    steps = [
        mmcv.transforms.LoadImageFromFile(),
        dict(type='mmpretrain.RandomResizedCrop', scale=scale, backend='pillow', interpolation='bicubic', **RATIOS),
        dict(type='mmpretrain.RandomFlip', prob=flip),
        dict(type='mim_mm.PackImage'),
    ]
    return Compose(steps)(dict(img_path=str(path)))['inputs']


@each_decoder
@pytest.mark.parametrize('kind', KINDS)
def test_crops_of_every_kind_of_jpeg(tmp_path, kind, decoder):
    path = tmp_path / 'a.jpg'
    for seed in range(6):
        height, width = [(150, 211), (97, 64), (64, 300)][seed % 3]
        path.write_bytes(encoded(photo(height, width, seed), **dict(KINDS[kind])))
        old, new = plain(path, 48, seed, flip=0.5), fast(path, 48, seed, decoder, flip=0.5)
        assert new.shape == (3, 48, 48) and new.dtype == torch.uint8 and new.is_contiguous()
        assert psnr(old, new) >= 50


@each_decoder
def test_turned_images_and_other_formats_go_the_plain_way(tmp_path, decoder):
    pixels = photo(60, 90)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f'{orientation}.jpg'
        path.write_bytes(encoded(pixels, exif=exif))
        header = read_jpeg_header(path.read_bytes())
        assert (header.orientation, header.simple) == (orientation, orientation == 1)
        assert psnr(plain(path, 32, 3), fast(path, 32, 3, decoder)) >= 50
    for kind in ('PNG', 'BMP', 'WEBP', 'TIFF'):
        path = tmp_path / f'a.{kind.lower()}'
        path.write_bytes(encoded(pixels, format=kind))
        assert read_jpeg_header(path.read_bytes()) is None
        assert psnr(plain(path, 32, 4), fast(path, 32, 4, decoder)) >= 50


@each_decoder
@pytest.mark.parametrize('progressive', [False, True])
def test_truncated_files(tmp_path, decoder, progressive):
    """Refused where OpenCV refuses them. The crop-only decoder cannot know of damage below its box."""
    whole = encoded(photo(120, 160), progressive=progressive)
    path, sound = tmp_path / 'cut.jpg', tmp_path / 'whole.jpg'
    sound.write_bytes(whole)
    refused = 0
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        for seed in range(6):
            try:
                wanted = plain(path, 32, seed)
            except AssertionError:  # mmcv's; some releases of OpenCV fill up with grey
                wanted = None
            try:
                found = fast(path, 32, seed, decoder)
            except UnreadableImage:
                assert wanted is None
                refused += 1
                continue
            if wanted is None:
                assert decoder == 'crop' and not progressive
                wanted = plain(sound, 32, seed)
            assert psnr(wanted, found) >= 50
    if wanted is None:
        assert refused > 0
    path.write_bytes(whole[:40])
    with pytest.raises(UnreadableImage, match='cut.jpg'):
        fast(path, 32, 0, decoder)
    crop = FastRandomResizedCrop(32, decoder=decoder, skip_unreadable=True)
    assert crop(dict(img_path='cut.jpg', img_bytes=whole[:40])) is None


@each_decoder
def test_the_pixels_of_a_box_are_those_of_the_whole_image(decoder):
    """Before any resizing: every box, also at the edges, equals the cut of the whole decoded image."""
    if decoder == 'opencv':
        pytest.skip('it decodes the whole image')
    decode_box = fast_crop.choose_decoder(decoder)
    rng = np.random.default_rng(0)
    for kind, options in KINDS.items():
        if kind == 'CMYK':
            continue
        data = encoded(photo(113, 187, 5), **dict(options))
        whole, header = mmcv.imfrombytes(data), read_jpeg_header(data)
        boxes = [(0, 0, 113, 187), (112, 186, 1, 1), (0, 100, 113, 1), (50, 0, 1, 187), (16, 16, 16, 16)]
        for _ in range(40):
            top, left = rng.integers(0, 112), rng.integers(0, 186)
            boxes.append((top, left, rng.integers(1, 114 - top), rng.integers(1, 188 - left)))
        for box in boxes:
            box = tuple(int(v) for v in box)
            gap = np.abs(decode_box(data, header, box).astype(int) - fast_crop.cut(whole, box))
            assert gap.max() <= 1, (kind, box)


def test_boxes_and_random_state_are_those_of_mmpretrain():
    from mmpretrain.datasets.transforms import RandomResizedCrop

    theirs, ours = RandomResizedCrop(32, **RATIOS), FastRandomResizedCrop(32, **RATIOS)
    for height, width in ((50, 70), (1, 9), (400, 30), (33, 500)):
        for seed in range(30):
            np.random.seed(seed)
            wanted, after = theirs.rand_crop_params(np.zeros((height, width, 3))), np.random.random()
            np.random.seed(seed)
            assert ours.draw(height, width) == wanted and np.random.random() == after


@pytest.mark.parametrize('prob', [0.0, 0.3, 1.0])
def test_flips_and_random_state_are_those_of_mmpretrain(prob):
    from mmpretrain.datasets.transforms import RandomFlip

    theirs, ours, image = RandomFlip(prob=prob), FastRandomFlip(prob), np.arange(24).reshape(2, 4, 3)
    np.random.seed(0)
    wanted = [theirs(dict(img=image))['img'] for _ in range(50)] + [np.random.random()]
    np.random.seed(0)
    found = [ours(dict(img=image))['img'] for _ in range(50)] + [np.random.random()]
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found))
    with pytest.raises(ValueError, match='prob=1.5'):
        FastRandomFlip(1.5)


def test_no_aliasing_on_a_zone_plate():
    """Frequencies rise to the input's limit at the border; what lies beyond the output's limit must be gone."""
    side, small = 896, 112
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(x, y)
    plate = np.uint8(np.rint(127.5 + 127.5 * np.cos(np.pi * radius**2 / side)))
    image = np.repeat(plate[..., None], 3, 2)
    ours = fast_crop.resize(image, (small, small))[0].numpy().astype(float)
    pillow = np.asarray(Image.fromarray(image).resize((small, small), Image.BICUBIC), float)[..., 0]
    # cos(pi r^2 / side) has r / side cycles a pixel; the output holds 1 / 16 of a cycle of an input pixel.
    beyond = radius[4::8, 4::8] > 1.25 * side / 16
    assert beyond.mean() > 0.5
    assert ours[beyond].std() <= pillow[beyond].std() + 0.05 < 5
    assert image[::8, ::8, 0][beyond].std() > 50  # without antialiasing there is plenty


def test_decoded_images_of_any_channels_are_taken():
    rng = np.random.default_rng(0)
    crop = FastRandomResizedCrop((24, 32), **RATIOS)
    for shape, dtype in (((40, 50), np.uint8), ((40, 50, 6), np.uint8), ((40, 50, 2), np.float32)):
        image = rng.integers(90, 160, shape).astype(dtype)  # overshoots are not clipped between the two passes
        np.random.seed(1)
        out = crop(dict(img=image.copy()))['img']
        assert out.shape == (24, 32, *shape[2:]) and out.dtype == dtype
        np.random.seed(1)
        top, left, height, width = crop.draw(40, 50)
        for channel in range(shape[2] if len(shape) == 3 else 1):
            one = image.reshape(40, 50, -1)[top : top + height, left : left + width, channel]
            kind = 'L' if dtype == np.uint8 else 'F'
            wanted = np.asarray(Image.fromarray(one, kind).resize((32, 24), Image.BICUBIC), float)
            assert np.abs(out.reshape(24, 32, -1)[..., channel] - wanted).max() <= 1


def test_bilinear_follows_pillow(tmp_path):
    image = photo(90, 130)
    out = fast_crop.resize(image, (40, 40), 'bilinear').permute(1, 2, 0).numpy()
    assert psnr(out, np.asarray(Image.fromarray(image).resize((40, 40), Image.BILINEAR))) >= 50


def test_a_stretch_of_a_tar_and_bytes_that_are_there(tmp_path):
    data = encoded(photo(50, 60))
    (tmp_path / 'a.tar').write_bytes(b'x' * 512 + data + b'y' * 100)
    load = LazyLoadImageFromFile()
    place = dict(img_path=str(tmp_path / 'a.tar'), offset=512, size=len(data))
    assert load(dict(place))['img_bytes'] == data == load(dict(img_bytes=data))['img_bytes']
    with pytest.raises(FileNotFoundError):
        load(dict(img_path='nowhere.jpg'))
    assert LazyLoadImageFromFile(skip_unreadable=True)(dict(img_path='nowhere.jpg')) is None
    local = LazyLoadImageFromFile(backend_args=dict(backend='local'))
    assert local(dict(img_path=str(tmp_path / 'a.tar')))['img_bytes'][512 : 512 + len(data)] == data


@each_decoder
def test_nothing_is_kept_between_samples_and_it_travels_to_a_worker(decoder):
    whole = dict(crop_ratio_range=(1, 1), aspect_ratio_range=(1, 1))  # the size of the crop: nothing to resize
    crop = pickle.loads(pickle.dumps(FastRandomResizedCrop(32, decoder=decoder, **whole)))
    data = [encoded(photo(32, 32, seed), quality=98) for seed in range(2)]
    first = crop(dict(img_bytes=data[0]))['img']
    kept = copy.deepcopy(first)
    assert np.abs(kept.astype(int) - mmcv.imfrombytes(data[0])).max() <= 1
    crop(dict(img_bytes=data[1]))
    assert np.array_equal(first, kept)


def test_large_images_get_memory_of_their_own(monkeypatch):
    pytest.importorskip('simplejpeg')
    data = encoded(photo(40, 50))
    decoder, header = fast_crop.WholeDecoder(), read_jpeg_header(data)
    for limit in (40 * 50 * 3, 40 * 50 * 3 - 1):
        monkeypatch.setattr(fast_crop.WholeDecoder, 'KEPT', limit)
        first = decoder(data, header, (0, 0, 40, 50))
        assert np.array_equal(first, mmcv.imfrombytes(data))
        assert np.shares_memory(first, decoder(data, header, (0, 0, 40, 50))) == (limit == 40 * 50 * 3)


@pytest.mark.parametrize('to_rgb', [True, False])
def test_packing_of_flipped_images(to_rgb):
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    pack = PackImage(to_rgb=to_rgb)
    for view in (image, image[:, ::-1], image[::-1], image[::-1, ::-1], image[..., 0][:, ::-1], image[:, ::-1, :2]):
        wanted = view[..., None] if view.ndim == 2 else view
        wanted = wanted[..., ::-1] if to_rgb and wanted.shape[2] == 3 else wanted
        packed = pack(dict(img=view))['inputs']
        assert packed.is_contiguous() and np.array_equal(packed.numpy(), wanted.transpose(2, 0, 1))


def test_bad_settings_name_the_rule(monkeypatch):
    with pytest.raises(ValueError, match='bicubic or bilinear'):
        FastRandomResizedCrop(32, interpolation='lanczos')
    with pytest.raises(ValueError, match="decoder='turbo' is not one of"):
        FastRandomResizedCrop(32, decoder='turbo')
    monkeypatch.setitem(sys.modules, 'simplejpeg', None)
    with pytest.raises(ImportError, match=r'mim_mm\[fast\]'):
        FastRandomResizedCrop(32, decoder='simplejpeg')


def test_without_the_extras_it_decodes_by_opencv(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'simplejpeg', None)
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'empty'))
    assert not crop_decode.available() and FastRandomResizedCrop(32).decode_box is None
    with pytest.raises(crop_decode.CannotBuild, match='tools/build_crop_decode.py'):
        FastRandomResizedCrop(32, decoder='crop')


def test_headers():
    data = encoded(photo(20, 30))
    assert read_jpeg_header(data) == fast_crop.JpegHeader(20, 30, 3)
    for broken in (b'', b'\xff\xd8', data[:60], b'\xff\xd8' + b'\0' * 40, b'GIF89a' + b'\0' * 40):
        assert read_jpeg_header(broken) is None
    # EXIF that ends too early counts as none: OpenCV and Pillow read it so, too
    block = b'Exif\0\0II*\0\x08\0\0\0\x05\0'
    inserted = data[:2] + b'\xff\xe1' + (2 + len(block)).to_bytes(2, 'big') + block + data[2:]
    assert read_jpeg_header(inserted).orientation == 1


def test_the_tool_says_what_is_missing(tmp_path):
    import os

    env = dict(os.environ, MIM_MM_CACHE=str(tmp_path), CC='no-such-compiler')
    command = [sys.executable, str(ROOT / 'tools/build_crop_decode.py')]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 1 and 'no-such-compiler' in done.stderr and 'libjpeg-turbo' in done.stderr
    assert not [p for p in (tmp_path / 'native').iterdir()]


@pytest.mark.parametrize('second, by', [('lanczos', Image.LANCZOS), ('bicubic', Image.BICUBIC)])
def test_one_box_at_two_sizes(second, by):
    """Both are Pillow's, antialiased; the boxes are those of mmpretrain's RandomResizedCrop."""
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8), (5, 5), 0)
    crop = TwoSizeRandomResizedCrop(scale=32, second_scale=16, second_interpolation=second)
    boxes = RandomResizedCrop(32)
    for seed in range(20):
        np.random.seed(seed)
        found = crop(dict(img=image))['img']
        np.random.seed(seed)
        top, left, height, width = boxes.rand_crop_params(image)
        cut = Image.fromarray(image[top : top + height, left : left + width])
        assert [view.shape for view in found] == [(32, 32, 3), (16, 16, 3)]
        assert np.abs(found[0].astype(int) - np.asarray(cut.resize((32, 32), Image.BICUBIC))).max() <= 1
        assert np.array_equal(found[1], np.asarray(cut.resize((16, 16), by)))
    with pytest.raises(ValueError, match='take lanczos'):
        TwoSizeRandomResizedCrop(scale=32, second_scale=16, second_interpolation='nearest')
