"""Pairs of images and masks below a folder, and what their numbers mean."""

import numpy as np
import pytest
from PIL import Image

from mim_mm.data.mask_files import read_mask, read_masks
from mim_mm.folders import DataError


def write(root, name, numbers, image=None):
    for top, pixels in (('images', image if image is not None else np.zeros((*numbers.shape, 3), np.uint8)),
                        ('masks', numbers)):  # fmt: skip
        path = root / top / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    for i in range(10):
        write(tmp_path, f'p{i}', np.array([[0, 3], [9 if i == 5 else 0, 255]], np.uint8))
    return tmp_path


def test_numbers_become_classes_and_the_set_is_divided(root):
    found = read_masks(str(root), 0.3)
    assert (found.classes, found.values, found.ignored) == (('0', '3', '9'), (0, 3, 9), (255,))
    assert len(found.train) == 7 and len(found.val) == 3 and not set(found.train) & set(found.val)
    assert found == read_masks(str(root), 0.3), 'a seed decides'
    assert found.text('val').splitlines()[0] == '\t'.join(found.val[0]) and found.val[0][0].startswith('images/p')
    assert any('number 255 are not learnt' in note for note in found.notes)


def test_names_of_classes(root):
    (root / 'classes.txt').write_text('9 boat\n0 -\n3 deep water\n4 pier\n')
    found = read_masks(str(root))
    assert (found.classes, found.values, found.ignored) == (('boat', 'deep water', 'pier'), (9, 3, 4), (0, 255))
    assert any('no mask has 1 of the classes, e.g. pier' in note for note in found.notes)
    (root / 'classes.txt').write_text('0 ground\n3 water\n')
    with pytest.raises(DataError, match=r"p5.png' has the number 9, which .* does not list: add '9 NAME'"):
        read_masks(str(root))
    for text, said in (('zero ground\n', 'line 1'), ('0 a\n0 b\n', 'line 2'), ('0 a\n1 a\n', 'second time')):
        (root / 'classes.txt').write_text(text)
        with pytest.raises(DataError, match=said):
            read_masks(str(root))


def test_parts_of_their_own_and_binary_masks(tmp_path):
    for part, count in (('train', 3), ('val', 2)):
        for i in range(count):
            write(tmp_path, f'{part}/{part}{i}', np.array([[0, 255]], np.uint8))
    found = read_masks(str(tmp_path))
    assert found.values == (0, 255) and found.ignored == () and [len(found.train), len(found.val)] == [3, 2]
    assert found.val[0] == ('images/val/val0.png', 'masks/val/val0.png')
    assert 'two classes' in ' '.join(found.notes)


def test_palette_and_bilevel_masks_are_read_as_indices(tmp_path):
    image = Image.fromarray(np.array([[1, 2], [0, 2]], np.uint8), 'P')
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.save(tmp_path / 'p.png')
    assert read_mask(str(tmp_path / 'p.png')).tolist() == [[1, 2], [0, 2]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / 'b.png')
    assert read_mask(str(tmp_path / 'b.png')).astype(int).tolist() == [[1, 0]]


def test_what_cannot_be_meant_is_refused(root):
    write(root, 'p3', np.zeros((2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r'p3.png. is 3 x 2 px, its image .* 2 x 2'):
        read_masks(str(root))
    write(root, 'p3', np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r'p3.png. has 3 channels \(R, G, B'):
        read_masks(str(root))
    (root / 'masks' / 'p3.png').write_bytes(b'')
    with pytest.raises(DataError, match=r'p3.png. cannot be read'):
        read_masks(str(root))
    (root / 'masks' / 'p3.png').unlink()
    assert any('1 images without a mask left out, e.g. images/p3.png' in note for note in read_masks(str(root)).notes)
    Image.new('RGB', (2, 2)).save(root / 'images' / 'p4.jpg')
    with pytest.raises(DataError, match='have one name'):
        read_masks(str(root))


def test_a_turned_image_needs_a_turned_mask(root):
    image = Image.new('RGB', (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    (root / 'images' / 'p0.png').unlink()
    image.save(root / 'images' / 'p0.jpg', exif=exif)
    Image.fromarray(np.zeros((2, 4), np.uint8)).save(root / 'masks' / 'p0.png')
    with pytest.raises(DataError, match='2 x 4 once it is turned as its camera noted'):
        read_masks(str(root))
    Image.fromarray(np.zeros((4, 2), np.uint8)).save(root / 'masks' / 'p0.png')
    assert any('1 images are turned' in note for note in read_masks(str(root)).notes)


def test_no_pairs(tmp_path):
    with pytest.raises(DataError, match='must hold images/ and masks/'):
        read_masks(str(tmp_path))
    write(tmp_path, 'a', np.zeros((2, 2), np.uint8))
    (tmp_path / 'masks' / 'a.png').rename(tmp_path / 'masks' / 'a_mask.png')
    with pytest.raises(DataError, match=r"no image in .* 'images/a.png' and 'masks/a_mask.png'"):
        read_masks(str(tmp_path))
