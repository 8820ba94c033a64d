"""Numbers keep their meaning: every kind of file against what it was made from, alike on every way into a model."""

import io
import struct

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS as ROOT
from PIL import Image

from mim_mm.data import image_survey, own_images
from mim_mm.data.decode import UnreadableImage, decode, read_image
from mim_mm.data.fast_crop import FastRandomResizedCrop, JpegHeader, LazyLoadImageFromFile
from mim_mm.data.image_sources import SourceError, find_source
from mim_mm.data.loading import LoadImageFromFile
from mim_mm.data.pixel_values import ValueRangeError, likely_range, to_bytes

HEIGHT, WIDTH = 24, 32
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)  # R, G, B
GREY = COLOURS[..., 0]
RANGE = dict(integer=(0, 4095), float=(0, 1))


def saved(image, kind, **options):
    out = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(out, kind, **options)
    return out.getvalue()


def by_opencv(ending, pixels):
    """R, G, B in; Pillow writes no colours of 16 bits."""
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if ending == '.tif' else []  # its default for floats loses
    return cv2.imencode(ending, pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)[1].tobytes()


def turned(kind, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(COLOURS, kind, exif=exif, **options)


def grey(pixels):
    return np.repeat(np.asarray(pixels)[..., None], 3, 2)


def files():
    """name -> (content, R, G, B that it means)."""
    palette = Image.fromarray((GREY % 3).astype(np.uint8), 'P')
    palette.putpalette([250, 10, 20, 30, 240, 40, 50, 60, 230])
    painted = np.array([[250, 10, 20], [30, 240, 40], [50, 60, 230]], np.uint8)[GREY % 3]
    alpha = GREY[::-1]
    inks = np.dstack([COLOURS, alpha])
    paper = np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255)
    twelve = COLOURS.astype(np.uint16) * 16
    eight = np.rint(twelve / 4095 * 255)
    right = np.rot90(COLOURS, -1)
    return {
        'one_bit.png': (saved(Image.fromarray(GREY > 99), 'PNG'), grey((GREY > 99) * 255)),
        'one_bit.tif': (saved(Image.fromarray(GREY > 99), 'TIFF'), grey((GREY > 99) * 255)),
        'grey_alpha.png': (saved(np.dstack([GREY, alpha]), 'PNG'), grey(GREY)),
        'alpha.png': (saved(inks, 'PNG'), COLOURS),
        'alpha.webp': (saved(inks, 'WEBP', lossless=True, exact=True), COLOURS),
        'palette.png': (saved(palette, 'PNG'), painted),
        'palette_clear.png': (saved(palette, 'PNG', transparency=1), painted),
        'palette.gif': (saved(palette, 'GIF'), painted),
        'palette_clear.gif': (saved(palette, 'GIF', transparency=1), painted),
        'inks.tif': (saved(Image.fromarray(inks, 'CMYK'), 'TIFF'), paper),
        'turned.png': (turned('PNG', 6), right),
        'turned.tif': (turned('TIFF', 6), right),
        'turned.webp': (turned('WEBP', 6, lossless=True), right),
        'mirrored.png': (turned('PNG', 2), COLOURS[:, ::-1]),
        'moving.gif': (saved(palette, 'GIF', save_all=True, append_images=[palette.rotate(180)]), painted),
        'pages.tif': (saved(COLOURS, 'TIFF', save_all=True, append_images=[Image.fromarray(right)]), COLOURS),
        'twelve.png': (saved(twelve[..., 0], 'PNG'), grey(eight[..., 0])),
        'twelve.tif': (saved(twelve[..., 0], 'TIFF'), grey(eight[..., 0])),
        'twelve_colours.png': (by_opencv('.png', twelve), eight),
        'twelve_colours.tif': (by_opencv('.tif', twelve), eight),
        'twelve_alpha.png': (cv2.imencode('.png', np.dstack([twelve, twelve])[..., [2, 1, 0, 3]])[1].tobytes(), eight),
        'float.tif': (saved(GREY / np.float32(255), 'TIFF'), grey(GREY)),
        'float_colours.tif': (by_opencv('.tif', COLOURS / np.float32(255)), COLOURS),
        'grey100.pgm': (b'P5 %d %d 100\n' % (WIDTH, HEIGHT) + (GREY % 101).tobytes(), grey(GREY % 101 / 100 * 255)),
        'twelve.pgm': (b'P5 %d %d 4095\n' % (WIDTH, HEIGHT) + twelve[..., 0].astype('>u2').tobytes(),
                       grey(eight[..., 0])),
    }  # fmt: skip


FILES = files()
JPEGS = {
    'turned.jpg': turned('JPEG', 6),
    'inks.jpg': saved(Image.fromarray(np.dstack([COLOURS, GREY]), 'CMYK'), 'JPEG'),
}


@pytest.mark.parametrize('name', FILES)
def test_every_kind_means_what_it_was_made_from(name):
    content, meant = FILES[name]
    image = decode(content, 3, name, RANGE)
    assert image.dtype == np.uint8 and image.shape == meant.shape
    assert np.abs(image[..., ::-1].astype(float) - meant).max() <= 1
    luminance = meant @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(content, 1, name, RANGE) - luminance).max() <= 2


@pytest.mark.parametrize('name', [*FILES, *JPEGS])
def test_every_way_into_a_model_sees_the_same(name, tmp_path):
    path = tmp_path / name
    content = JPEGS.get(name) or FILES[name][0]
    path.write_bytes(content)
    wanted = decode(content, 3, name, RANGE)
    sample = dict(img_path=str(path))
    loaders = [LoadImageFromFile(value_range=RANGE), own_images.LoadAnyImage(value_range=RANGE)]
    for loader in loaders:
        np.testing.assert_array_equal(loader(dict(sample))['img'], wanted)
    np.testing.assert_array_equal(read_image(path, RANGE), wanted)
    crop = FastRandomResizedCrop(wanted.shape[:2], (1.0, 1.0), (wanted.shape[1] / wanted.shape[0],) * 2)
    lazy = LazyLoadImageFromFile(value_range=RANGE)(dict(sample))
    np.testing.assert_array_equal(crop(lazy)['img'], wanted)
    (look,) = image_survey.survey(find_source(tmp_path)).looks
    assert (look.error, look.height, look.width) == ('', *wanted.shape[:2])
    assert look.turned == name.startswith(('turned', 'mirrored')) and look.animated == name.startswith(('mov', 'pages'))
    assert (look.bits > 8) == name.startswith(('twelve', 'float'))


def test_configs_of_all_scopes_load_by_it():
    from mmdet.registry import TRANSFORMS as DETECTION
    from mmpretrain.registry import TRANSFORMS as CLASSIFICATION

    for registry in (ROOT, DETECTION, CLASSIFICATION):
        assert registry.get('LoadImageFromFile') is LoadImageFromFile


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['eight', 'sixteen'])
def test_exif_of_all_eight_kinds(orientation, kind):
    """Pillow's own transposition of the stored pixels is the oracle; OpenCV reads 16-bit PNG without turning."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = GREY if kind == 'eight' else GREY.astype(np.uint16) * 257
    content = saved(pixels, 'PNG', exif=exif)
    if kind == 'sixteen':  # three channels, so that it is not left to Pillow
        block = content[content.index(b'eXIf') - 4 :]
        block = block[: 12 + struct.unpack('>I', block[:4])[0]]
        colours = by_opencv('.png', grey(pixels))
        content = colours[:33] + block + colours[33:]
    moves = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_270',
             7: 'TRANSVERSE', 8: 'ROTATE_90'}  # fmt: skip
    upright = Image.fromarray(GREY)
    upright = upright.transpose(getattr(Image.Transpose, moves[orientation])) if orientation > 1 else upright
    np.testing.assert_array_equal(decode(content, 3, value_range=(0, 65535))[..., 0], np.asarray(upright))


@pytest.mark.parametrize('channels', [1, 3])
def test_numbers_without_a_range_stop(channels):
    for name in ('twelve.png', 'twelve.tif', 'twelve_colours.png', 'float.tif'):
        with pytest.raises(ValueRangeError, match=f"'{name}'.*value_range = \\(0, (4095|1)\\)"):
            decode(FILES[name][0], channels, name)
    raw = io.BytesIO()
    np.save(raw, GREY / np.float32(255))
    with pytest.raises(ValueRangeError, match='32-bit floats'):
        decode(raw.getvalue(), channels, 'a.npy')
    image = decode(raw.getvalue(), channels, 'a.npy', (0, 1))
    np.testing.assert_array_equal(image if channels == 1 else image[..., 0], GREY)
    with pytest.raises(UnreadableImage, match='not finite'):
        decode(saved(np.full((4, 4), np.nan, np.float32), 'TIFF'), channels, 'a.tif', (0, 1))


def test_values_outside_of_the_range_stop():
    pixels = np.array([0, 4096], np.uint16)
    with pytest.raises(ValueRangeError, match='4096, outside of value_range=\\(0, 4095\\)'):
        to_bytes(pixels, (0, 4095), 'a.png')
    assert to_bytes(np.float32([0, 1.0005]), (0, 1)).tolist() == [0, 255], 'less than half a grey level'
    with pytest.raises(ValueRangeError):
        to_bytes(np.float32([0, 1.01]), (0, 1))
    with pytest.raises(ValueRangeError, match='black and white'):
        to_bytes(pixels, (5, 5))
    with pytest.raises(ValueRangeError, match='keys'):
        to_bytes(pixels, dict(int16=(0, 1)))


@pytest.mark.parametrize('kind, low, high, wanted', [
    ('integer', 0, 200, (0, 255)), ('integer', 3, 4000, (0, 4095)), ('integer', 0, 4096, (0, 16383)),
    ('integer', -1000, 3000, (-1000, 3000)), ('float', 0.2, 0.9, (0, 1)), ('float', -0.9, 1, (-1, 1)),
    ('float', 0, 254.5, (0, 255)), ('float', 0, 900, (0, 900)), ('float', 7, 7, (0, 255)),
])  # fmt: skip
def test_likely_range(kind, low, high, wanted):
    assert likely_range(kind, low, high) == wanted


def test_the_survey_decides_for_the_set(tmp_path):
    """A dark image alone would be taken for 8 or 10 bits; the set is of 12."""
    (tmp_path / 'i').mkdir()
    for i, top in enumerate((200, 1000, 4000)):
        Image.fromarray(np.linspace(0, top, 64).reshape(8, 8).astype(np.uint16)).save(tmp_path / 'i' / f'{i}.png')
    Image.fromarray(GREY / np.float32(255)).save(tmp_path / 'i' / 'f.tif')
    (tmp_path / 'i' / 'turned.jpg').write_bytes(turned('JPEG', 6))
    for name in ('a.heic', 'b.HEIC', 'c.txt', '._0.png', '.DS_Store'):
        (tmp_path / 'i' / name).write_text('x')
    seen = image_survey.survey(find_source(tmp_path / 'i'))
    assert seen.value_range == dict(integer=(0, 4095), float=(0.0, 1.0))
    text = '\n'.join(seen.lines('i'))
    assert 'modes      I;16 3, F 1, RGB 1' in text and 'bits       16-bit integer 3, 32-bit float 1, 8-bit 1' in text
    assert '3 integer files of more than 8 bits: 0 to 4000, value range 0 to 4095 becomes 0 to 255' in text
    assert 'turned     1 by EXIF' in text and 'over 3 files of other endings: .heic 2, .txt 1' in text
    stated = image_survey.survey(find_source(tmp_path / 'i'), value_range=(0, 3000))
    assert [look.name for look in stated.unreadable] == ['2.png']
    assert 'outside of value_range' in stated.unreadable[0].error
    (tmp_path / 'four').mkdir()
    np.save(tmp_path / 'four' / 'a.npy', np.zeros((4, 4, 4), np.uint8))
    np.save(tmp_path / 'four' / 'b.npy', np.zeros((4, 4, 4), np.uint16))
    with pytest.raises(SourceError, match=r'\[8, 16\] bits'):
        image_survey.survey(find_source(tmp_path / 'four'), 4).check(0.5)


def test_sixteen_bits_are_kept_for_other_numbers_of_channels():
    """Pillow cuts RGBA of 16 bits to 8."""
    pixels = (np.random.default_rng(1).integers(0, 65536, (6, 7, 4))).astype(np.uint16)
    for ending in ('.png', '.tif'):
        content = cv2.imencode(ending, pixels[..., [2, 1, 0, 3]])[1].tobytes()
        image = decode(content, 4)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, pixels)


def test_an_image_beyond_pillows_limit_is_surveyed_as_it_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)  # Pillow's own, scaled down: it refuses above twice as many
    (tmp_path / 'i').mkdir()
    (tmp_path / 'i' / 'a.png').write_bytes(saved(COLOURS, 'PNG'))
    (tmp_path / 'i' / 'a.webp').write_bytes(saved(COLOURS, 'WEBP'))
    assert not image_survey.survey(find_source(tmp_path / 'i'), full=True).unreadable
    assert decode((tmp_path / 'i' / 'a.webp').read_bytes()).shape == COLOURS.shape
    assert JpegHeader(1 << 14, 1 << 14, 3).simple and not JpegHeader(1 << 14, (1 << 14) + 1, 3).simple


def test_a_file_without_a_range_is_not_passed_over(tmp_path):
    (tmp_path / 'a.tif').write_bytes(FILES['float.tif'][0])
    lenient = own_images.LoadAnyImage(skip_unreadable=True)
    with pytest.raises(ValueRangeError, match='a.tif'):
        lenient(dict(img_path=str(tmp_path / 'a.tif')))
    crop = FastRandomResizedCrop(8, skip_unreadable=True)
    with pytest.raises(ValueRangeError, match='a.tif'):
        crop(dict(img_path=str(tmp_path / 'a.tif'), img_bytes=FILES['float.tif'][0]))


def test_eight_bit_files_are_bit_for_bit_mmcvs(tmp_path):
    import mmcv

    for kind in ('JPEG', 'PNG', 'BMP'):
        content = saved(COLOURS, kind)
        for channels, flag in ((3, 'color'), (1, 'grayscale')):
            np.testing.assert_array_equal(decode(content, channels), mmcv.imfrombytes(content, flag=flag))
    (tmp_path / 'a.png').write_bytes(saved(np.dstack([COLOURS, GREY]), 'PNG'))
    kept = LoadImageFromFile(color_type='unchanged')(dict(img_path=str(tmp_path / 'a.png')))
    assert kept['img'].shape[2] == 4, 'what only mmcv has is left to it'
