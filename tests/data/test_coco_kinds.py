# ruff: noqa: E501  (tables of one case a line)
"""COCO files as people have them: mended where there is one meaning, else refused with the id, and what is mended is
read alike by pycocotools, by mmdet's data set and by both evaluators."""

import copy
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from mim_mm.data import coco_file, coco_images, coco_masks
from mim_mm.data.image_sources import SourceError

SQUARE = [4, 4, 24, 4, 24, 24, 4, 24]  # of the box [4, 4, 20, 20]
BITMAP = np.zeros((40, 48), np.uint8, 'F')
BITMAP[4:24, 4:24] = 1
CODE = mask_utils.encode(BITMAP)['counts'].decode()
RUNS = [4 * 40 + 4, *[20, 20] * 19, 20, 24 * 40 - 24 + 0 * 4]
RUNS[-1] = 40 * 48 - sum(RUNS[:-1])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """0.png to 5.png of 48 x 40; turned.jpg stored 48 x 40 and turned by its EXIF; unicode and broken names."""
    folder = tmp_path_factory.mktemp('images')
    for name in ('0.png', '1.png', '2.png', '3.png', '4.png', '5.png', 'u\u0308ber.png', 'turned.jpg', 'mirrored.jpg'):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = dict(turned=6, mirrored=2).get(name[:-4], 1)
        image.save(folder / name, **({'exif': exif} if name.endswith('jpg') else {}))
    (folder / 'broken.png').write_bytes((folder / '0.png').read_bytes()[:20])
    return folder


def base():
    images = [dict(id=i + 1, file_name=f'{i}.png', width=48, height=40) for i in range(6)]
    annotations = [
        dict(id=i + 1, image_id=i + 1, category_id=1 + i % 2, bbox=[4, 4, 20, 20], area=400, iscrowd=0,
             segmentation=[list(SQUARE)])
        for i in range(6)
    ]  # fmt: skip
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name='a'), dict(id=2, name='b')])


def read(folder, tmp_path, change, **options):
    content = base()
    data = change(content)
    path = tmp_path / 'boxes.json'
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(content).encode())
    return coco_file.read_coco(str(path), str(folder), **options)


def ann(place=0, **values):
    """A change of one annotation; ``...`` takes the key out."""

    def change(content):
        row = content['annotations'][place]
        row.update(values)
        for key in [k for k, v in row.items() if v is ...]:
            del row[key]

    return change


def img(place=0, **values):
    return lambda content: content['images'][place].update(values)


def both(*changes):
    return lambda content: [change(content) for change in changes] and None


def append(key, **values):
    return lambda content: content[key].append({**copy.deepcopy(content[key][0]), **values})


def seg(value):
    return ann(segmentation=value)


def rle(counts=CODE, size=(40, 48), **more):
    return seg(dict(size=list(size), counts=counts, **more) if size else dict(counts=counts))


def all_text(content):
    for key in ('images', 'annotations', 'categories'):
        for row in content[key]:
            for name in set(row) & {'id', 'image_id', 'category_id', 'width', 'height', 'area', 'iscrowd'}:
                row[name] = str(row[name])


SAME = base()['annotations'][0]
CENTRE = [[4, 4, 24, 4, 24, 24, 4, 24]]
# change, what is said, what annotation 1 is afterwards (of base()'s where not given)
MENDED = {
    'box as text': (ann(bbox=['4', '4', '20', '20.0']), 'boxes with numbers written as text', {}),
    'area as text': (ann(area='400'), 'areas written as text', {}),
    'no area': (ann(area=...), 'filled in: area 1', {}),
    'area nan': (ann(area=float('nan')), 'filled in: area 1', {}),
    'area 0': (ann(area=0), 'filled in: area 1', {}),
    'no iscrowd': (ann(iscrowd=...), 'filled in: iscrowd 1', {}),
    'iscrowd null': (ann(iscrowd=None), 'filled in: iscrowd 1', {}),
    'iscrowd text': (ann(iscrowd='0'), 'iscrowd made 0 or 1', {}),
    'ignore text': (ann(ignore='0'), 'ignore made 0 or 1', dict(SAME, ignore=0)),
    'no id': (ann(id=...), 'filled in: id 6', {}),
    'id 0': (ann(id=0), 'filled in: id 6', {}),
    'id as text': (ann(id='1'), 'filled in: id 1', {}),
    'doubled id': (ann(1, id=1), 'filled in: id 6', {}),
    'everything as text': (all_text, 'ids of images made whole numbers', {}),
    'ids that are names': (both(img(id='x1'), ann(image_id='x1')), 'ids of images made whole numbers', dict(SAME, image_id=7)),
    'flat polygon': (seg(list(SQUARE)), 'polygons written as one flat list', {}),
    'points': (seg([[4, 4], [24, 4], [24, 24], [4, 24]]), 'written as points', {}),
    'parts of points': (seg([[[4, 4], [24, 4], [24, 24], [4, 24]]]), 'written as points', {}),
    'polygon as text': (seg([[str(v) for v in SQUARE]]), 'numbers written as text', {}),
    'four numbers': (seg([SQUARE, [1, 2, 3, 4]]), 'fewer than three corners', {}),
    'odd polygon': (seg([SQUARE, [1, 2, 3, 4, 5, 6, 7]]), 'half a corner', {}),
    'no numbers': (seg([SQUARE, []]), 'fewer than three corners', {}),
    'null part': (seg([SQUARE, None]), 'no finite number', {}),
    'nan part': (seg([SQUARE, [1, 2, 3, 4, float('nan'), 6]]), 'no finite number', {}),
    'infinite part': (seg([SQUARE, [1, 2, 3, 4, float('inf'), 6]]), 'no finite number', {}),
    'huge part': (seg([SQUARE, [1, 2, 3, 4, 1e15, 6]]), 'outside of their image', {}),
    'huge whole number': (seg([SQUARE, [1, 2, 3, 4, 10**400, 6]]), 'no finite number', {}),
    'part elsewhere': (seg([SQUARE, [100, 100, 110, 100, 110, 110]]), 'outside of their image', {}),
    'runs without size': (rle(RUNS, None), 'run lengths without a size', dict(SAME, segmentation=dict(size=[40, 48], counts=RUNS))),
    'runs as text': (rle([str(v) for v in RUNS]), 'numbers as text', dict(SAME, segmentation=dict(size=[40, 48], counts=RUNS))),
    'code as bytes in text': (rle(repr(CODE.encode())), 'as bytes', dict(SAME, segmentation=dict(size=[40, 48], counts=CODE))),
    'box from mask': (ann(bbox=None), 'taken from the mask', {}),
    'box nan': (ann(bbox=[4, 4, float('nan'), 20]), 'taken from the mask', {}),
    'box of three': (ann(bbox=[4, 4, 20]), 'taken from the mask', {}),
    'no box': (ann(bbox=...), 'taken from the mask', {}),
    'negative box': (ann(bbox=[24, 24, -20, -20]), 'taken from the mask', {}),
    'box from code': (both(rle(), ann(bbox=None)), 'taken from the mask', dict(SAME, segmentation=dict(size=[40, 48], counts=CODE))),
    'box over the edge': (ann(bbox=[30, 4, 30, 20]), 'boxes cut at the edge', dict(SAME, bbox=[30, 4, 18, 20])),
    'box over the top': (ann(bbox=[-6, -6, 30, 30]), 'boxes cut at the edge', dict(SAME, bbox=[0, 0, 24, 24])),
    'huge box': (ann(bbox=[4, 4, 1e12, 20]), 'boxes cut at the edge', dict(SAME, bbox=[4, 4, 44, 20])),
    'sizes as text': (img(width='48', height=40.0), 'image sizes written as text', {}),
    'no size': (img(width=None, height=0), 'filled in: image size 1', {}),
    'size too small': (img(width=20, height=20), "image sizes set to the decoder's", {}),
    'image twice': (append('images'), 'images listed twice', {}),
    'image under two ids': (both(append('images', id=9), append('annotations', image_id=9, id=7)), 'joined under', {}),
    'category twice': (append('categories'), 'categories listed twice', {}),
    'category without a name in text': (lambda c: c['categories'][0].update(name=3), 'category names made text', {}),
    'annotation twice': (append('annotations'), 'annotations that are there twice', {}),
    'other Unicode form': (img(file_name='\u00fcber.png'), 'file names written in another way', {}),
    'backslash': (lambda c: [r.update(file_name='.\\' + r['file_name']) for r in c['images']] and None, 'another way', {}),
    'turned, labels of the turned picture': (
        both(img(file_name='turned.jpg', width=48, height=40), ann(bbox=[4, 20, 20, 26], segmentation=[[4, 20, 24, 20, 24, 46]])),
        "image sizes set to the decoder's", dict(SAME, bbox=[4, 20, 20, 26], segmentation=[[4, 20, 24, 20, 24, 46]]),
    ),
}  # fmt: skip


def same(found, wanted):
    """Equal values, also for 20 and 20.0."""
    return json.loads(json.dumps(found)) == json.loads(json.dumps(wanted))


# The rest is read by pycocotools and the data set only: an evaluation takes a second.
EVALUATED = (
    'everything as text',
    'id 0',
    'four numbers',
    'code as bytes in text',
    'box over the edge',
    'image under two ids',
)


def reads_everywhere(found, folder, tmp_path, evaluate=True):
    """pycocotools finds each mask, mmdet's data set gives as many instances as are not crowds, both metrics are 1."""
    path = tmp_path / 'mended.json'
    path.write_text(json.dumps(found.content))
    api = COCO(str(path))
    for row in api.dataset['annotations']:
        size = api.imgs[row['image_id']]
        assert not found.masks or api.annToMask(row).shape == (size['height'], size['width'])
        assert np.isfinite(row['bbox']).all() and row['area'] > 0 and row['iscrowd'] in (0, 1)
    if evaluate:
        evaluate_truth(str(path), found, api)
    check_dataset(str(path), folder, found)


def check_dataset(path, folder, found):
    from mmdet.datasets import CocoDataset
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=found.masks)]
    data = CocoDataset(
        ann_file=path,
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=found.classes),
        pipeline=steps,
        serialize_data=False,
    )
    shown = sum(int((~data[i]['gt_ignore_flags']).sum()) for i in range(len(data)))
    assert shown == sum(not row['iscrowd'] for row in found.content['annotations'])
    for i in range(len(data)):
        assert data[i]['ori_shape'] == (data[i]['height'], data[i]['width']), 'the file says what the decoder delivers'


def evaluate_truth(path, found, api):
    """The truth as its own prediction has AP 1 with either evaluator."""
    from mim_mm.detection.metric import InMemoryCocoMetric

    kinds = ['bbox', 'segm'] if found.masks else ['bbox']
    for evaluator in ('pycocotools', 'arrays'):
        metric = InMemoryCocoMetric(ann_file=path, metric=kinds, evaluator=evaluator)
        metric.dataset_meta = dict(classes=found.classes)
        results = []
        for image in api.dataset['images']:
            rows = [a for a in api.loadAnns(api.getAnnIds(image['id'])) if not a['iscrowd']]
            boxes = np.array([a['bbox'] for a in rows], float).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = np.array(
                [[c['id'] for c in found.content['categories']].index(a['category_id']) for a in rows], int
            )
            one = dict(img_id=image['id'], bboxes=boxes, scores=np.ones(len(rows)), labels=labels)
            if found.masks:
                one['masks'] = [api.annToRLE(a) for a in rows]
            results.append((dict(), one))
        figures = metric.compute_metrics(results)
        assert all(figures[f'{kind}_mAP'] == 1 for kind in kinds), (evaluator, figures)


@pytest.mark.parametrize('name', MENDED)
def test_one_meaning_is_mended_and_counted(folder, tmp_path, name):
    change, said, row = MENDED[name]
    found = read(folder, tmp_path, change)
    assert found.changed and found.masks and any(said in note for note in found.notes), found.notes
    assert same(found.content['annotations'][0], row or SAME)
    assert len(found.content['annotations']) == 6 and len(found.content['images']) == 6
    reads_everywhere(found, folder, tmp_path, name in EVALUATED)
    again = tmp_path / 'again.json'
    again.write_text(json.dumps(found.content))
    assert not coco_file.read_coco(str(again), str(folder)).changed, 'what is mended is sound'


def test_a_sound_file_is_left_alone(folder, tmp_path):
    found = read(folder, tmp_path, lambda content: None)
    assert not found.changed and not found.notes and found.masks and same(found.content, base())
    assert found.checked == 'sizes compared with the headers of all 6 images'
    slack = read(folder, tmp_path, ann(bbox=[28.4, 4, 20, 20]))  # 0.4 px over the edge, as labelling tools round
    assert not slack.changed
    for code in (CODE, RUNS):
        assert not read(folder, tmp_path, rle(code)).changed


@pytest.mark.parametrize('mark', ['utf-8-sig', 'utf-16', 'utf-16-le'])
def test_other_encodings(folder, tmp_path, mark):
    def encoded(content):
        content['categories'][0]['name'] = 'Ärger'
        return json.dumps(content, ensure_ascii=False).encode(mark)

    found = read(folder, tmp_path, encoded)
    assert found.changed and found.classes == ('Ärger', 'b')
    reads_everywhere(found, folder, tmp_path)


MARKS_NOTHING = {
    'null': None, 'empty': [], 'empty part': [[]], 'text': 'abc', 'a number': 3, 'missing': ..., 'all parts bad': [[1, 2, 3, 4]],
    'codes in a list': [dict(size=[40, 48], counts=CODE)], 'no counts': dict(size=[40, 48]),
    'runs of another sum': dict(size=[40, 48], counts=[10, 20, 30]), 'negative runs': dict(size=[40, 48], counts=[2000, -90, 10]),
    'a broken code': dict(size=[40, 48], counts=CODE[:-2]), 'no code': dict(size=[40, 48], counts='\u00e4\u00f6'),
    'an empty mask': dict(size=[40, 48], counts=[1920]), 'nan runs': dict(size=[40, 48], counts=[float('nan'), 3]),
}  # fmt: skip


@pytest.mark.parametrize('name', MARKS_NOTHING)
def test_an_unusable_mask_does_not_take_the_others_mask_head(folder, tmp_path, name):
    """Its box is a region that is neither learnt nor counted; two thirds of the boxes without a mask: a box detector."""
    few = read(folder, tmp_path, both(seg(MARKS_NOTHING[name]), ann()))
    assert few.masks and '1 of 6 boxes have no usable mask (annotation 1), kept as regions' in few.notes[-1]
    assert [row['iscrowd'] for row in few.content['annotations']] == [1, 0, 0, 0, 0, 0]
    assert few.content['annotations'][0]['bbox'] == [4, 4, 20, 20]
    reads_everywhere(few, folder, tmp_path, name == 'null')
    many = both(*(ann(i, segmentation=MARKS_NOTHING[name]) for i in range(4)))
    boxes = read(folder, tmp_path, many)
    assert (
        not boxes.masks
        and 'a box detector' in boxes.notes[-1]
        and not any(a['iscrowd'] for a in boxes.content['annotations'])
    )
    reads_everywhere(boxes, folder, tmp_path, name == 'null')
    with pytest.raises(SourceError, match=r'4 of 6 boxes have no usable mask \(annotation 1, 2, 3, ...\)'):
        read(folder, tmp_path, many, masks=True)
    assert not read(folder, tmp_path, seg(MARKS_NOTHING[name]), masks=False).masks


STOPS = {
    'one image id of two files': (img(1, id=1), "image id 1 is that of '0.png' and of '1.png'"),
    'one category id of two names': (append('categories', name='c'), 'category id 1 is there twice'),
    'one category name of two ids': (append('categories', id=5), "category name 'a' is there twice"),
    'unknown category': (ann(2, category_id=9), r'category \[9\].*annotation 3'),
    'null category': (ann(2, category_id=None), r'category \[None\].*annotation 3'),
    'list for an id': (img(id=[1]), r'entry 1 of images has the id \[1\]'),
    'no file name': (img(file_name=None), 'image 1 has the file_name None'),
    'runs of another size': (rle(size=(48, 40)), r'mask of annotation 1 .*size \[48, 40\].*\[40, 48\]'),
    'no box and no mask': (ann(3, bbox=None, segmentation=None), 'bbox of annotation 4 is missing'),
    'negative box, no mask': (ann(3, bbox=[24, 24, -20, 20], segmentation=[]), r'annotation 4 is \[24, 24, -20, 20\]'),
    'a box of nan, no mask': (ann(3, bbox=[float('nan')] * 4, segmentation=[]), 'bbox of annotation 4'),
    'iscrowd 2': (ann(4, iscrowd=2), 'iscrowd of annotation 5 is 2'),
    'labels of a larger picture': (
        both(img(width=96, height=80), ann(bbox=[60, 4, 20, 20])), "image 1, '0.png'.*said to be 96 x 80.*do not fit"),
    'labels of either': (img(width=96, height=80), "image 1, '0.png'.*fit into both"),
    'labels of the picture before it is turned': (
        both(img(file_name='turned.jpg'), ann(bbox=[30, 4, 16, 20])), "image 1, 'turned.jpg'.*EXIF.*40 x 48.*do not fit"),
    'labels of either side': (img(file_name='turned.jpg'), 'image 1.*EXIF.*fit into both'),
    'all boxes corners': (lambda c: [a.update(bbox=[20, 20, 44, 36]) for a in c['annotations']] and None, 'not .x1, y1, x2, y2.'),
    'all boxes fractions': (lambda c: [a.update(bbox=[.1, .1, .4, .5]) for a in c['annotations']] and None, 'fractions'),
}  # fmt: skip


@pytest.mark.parametrize('name', STOPS)
def test_no_single_meaning_stops_with_the_id(folder, tmp_path, name):
    change, message = STOPS[name]
    with pytest.raises(SourceError, match=message):
        read(folder, tmp_path, change)


@pytest.mark.parametrize('box', [[4, 4, 0, 20], [100, 100, 5, 5], [-30, 4, 20, 20], [4, 40, 20, 20]])
def test_a_box_that_shows_nothing_is_left_out(folder, tmp_path, box):
    found = read(folder, tmp_path, ann(1, bbox=box))
    assert [a['id'] for a in found.content['annotations']] == [1, 3, 4, 5, 6] and found.changed and found.trains_alike
    assert '1 boxes without area, outside of their image' in found.notes[0] and '(annotation 2)' in found.notes[0]
    assert not read(folder, tmp_path, both(ann(1, bbox=box), ann(area='400'))).trains_alike


def test_turned_pictures_are_said(folder, tmp_path):
    found = read(
        folder, tmp_path, both(img(file_name='turned.jpg', width=40, height=48), img(1, file_name='mirrored.jpg'))
    )
    assert not found.changed and '2 are turned by their EXIF' in found.checked
    import mmcv

    for name in ('turned.jpg', 'mirrored.jpg', '0.png'):
        size = coco_images.decoded_size(str(folder / name))
        assert mmcv.imread(str(folder / name)).shape[:2] == (size.height, size.width)
    assert coco_images.decoded_size(str(folder / 'turned.jpg'), turn=False) == coco_images.Size(48, 40)
    assert not read(folder, tmp_path, img(file_name='turned.jpg'), turn=False).changed


@pytest.mark.parametrize('name', ['none.png', 'broken.png'])
def test_images_that_are_absent_or_broken(folder, tmp_path, name):
    found = read(folder, tmp_path, img(file_name=name))
    assert (
        [row['id'] for row in found.content['images']]
        == [2, 3, 4, 5, 6]
        == [a['id'] for a in found.content['annotations']]
    )
    assert any(name in note for note in found.notes)
    with pytest.raises(SourceError, match=rf'image 1.*{name}'):
        read(folder, tmp_path, img(file_name=name), complete=True)


def test_a_sample_of_a_large_set_and_all_once_one_is_wrong(folder, tmp_path, monkeypatch):
    looked = []
    real = coco_images.decoded_size
    monkeypatch.setattr(coco_images, 'decoded_size', lambda path, turn=True: looked.append(path) or real(path, turn))
    monkeypatch.setattr(coco_images, 'ALL_HEADERS', 5)
    monkeypatch.setattr(coco_images, 'SAMPLE', 2)
    found = read(folder, tmp_path, lambda content: None)
    assert len(looked) == 2 and '2 of 6 images, drawn by seed 0' in found.checked
    looked.clear()
    found = read(folder, tmp_path, lambda c: [i.update(width=20, height=20) for i in c['images']] and None)
    assert len(looked) == 6 and 'all 6 images' in found.checked
    assert {(i['width'], i['height']) for i in found.content['images']} == {(48, 40)}


def test_classes_in_the_order_of_the_config(folder, tmp_path):
    """mmdet numbers labels in the order of the file, whatever the config says: a file that lacks 'a' would shift 'b'."""

    def without_a(content):
        content['categories'] = [dict(id=2, name='b')]
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] == 2]

    found = read(folder, tmp_path, without_a, classes=('a', 'b', 'c'))
    path = tmp_path / 'mended.json'
    path.write_text(json.dumps(found.content))
    api = COCO(str(path))
    assert [api.cats[i]['name'] for i in api.getCatIds(catNms=['a', 'b', 'c'])] == ['a', 'b', 'c']
    assert api.cats[2]['name'] == 'b' and found.changed
    turned = read(folder, tmp_path, lambda content: None, classes=('b', 'a'))
    assert turned.classes == ('b', 'a') and turned.changed
    assert not read(folder, tmp_path, lambda content: None, classes=('b',)).changed
    assert not read(folder, tmp_path, lambda content: content['categories'].reverse(), classes=()).changed


def test_run_lengths_are_read_as_pycocotools_writes_them():
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 5), (40, 48), (300, 200)):
        for part in (0.02, 0.5, 0.98):
            mask = np.asfortranarray(rng.random((height, width)) < part, np.uint8)
            flat = np.concatenate([[0], mask.ravel('F'), [2]])
            ends = np.flatnonzero(np.diff(flat))
            runs = np.diff(np.concatenate([[0], ends])).tolist()
            assert coco_masks.run_lengths(mask_utils.encode(mask)['counts'].decode()) == runs


def test_run_lengths_of_garbage():
    for text in ('', 'zzzz', 'o' * 30, '\x00', 'PPPPPPPPPPPP'):
        assert isinstance(coco_masks.run_lengths(text), list | None)  # and no exception


def test_pictures_of_a_phone_in_png_are_read_as_they_are_decoded(tmp_path):
    """Whether OpenCV turns a PNG by its eXIf chunk depends on its version, so such a file is decoded to know."""
    import mmcv

    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new('RGB', (48, 40)).save(stream, 'PNG', exif=exif)
    (tmp_path / 'p.png').write_bytes(stream.getvalue())
    size = coco_images.decoded_size(str(tmp_path / 'p.png'))
    assert (size.height, size.width) == mmcv.imread(str(tmp_path / 'p.png')).shape[:2]
