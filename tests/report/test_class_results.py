"""The page by class: its numbers by hand, its pictures, names of any kind, many classes, several seeds."""

import html
import json

import cv2
import numpy as np
import pytest
from chain_factory import write_class_results, write_demo_chain, write_run

from mim_mm.report import figures_classes
from mim_mm.report.class_results import class_aps, confusions
from mim_mm.report.collect import collect
from mim_mm.report.document import Fold, Picture, Table
from mim_mm.report.packed import pack, unpack
from mim_mm.report.page import write_report
from mim_mm.report.tables_classes import class_blocks


@pytest.fixture
def chain(tmp_path):
    write_demo_chain(tmp_path)
    write_class_results(tmp_path, 'finetune_emae', 'coco_emae')
    return tmp_path


def tables(folder, figures='figures'):
    return [block for block in class_blocks(collect(folder), folder / figures) if isinstance(block, Table)]


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def write_confusion(folder, run, counts, classes=None, training=None, top1=None):
    classes = classes or [f'c{i}' for i in range(len(counts))]
    content = dict(schema=1, classes=classes, counts=counts, training_images=training, epoch=1, iter=1)
    (folder / run / 'confusion.json').write_text(json.dumps(content))
    raw = json.loads((folder / run / 'run.json').read_text())
    raw['metrics'] = {'accuracy/top1': 100 * np.trace(counts) / np.sum(counts) if top1 is None else top1}
    (folder / run / 'run.json').write_text(json.dumps(raw))


def test_accuracy_by_class_and_the_majority_by_hand(chain):
    accuracy, pairs, ap = tables(chain)
    assert accuracy.header == ['class', 'training images', 'test images', 'finetune_emae']
    assert texts(accuracy) == [
        ['ant', '50', '100', '94.0'], ['bee', '9', '3', '100.0'], ['cat', '70', '97', '100.0'],
        ['all images', '129', '200', '97.0'], ['mean of the classes', '129', '200', '98.0'],
        ['baseline: always saying cat, the most frequent class of the training images', '129', '200', '48.5'],
    ]  # fmt: skip
    assert accuracy.rows[0][3].note == '94 of 100'
    assert texts(pairs) == [['finetune_emae', 'ant', 'bee', '6', '6.0']]
    assert texts(ap) == [
        ['four', '12', '70.0', '90.0', '72.0', '85.0'], ['nine', '5', '50.0', '50.0', '50.0', '70.0'],
        ['zero', '0', '–', '–', '–', '–'], ['mean of the classes', '17', '60.0', '70.0', '61.0', '77.5'],
    ]  # fmt: skip
    assert ap.header[2:4] == ['coco_emae: box AP', 'coco_emae: box AP50']


def test_the_page_has_pictures_matrix_and_tables(chain):
    blocks = class_blocks(collect(chain), chain / 'figures')
    pictures = [block for block in blocks if isinstance(block, Picture)]
    assert [block.path.name for block in pictures] == ['confusion_finetune_emae.png', 'class_ap.png']
    for block in pictures:
        image = cv2.imread(str(block.path))
        assert image.std() > 5 and min(image.shape[:2]) > 100
    assert '97.0 per cent right. ant taken for bee 6 times' in pictures[0].alt
    assert 'coco_emae: lowest nine 50.0, highest four 70.0' in pictures[1].alt
    matrix = next(block for block in blocks if isinstance(block, Fold)).blocks[0]
    assert texts(matrix) == [['ant', '94', '6', '0'], ['bee', '0', '3', '0'], ['cat', '0', '0', '97']]
    page, markdown = write_report(chain)
    assert 'By class' in page.read_text() and '| ant | 50 |' in markdown.read_text().replace('**', '')


def test_the_picture_is_the_matrix_in_per_cent_of_its_rows(chain, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures_classes, 'save_figure', lambda figure, path: drawn.append(figure.axes[0]) or path)
    write_confusion(chain, 'finetune_emae', [[6, 0, 2], [0, 0, 10], [0, 0, 0]])
    class_blocks(collect(chain), chain / 'f')
    (image,) = drawn[0].images
    assert image.get_array().tolist() == [[75, 0, 25], [0, 0, 100], [None, None, None]] and image.get_clim() == (0, 100)
    assert sorted((*text.get_position(), text.get_text()) for text in drawn[0].texts) == [
        (0, 0, '75'), (2, 0, '25'), (2, 1, '100')
    ]  # fmt: skip
    assert [label.get_text() for label in drawn[0].get_yticklabels()] == ['c0 (8)', 'c1 (10)', 'c2 (0)']
    assert sorted(bar.get_width() for bar in drawn[1].patches) == [50, 70], 'no bar for a class without boxes'


def test_one_run_a_stage_and_runs_of_the_same_images_side_by_side(chain):
    for seed in (0, 1, 2):
        write_confusion(chain, f'linear_emae-s{seed}', [[1 + seed, 0], [0, 1]], training=[3, 1])
    write_confusion(chain, 'linear_scratch-s0', [[0, 1], [1, 0]], training=[3, 1])
    write_confusion(chain, 'finetune_scratch', [[1, 0], [1, 0]], training=[3, 1])
    made, wrong = confusions(collect(chain))
    assert [item.run.name for item in made] == [
        'linear_emae-s0',
        'linear_scratch-s0',
        'finetune_emae',
        'finetune_scratch',
    ]
    assert not wrong
    table = tables(chain)[0]
    assert table.header[3:] == ['linear_emae-s0', 'linear_scratch-s0', 'finetune_scratch'], 'the same test images'
    assert [row[3:] for row in texts(table)[2:]] == [['100.0', '0.0', '50.0']] * 2 + [['50.0'] * 3]


def test_many_classes_are_the_worst_and_the_most_confused_alone(chain):
    counts = np.eye(60, dtype=int) * 10
    for i in range(30):
        counts[i, i], counts[i, (i + 1) % 60] = 10 - i % 9, i % 9
    write_confusion(chain, 'finetune_emae', counts.tolist())
    blocks = class_blocks(collect(chain), chain / 'figures')
    assert [block.path.name for block in blocks if isinstance(block, Picture)] == ['class_ap.png']
    accuracy, pairs, _ = tables(chain)
    assert 'The 20 classes with the lowest accuracy, of 60' in accuracy.caption and len(accuracy.rows) == 22
    assert [row[0] for row in texts(accuracy)[:3]] == ['c8', 'c17', 'c26'] and texts(accuracy)[0][1] == '–'
    assert len(pairs.rows) == 20 and texts(pairs)[0] == ['finetune_emae', 'c8', 'c9', '8', '80.0']


NAMES = ['<script>alert(1)</script>', '$x_{$ \\frac', 'a|b `c` ![z](http://t/z.png)', '\udcff\n ', '魚' * 40]


@pytest.mark.filterwarnings('ignore:Glyph')
def test_class_names_are_names(chain):
    write_confusion(chain, 'finetune_emae', (np.eye(5, dtype=int) + 1).tolist(), NAMES, [1, 2, 3, 4, 5])
    content = json.loads((chain / 'coco_emae' / 'per_class.json').read_text())
    for row, name in zip(content['classes'], NAMES):
        row['name'] = name
    (chain / 'coco_emae' / 'per_class.json').write_text(json.dumps(content))
    page, markdown = (path.read_text() for path in write_report(chain))
    assert page.count('<script') == 1 and html.unescape(page).count('<script>alert(1)</script>') > 2
    assert 'could not be made' not in page and '](http' not in markdown
    assert (chain / 'report' / 'confusion_finetune_emae.png').is_file()


def test_what_is_not_done_or_elsewhere_does_not_count(chain, tmp_path_factory):
    secret = tmp_path_factory.mktemp('elsewhere') / 'confusion.json'
    (chain / 'finetune_emae' / 'confusion.json').rename(secret)
    (chain / 'finetune_emae' / 'confusion.json').symlink_to(secret)
    write_confusion(chain, 'finetune_scratch', [[1, 0], [0, 1]])
    raw = json.loads((chain / 'finetune_scratch' / 'run.json').read_text())
    (chain / 'finetune_scratch' / 'run.json').write_text(json.dumps(dict(raw, status='failed')))
    assert confusions(collect(chain)) == ([], [])
    write_run(chain, 'other', 'coco')
    assert [item.run.name for item in class_aps(collect(chain))[0]] == ['coco_emae']


def test_packed_results_have_it_too(chain, tmp_path):
    packed = pack(chain, tmp_path / 'x.json.xz')
    again = unpack(packed, tmp_path / 'again')
    assert [texts(table) for table in tables(again)] == [texts(table) for table in tables(chain)]
