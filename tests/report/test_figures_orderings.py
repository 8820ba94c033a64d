"""Pictures of a chain's arms: what is drawn is what the runs say."""

import json

import pytest
from chain_factory import write_run
from matplotlib import pyplot as plt

from mim_mm.report import figures_orderings
from mim_mm.report.collect import collect
from mim_mm.report.figures_orderings import ordering_pictures
from mim_mm.report.page import write_report

TOPS = dict(low=(50.0, 54.0), high=(60.0, 60.0), other=(40.0,), random=(30.0, 32.0))
SERIES = dict(title='Ratios', x='mask ratio', lines={'random': {'0.75': 'high', '0.5': 'low'}, 'SBAM': {'0.5': 'gone'}})


@pytest.fixture
def folder(tmp_path):
    listed = []
    for arm, tops in TOPS.items():
        for seed, top in enumerate(tops):
            name = f'linear_{arm}-s{seed}'
            listed.append(dict(name=name, base=f'linear_{arm}', kind='linear', arm=arm, seed=seed))
            write_run(tmp_path, name, 'linear', arm=arm, seed=seed, metrics={'accuracy/top1': top})
    chain = dict(name='study', stages=listed, arms=[*TOPS, 'gone'], controls=['random'], series=[SERIES, {'title': 3}])
    (tmp_path / 'chain.json').write_text(json.dumps(chain))
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are when they are saved, before they are closed."""
    kept = []

    def keep(figure, path):
        kept.append([dict(lines=_lines(axis), ticks=_ticks(axis)) for axis in figure.axes])
        plt.close(figure)
        return path

    monkeypatch.setattr(figures_orderings, 'save_figure', keep)
    return kept


def _lines(axis):
    return [[list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))] for line in axis.get_lines()]


def _ticks(axis):
    return [t.get_text() for t in (*axis.get_xticklabels(), *axis.get_yticklabels())]


def test_means_and_control_lines(folder, drawn):
    ordering_pictures(collect(folder), folder)
    arms, series = drawn
    (axis,) = arms
    assert [[31.0, 31.0], [0.0, 1.0]] in axis['lines']  # the control as an upright line
    for place, value in enumerate((52.0, 60.0, 40.0)):  # the mean of each arm, in the order of the chain
        assert [[value], [place]] in axis['lines']
    assert [t for t in axis['ticks'] if t in TOPS] == ['low', 'high', 'other']  # a control is no row
    (axis,) = series
    assert [[0.0, 1.0], [31.0, 31.0]] in axis['lines']
    assert [[0.0, 1.0], [52.0, 60.0]] in axis['lines']  # by rising ratio, whatever the order in the config
    assert axis['ticks'][:2] == ['0.5', '0.75']


def test_page_holds_them_and_passes_over_a_damaged_series(folder):
    page, markdown = write_report(folder)
    assert (folder / 'report' / 'series_0.png').stat().st_size > 5000
    assert not (folder / 'report' / 'series_1.png').exists()
    text = markdown.read_text()
    assert [text.count(f'report/{name}.png') for name in ('arms', 'series_0', 'series_1')] == [1, 1, 0]


def test_nothing_asked_nothing_drawn(folder):
    chain = collect(folder)
    chain.controls, chain.series = [], []
    assert ordering_pictures(chain, folder) == []
