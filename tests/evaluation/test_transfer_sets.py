"""tools/transfer_sets.py: several sets of class folders, both metrics by hand, broken sets named before any runs."""

import json

import numpy as np
import pytest
import torch
from knn_data import CONFIG, colour_images
from PIL import Image
from processes import in_process
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from mim_mm.evaluation.frozen import knn, lowshot, transfer_sets
from mim_mm.evaluation.frozen.features import Features
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.evaluation.frozen.transfer_sets import accuracies, convention, open_sets
from mim_mm.folders import DataError

PREPROCESS = Preprocess(resize=36, crop=32)


def test_both_metrics_by_hand():
    """Class 0: 3 of 4; class 2: 0 of 1; class 3: 1 of 1; none of class 1. Over images 4/6, over classes 1.75/3."""
    labels, guess = np.array([0, 0, 0, 0, 2, 3]), np.array([0, 0, 0, 1, -1, 3])
    assert accuracies(guess, labels) == pytest.approx(dict(top1=400 / 6, per_class=175 / 3))
    rng = np.random.default_rng(0)
    labels, guess = rng.integers(0, 7, 200), rng.integers(0, 7, 200)
    assert accuracies(torch.tensor(guess), torch.tensor(labels))['per_class'] == pytest.approx(
        100 * balanced_accuracy_score(labels, guess)
    )


def test_conventions_of_known_names():
    assert [convention(n) for n in ('flowers', 'Oxford-IIIT-Pet', 'caltech101', 'fgvc_aircraft')] == ['per_class'] * 4
    assert [convention(n) for n in ('cifar10', 'CIFAR100', 'dtd', 'food101')] == ['top1'] * 4
    assert convention('moths') is None


def uneven(count, seed):
    """Features of three classes, 6 : 3 : 1, that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2]).repeat(count // 10)
    rows = torch.eye(3, 6)[labels] + 0.5 * torch.randn(count, 6, generator=generator)
    other = torch.randn(count, 4, generator=generator)
    return Features(dict(cls=other, mean=rows), labels, [''] * count, ('a', 'b', 'c'), {})


def test_scores_are_those_of_the_other_tools_and_of_scikit_learn():
    train, test = uneven(120, 0), uneven(90, 1)
    found = transfer_sets.score(train, test, 20, 'cpu')
    assert list(found) == ['cls', 'mean', 'cls_mean']
    for pooling in found:
        bank, queries = train.get(pooling), test.get(pooling)
        same = knn.knn_accuracy(bank, train.labels, queries, test.labels, 3, [20])[20]['top1']
        assert found[pooling]['knn']['top1'] == pytest.approx(same)
        fit = lowshot.fit(bank, train.labels)
        unit = [(rows / rows.norm(dim=1, keepdim=True)).double().numpy() for rows in (bank, queries)]
        guess = LogisticRegression(C=fit.C, max_iter=1000).fit(unit[0], train.labels).predict(unit[1])
        logistic = found[pooling]['logistic']
        assert logistic['C'] == fit.C and logistic['chosen_on'] == 23  # a fifth of 72, 36 and 12
        assert logistic['top1'] == pytest.approx(100 * (guess == test.labels.numpy()).mean(), abs=1.2)
        assert logistic['per_class'] == pytest.approx(100 * balanced_accuracy_score(test.labels, guess), abs=4)
    assert found['mean']['knn']['per_class'] < found['mean']['knn']['top1'], 'the rare class is the hard one'


def test_the_mean_takes_the_metric_of_each_set():
    def one(name, top1, per_class):
        row = dict(top1=top1, per_class=per_class)
        linear = dict(row, C=1.0, C_at_edge=False, converged=True)
        return dict(convention=convention(name), results=dict(mean=dict(knn=row, logistic=linear)))

    sets = dict(cifar10=one('cifar10', 50.0, 50.5), pets=one('pets', 70.0, 60.0), moths=one('moths', 30.0, 10.0))
    mean = transfer_sets.mean_over(sets)['mean']['knn']
    assert mean == pytest.approx(dict(top1=50.0, per_class=120.5 / 3, conventional=(50 + 60 + 30) / 3))
    text = transfer_sets.table(dict(k=20, sets=sets, mean=transfer_sets.mean_over(sets)))
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert '50.00*' in rows['cifar10'] and '50.50*' not in rows['cifar10']
    assert '60.00*' in rows['pets'] and '70.00*' not in rows['pets'] and '*' not in rows['moths']
    assert '46.67*' in text


@pytest.fixture
def place(tmp_path):
    colour_images(tmp_path / 'colours')
    colour_images(tmp_path / 'tests')
    (tmp_path / 'tests' / 'val').rename(tmp_path / 'tests' / 'test')
    (tmp_path / 'tiny.py').write_text(CONFIG)
    return tmp_path


def test_parts_and_classes(place):
    (place / 'tests' / 'test' / 'class0').rename(place / 'elsewhere')
    found = open_sets([f'pets={place / "colours"}', f'b={place / "tests"}'], PREPROCESS, k=10)
    assert [(s.name, s.part, len(s.train), len(s.test)) for s in found] == [
        ('pets', 'val', 15, 6),
        ('b', 'test', 15, 4),
    ]
    assert {label for _, label in found[1].test.items} == {1, 2}, 'a class that the test set lacks shifts no label'


def test_every_broken_set_is_named_and_nothing_runs(place):
    both, strange, one = place / 'both', place / 'strange', place / 'one'
    colour_images(both)
    (both / 'test').mkdir()
    colour_images(strange)
    (strange / 'val' / 'class2').rename(strange / 'val' / 'wolf')
    colour_images(one)
    for part in ('train', 'val'):
        for other in ('class1', 'class2'):
            (one / part / other).rename(place / f'{part}{other}')
    sets = [f'good={place / "colours"}', f'both={both}', f'strange={strange}', f'one={one}', f'gone={place / "gone"}']
    with pytest.raises(DataError) as caught:
        open_sets(sets, PREPROCESS, k=3)
    said = str(caught.value)
    assert said.startswith('4 of 5 sets') and 'good:' not in said
    for words in (
        'both: ',
        'has val and test',
        '--part',
        'strange: ',
        'wolf',
        'one: ',
        'images of 1 class',
        'gone: there is',
    ):
        assert words in said
    assert open_sets([f'both={both}'], PREPROCESS, part='val', k=3)[0].part == 'val'
    for wrong in (['x'], ['a=b', 'a=c'], ['=b'], ['a/b=c']):
        with pytest.raises(DataError, match='--sets'):
            open_sets(wrong, PREPROCESS)
    for k in (0, 16):
        with pytest.raises(DataError, match=f'15 images, and k = {k} of'):
            open_sets(sets[:1], PREPROCESS, k=k)


def run(place, *sets):
    words = ['tiny.py', 'random', '--workers', '0', '--device', 'cpu', '--k', '5', '--sets', *sets]
    return in_process('transfer_sets.py', *words, cwd=place)


def test_tool_from_folders_to_a_table(place):
    out = place / 'work_dirs/frozen/tiny/random_0/transfer_sets.json'
    refused = run(place, 'pets=colours', 'b=nowhere')
    assert refused.returncode != 0 and "b: there is no folder 'nowhere'" in refused.stderr and not out.exists()

    image = place / 'tests' / 'test' / 'class1' / 'val1_0.png'
    kept = image.read_bytes()
    image.write_bytes(b'no image')
    broken = run(place, 'pets=colours', 'b=tests')
    assert broken.returncode != 0 and 'error: b: ' in broken.stderr and 'has the sets before' in broken.stderr
    written = json.loads(out.read_text())
    assert list(written['sets']) == ['pets'] and written['missing'] == ['b']

    image.write_bytes(kept)
    done = run(place, 'pets=colours', 'b=tests')
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert list(written['sets']) == ['pets', 'b'] and written['missing'] == [] and written['k'] == 5
    assert written['sets']['pets']['convention'] == 'per_class' and written['sets']['b']['convention'] is None
    assert written['sets']['b']['part'] == 'test' and written['sets']['b']['images'] == dict(train=15, test=6)
    for method in ('knn', 'logistic'):
        assert written['sets']['b']['results']['mean'][method]['top1'] == 100.0
    assert written['features']['pets/train']['reused'] and not written['features']['b/test']['reused']
    assert 'mean, conventional' in done.stdout and '100.00*' in done.stdout
    # The first set is what tools/knn.py finds on the same folder.
    words = ['tiny.py', 'random', '--workers', '0', '--device', 'cpu', '--k', '5', '--data-root', 'colours']
    assert in_process('knn.py', *words, cwd=place).returncode == 0
    alone = json.loads((out.parent / 'knn.json').read_text())
    for pooling, found in alone['accuracy'].items():
        assert written['sets']['pets']['results'][pooling]['knn']['top1'] == pytest.approx(found['5']['top1'])


def test_images_differ_from_noise(place):
    """A set whose labels mean nothing is at chance, so nothing of the test labels leaks."""
    rng = np.random.default_rng(0)
    for part, count in (('train', 20), ('val', 30)):
        for label in range(3):
            folder = place / 'noise' / part / f'class{label}'
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (36, 36, 3), np.uint8)).save(folder / f'{i}.png')
    assert run(place, 'noise=noise').returncode == 0
    found = json.loads((place / 'work_dirs/frozen/tiny/random_0/transfer_sets.json').read_text())['sets']['noise']
    for results in found['results'].values():
        assert results['knn']['top1'] < 60 and results['logistic']['top1'] < 60
