"""An image that says it is huge is refused by its header in every loader; only regular files are read."""

import io
import os
import socket
import struct
import tarfile
import zlib

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mim_mm import files
from mim_mm.data import image_header, image_survey
from mim_mm.data.coco_images import decoded_size
from mim_mm.data.decode import UnreadableImage, decode, read_image
from mim_mm.data.device_decode import CropOnDevice
from mim_mm.data.fast_crop import FastRandomResizedCrop, LazyLoadImageFromFile
from mim_mm.data.image_sources import SourceError, find_source, open_source
from mim_mm.data.loading import LoadImageFromFile
from mim_mm.data.one_draw_crop import MAERandomResizedCrop
from mim_mm.data.own_images import LoadAnyImage
from mim_mm.data.unlabelled import list_images
from mim_mm.engine.start import annotations, guard
from mim_mm.folders import DataError

SIDE = 20_000  # 400 million pixels: above the default, and below what Pillow and OpenCV themselves refuse


def saved(kind, **options):
    data = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(data, kind, **options)
    return data.getvalue()


def jpeg(side=SIDE, **options):
    """A small JPEG whose frame header says side x side."""
    data = saved('JPEG', **options)
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    return data[: at + 5] + struct.pack('>HH', side, side) + data[at + 9 :]


def png(side=SIDE):
    data = saved('PNG')
    chunk = b'IHDR' + struct.pack('>II', side, side) + data[24:29]
    return data[:12] + chunk + struct.pack('>I', zlib.crc32(chunk)) + data[33:]


def bmp(side=SIDE):
    data = saved('BMP')
    return data[:18] + struct.pack('<ii', side, -side) + data[26:]


def tiff(side=SIDE, order='<'):
    """A directory of sizes, 8-bit grey, one strip that is not all there."""
    mark = b'II*\0' if order == '<' else b'MM\0*'
    shorts = [(258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    tags = sorted([(256, 4, side), (257, 4, side), (273, 4, 8), (278, 4, side), (279, 4, side), *shorts])
    rows = b''.join(
        struct.pack(order + 'HHI', tag, kind, 1)
        + struct.pack(order + ('I' if kind == 4 else 'HH'), *([value] if kind == 4 else [value, 0]))
        for tag, kind, value in tags
    )
    return mark + struct.pack(order + 'I', 8) + struct.pack(order + 'H', len(tags)) + rows + b'\0' * 4


def ppm(side=SIDE):
    return f'P6 {side} {side} 255\n'.encode() + b'\0' * 300


def gif(side=SIDE):
    data = saved('GIF')
    return data[:6] + struct.pack('<HH', side, side) + data[10:]


def npy(side=SIDE):
    data = io.BytesIO()
    np.save(data, np.zeros((2, 2, 3), np.uint8))
    return data.getvalue().replace(b'(2, 2, 3)', f'({side}, {side}, 3)'.encode()[:9].ljust(9))


BOMBS = dict(
    jpg=jpeg(),
    progressive=jpeg(progressive=True),
    # libjpeg goes on behind bytes between two segments, where a strict reader of headers stops
    damaged=jpeg().replace(b'\xff\xdb', b'xx\xff\xdb', 1),
    cut=jpeg()[:-100],
    png=png(),
    bmp=bmp(),
    tiff=tiff(),
    tiff_big_endian=tiff(order='>'),
    ppm=ppm(),
    gif=gif(),
)  # fmt: skip


def crop(kind, decoder):
    def read(path):
        step = kind(8, decoder=decoder)
        return step.transform(LazyLoadImageFromFile().transform(dict(img_path=str(path))))

    return read


READERS = {
    'pictures': read_image,
    'OpenMMLab configs': lambda path: LoadImageFromFile().transform(dict(img_path=str(path))),
    'unchanged': lambda path: LoadImageFromFile(color_type='unchanged').transform(dict(img_path=str(path))),
    'by Pillow': lambda path: LoadImageFromFile(imdecode_backend='pillow').transform(dict(img_path=str(path))),
    'own images': lambda path: LoadAnyImage().transform(dict(img_path=str(path))),
    'own images, grey': lambda path: LoadAnyImage(channels=1).transform(dict(img_path=str(path))),
    'own images, 4 channels': lambda path: LoadAnyImage(channels=4).transform(dict(img_path=str(path))),
    'fast crop, simplejpeg': crop(FastRandomResizedCrop, 'auto'),
    'fast crop, OpenCV': crop(FastRandomResizedCrop, 'opencv'),
    'one draw': crop(MAERandomResizedCrop, 'auto'),
    'on the device': crop(CropOnDevice, 'auto'),
    'streamed': lambda path: FastRandomResizedCrop(8).transform(dict(img_bytes=path.read_bytes(), name=path.name)),
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('bomb', BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch, bomb, reader):
    def nothing_is_decoded(*args, **kwargs):
        raise AssertionError('decoded')

    for place in ('cv2.imdecode', 'simplejpeg.decode_jpeg', 'PIL.ImageFile.ImageFile.load', 'mmcv.imfrombytes'):
        if place.split('.')[0] != 'simplejpeg' or pytest.importorskip('simplejpeg'):
            monkeypatch.setattr(place, nothing_is_decoded)
    path = tmp_path / f'x.{bomb}'
    path.write_bytes(BOMBS[bomb])
    with pytest.raises(UnreadableImage, match=f'{SIDE} x {SIDE} pixels.*limit is 268 million.*MIM_MM_MAX_PIXELS=4'):
        READERS[reader](path)


@pytest.mark.parametrize('full', [False, True])
def test_the_survey_names_bombs_and_counts_them_as_unreadable(tmp_path, full):
    for name, data in BOMBS.items():
        (tmp_path / f'{name}.jpg').write_bytes(data)
    (tmp_path / 'good.jpg').write_bytes(saved('JPEG'))
    found = image_survey.survey(find_source(tmp_path), full=full)
    assert [look.name for look in found.readable] == ['good.jpg']
    said = {look.name: 'limit is 268 million' in look.error for look in found.unreadable}
    # Pillow, which reads the headers here, refuses these two for their damage.
    others = [said.pop(f'{name}.jpg') for name in ('damaged', 'cut')]
    assert len(said) == len(BOMBS) - 2 and all(said.values()), (others, found.unreadable)


def test_annotated_images_are_looked_at_with_the_same_limit(tmp_path, monkeypatch):
    path = tmp_path / 'x.png'
    path.write_bytes(png())
    with pytest.raises(UnreadableImage, match='limit'):
        decoded_size(str(path))
    path.write_bytes(png(14_200))  # 201 megapixels, which Pillow by itself refuses
    assert decoded_size(str(path)).width == 14_200


def test_the_limit_is_stated_by_environment_or_config(tmp_path, monkeypatch):
    small = saved('PNG')
    monkeypatch.setenv('MIM_MM_MAX_PIXELS', '255')
    with pytest.raises(UnreadableImage, match='16 x 16'):
        decode(small)
    monkeypatch.setenv('MIM_MM_MAX_PIXELS', '256')
    assert decode(small).shape == (16, 16, 3)
    annotations.check_annotations(Config(dict(max_pixels=100)))
    assert os.environ['MIM_MM_MAX_PIXELS'] == '100', 'where loader workers and stages find it'
    for wrong in ('x', '-5', '0', 'nan'):
        monkeypatch.setenv('MIM_MM_MAX_PIXELS', wrong)
        with pytest.raises(DataError, match=f"MIM_MM_MAX_PIXELS='{wrong}' must be"):
            decode(small)
    for wrong in (0, -1, 'many', True, float('nan'), float('inf')):
        with pytest.raises(guard.ConfigError, match='max_pixels=.* must be a number'):
            annotations.check_annotations(Config(dict(max_pixels=wrong)))
    guard.check_config(Config(dict(max_pixels=5)))


def test_200_megapixels_pass_and_many_channels_count_for_more(monkeypatch):
    image_header.check_size(jpeg(14_142))
    image_header.check_pixels(16_384, 16_384, 4)
    with pytest.raises(UnreadableImage, match='16384 x 16384 pixels x 8 channels'):
        image_header.check_pixels(16_384, 16_384, 8)


def test_an_array_that_is_not_there_takes_no_memory():
    data = io.BytesIO()
    np.save(data, np.zeros((2, 2, 3), np.float64))
    shape = data.getvalue().replace(b'(2, 2, 3)', b'(9999,)*9'[:9]).replace(b'(9999,)*9', b'(8, 9, 3)')
    with pytest.raises(UnreadableImage, match='says it has shape .8, 9, 3. of float64, and ends before'):
        decode(shape, 3, 'x.npy')


def test_postscript_is_not_run(tmp_path):
    path = tmp_path / 'x.jpg'
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n')
    for read in READERS.values():
        with pytest.raises(UnreadableImage, match='PostScript'):
            read(path)
    assert 'PostScript' in image_survey.survey(find_source(tmp_path)).looks[0].error


# ---- what is no regular file


def specials(folder):
    """A pipe, a socket, a device and a folder, called as images; plus a real image, a link to it and one to nothing."""
    os.mkfifo(folder / 'pipe.jpg')
    held = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        held.bind('socket.jpg')
    finally:
        os.chdir(here)
    (folder / 'device.jpg').symlink_to('/dev/zero')
    (folder / 'folder.jpg').mkdir()
    (folder / 'real.jpg').write_bytes(saved('JPEG'))
    (folder / 'link.jpg').symlink_to('real.jpg')
    (folder / 'gone.jpg').symlink_to('nowhere.jpg')
    return held


KINDS = {'pipe.jpg': 'a pipe', 'socket.jpg': 'a socket', 'device.jpg': 'a device', 'folder.jpg': 'a folder'}


def test_listings_have_regular_files_only(tmp_path):
    with specials(tmp_path):
        assert [os.path.basename(p) for p in list_images(tmp_path)] == ['gone.jpg', 'link.jpg', 'real.jpg']
        assert [place.name for place in open_source(str(tmp_path)).places] == ['gone.jpg', 'link.jpg', 'real.jpg']
        with pytest.raises(SourceError, match='no tar'):
            os.mkfifo(tmp_path / 'x.tar')
            open_source(str(tmp_path), shards='*.tar')


@pytest.mark.parametrize('name', KINDS)
def test_a_pipe_device_or_socket_is_refused_at_once(tmp_path, name):
    with specials(tmp_path):
        path = tmp_path / name
        with pytest.raises(files.NoRegularFile, match=f'is {KINDS[name]}.*no regular file'):
            files.read_regular(path)
        for reader, read in READERS.items():
            if reader != 'streamed':
                with pytest.raises((files.NoRegularFile, UnreadableImage), match='no regular file'):
                    read(path)
        assert LoadImageFromFile(ignore_empty=True).transform(dict(img_path=str(path))) is None
        (tmp_path / 'list.txt').write_text(f'{name}\nreal.jpg\n')
        looks = image_survey.survey(find_source(tmp_path / 'list.txt')).looks
        assert 'no regular file' in looks[0].error and not looks[1].error
        with pytest.raises(files.NoRegularFile):
            decoded_size(str(path))


def test_what_a_tar_says_stays_in_the_tar(tmp_path, monkeypatch):
    """Members outside of the archive, links and devices: names are names, and nothing but regular members is read."""
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))
    with tarfile.open(tmp_path / 'x.tar', 'w') as tar:
        for name in ('../../out.jpg', '/abs.jpg', 'a;touch x;.jpg', 'real.jpg'):
            entry = tarfile.TarInfo(name)
            entry.size = len(saved('JPEG'))
            tar.addfile(entry, io.BytesIO(saved('JPEG')))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo(f'{kind.decode()}.jpg')
            entry.type, entry.linkname = kind, '/etc/passwd'
            tar.addfile(entry)
    found = image_survey.survey(find_source(tmp_path / 'x.tar'))
    assert [look.name for look in found.looks if look.error] == []
    assert [p.name.split(':', 1)[1] for p in found.places] == [
        '../../out.jpg',
        '/abs.jpg',
        'a;touch x;.jpg',
        'real.jpg',
    ]
    assert {p.path for p in found.places} == {str(tmp_path / 'x.tar')}
    assert not (tmp_path.parent.parent / 'out.jpg').exists()
