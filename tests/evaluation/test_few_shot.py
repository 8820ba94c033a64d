"""tools/lowshot.py --shots: nested draws of n images a class, mean and spread over draws, the curve."""

import json
import statistics

import numpy as np
import pytest
import torch
from knn_data import CONFIG, colour_images
from PIL import Image
from processes import in_process

from mim_mm.evaluation.frozen import draws
from mim_mm.evaluation.frozen.lowshot import draw_shots, draw_split
from mim_mm.report.figures_lowshot import draw_lowshot

LABELS = torch.tensor([0] * 12 + [1] * 7 + [2] * 30)
CLASSES = ('ant', 'bee', 'cat')


def test_n_of_each_class_and_smaller_draws_inside_larger_ones():
    last = set()
    for shots in (1, 2, 5, 7):
        split = draw_shots(LABELS, shots, CLASSES)
        assert np.bincount(LABELS[split.indices]).tolist() == [shots] * 3
        assert (np.diff(split.indices) > 0).all() and last < set(split.indices.tolist())
        last = set(split.indices.tolist())
        assert (split.name, split.draw) == (f'{shots}-shot-seed0', dict(shots=shots, seed=0))
    assert 'not a published list' in split.source
    other = draw_shots(LABELS, 5, CLASSES, seed=1).indices
    assert not np.array_equal(other, draw_shots(LABELS, 5, CLASSES).indices)
    assert np.array_equal(other, draw_shots(LABELS, 5, CLASSES, seed=1).indices)
    # The order is that of the draws by fraction: half of each class holds the first of each.
    assert set(draw_shots(LABELS, 3, CLASSES, 4).indices) < set(draw_split(LABELS, 0.5, 4).indices)


def test_a_class_with_fewer_images_is_named():
    with pytest.raises(ValueError, match="class 'bee' has 7 training images, and 8 of each"):
        draw_shots(LABELS, 8, CLASSES)
    with pytest.raises(ValueError, match="class 'dog' has 0"):
        draw_shots(LABELS, 1, (*CLASSES, 'dog'))
    with pytest.raises(ValueError, match='at least 1'):
        draw_shots(LABELS, 0, CLASSES)


def result(name, draw, images, top1):
    return dict(split=name, draw=draw, images=images, classes_seen=5, results=dict(mean=dict(top1=top1, top5=90.0)))


def test_mean_and_spread_by_hand():
    """10, 13 and 19: mean 14, squares of the differences 16 + 1 + 25, over 2: 21, its root 4.583."""
    found = draws.summarise([
        result('10%-seed0', dict(fraction=0.1, seed=0), 60, 50.0),
        *(result(f'1-shot-seed{s}', dict(shots=1, seed=s), 5, v) for s, v in enumerate((10.0, 13.0, 19.0))),
        result('5imgs_a', {}, 25, 30.0),
        result('5imgs_b', {}, 25, 32.0),
    ])  # fmt: skip
    assert [(row['setting'], row['per_class'], len(row['draws'])) for row in found] == [
        ('1 a class', 1.0, 3), ('lists of 25', 5.0, 2), ('10 %', 12.0, 1),
    ]  # fmt: skip
    one = found[0]['results']['mean']
    assert one['top1'] == pytest.approx(14) and one['top1_std'] == pytest.approx(4.5826, abs=1e-4)
    assert one['top5_std'] == 0 and found[2]['results']['mean']['top1_std'] is None
    assert found[1]['draws'] == ['5imgs_a', '5imgs_b']
    text = draws.table(found)
    assert '14.00   4.58' in text and '50.00      -' in text


def test_the_curve_has_the_means_and_the_spread(tmp_path, monkeypatch):
    """What is drawn, asked of matplotlib: places, heights, bars, ticks where labels are."""
    from mim_mm.report import figures_lowshot

    drawn = []
    monkeypatch.setattr(figures_lowshot, 'save_figure', lambda figure, path: drawn.append(figure) or path)
    rows = [result(f'{n}-{s}', dict(shots=n, seed=s), 5 * n, 10.0 * n + s) for n in (1, 2, 5) for s in (0, 1)]
    draw_lowshot(draws.summarise(rows), tmp_path / 'a.png')
    (axis,) = drawn[0].axes
    (container,) = axis.containers
    line, caps, (bars,) = container
    assert line.get_xdata() == pytest.approx([1 / 1.03, 2 / 1.03, 5 / 1.03]) and axis.get_xscale() == 'log'
    assert line.get_ydata() == pytest.approx([10.5, 20.5, 50.5])
    assert [part[1, 1] - part[0, 1] for part in bars.get_segments()] == pytest.approx(
        [2 * statistics.stdev((0, 1))] * 3
    )
    assert axis.get_xticks() == pytest.approx([1, 2, 5]) and 'std of 2 draws' in axis.get_xlabel()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ['mean']
    crowded = [result(f'{f}', dict(fraction=f, seed=0), int(1000 * f), 40.0) for f in (0.1, 0.11, 0.12, 0.5)]
    draw_lowshot(draws.summarise(crowded), tmp_path / 'b.png')
    assert drawn[1].axes[0].get_xticks() == pytest.approx([20, 100]), 'numbers do not touch'


def test_the_function_gives_what_the_tool_writes(tmp_path):
    import mim_mm

    colour_images(tmp_path / 'data')
    (tmp_path / 'tiny.py').write_text(CONFIG)
    found = mim_mm.api.few_shot(mim_mm.api.load_encoder(None, tmp_path / 'tiny.py'), tmp_path / 'data', (2,), (0, 5))
    words = ['tiny.py', 'random', '--data-root', 'data', '--workers', '0', '--device', 'cpu']
    assert in_process('lowshot.py', *words, '--shots', '2', '--draws', '0', '5', cwd=tmp_path).returncode == 0
    written = json.loads((tmp_path / 'work_dirs/frozen/tiny/random_0/lowshot.json').read_text())['summary']
    assert found == written and found[0]['draws'] == ['2-shot-seed0', '2-shot-seed5']


def test_tool_from_images_to_curve(tmp_path):
    colour_images(tmp_path / 'data')
    (tmp_path / 'tiny.py').write_text(CONFIG)
    words = ['tiny.py', 'random', '--data-root', 'data', '--workers', '0', '--device', 'cpu']
    done = in_process('lowshot.py', *words, '--shots', '1', '4', '--draws', '0', '1', '2', '--curve', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    place = tmp_path / 'work_dirs/frozen/tiny/random_0'
    written = json.loads((place / 'lowshot.json').read_text())
    assert [s['split'] for s in written['splits']] == [f'{n}-shot-seed{seed}' for n in (1, 4) for seed in (0, 1, 2)]
    assert [(row['setting'], row['images'], row['per_class']) for row in written['summary']] == [
        ('1 a class', 3, 1.0), ('4 a class', 12, 4.0),
    ]  # fmt: skip
    for row, splits in zip(written['summary'], (written['splits'][:3], written['splits'][3:])):
        for pooling, found in row['results'].items():
            values = [s['results'][pooling]['top1'] for s in splits]
            assert (found['top1'], found['top1_std']) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (
        written['splits'][0]['results']['mean']['chosen_on'] == 0 < written['splits'][3]['results']['mean']['chosen_on']
    )
    assert Image.open(place / 'lowshot.png').size[0] > 400 and '4 a class' in done.stdout
    few = in_process('lowshot.py', *words, '--shots', '6', cwd=tmp_path)
    assert few.returncode != 0 and "error: class 'class0' has 5 training images" in few.stderr
    twice = in_process('lowshot.py', *words, '--shots', '1', '--draws', '0', '0', cwd=tmp_path)
    assert twice.returncode != 0 and 'a seed twice' in twice.stderr
