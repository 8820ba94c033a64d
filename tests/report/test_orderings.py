"""Claims of a chain, the packed results, and documents whose tables come from them."""

import json
import lzma
import math

import pytest
from chain_factory import write_run

from mim_mm.report.__main__ import main
from mim_mm.report.collect import collect
from mim_mm.report.filled import fill
from mim_mm.report.orderings import figures_of, orderings_table
from mim_mm.report.packed import pack, unpack
from mim_mm.report.page import write_report

A, B, C = (60.0, 62.0, 64.0), (57.0, 60.0, 60.0), (61.0, 61.0, 65.0)
CLAIMS = [
    dict(part='First', claim='a beats b', better='a', worse='b', published='+6.1'),
    dict(part='First', claim='b beats a', better='b', worse='a'),
    dict(part='Second', claim='a beats c', better='a', worse='c', figures=['linear']),
    dict(part='Second', claim='a beats nothing that ran', better='a', worse='d', figures=['linear']),
]


@pytest.fixture
def folder(tmp_path):
    """Arms of three seeds with linear figures; arm a has a k-NN beside, d never ran."""
    work = tmp_path / 'study'
    listed = []
    for arm, tops in (('a', A), ('b', B), ('c', C), ('d', ())):
        for seed in range(3):
            listed.append(dict(name=f'linear_{arm}-s{seed}', base=f'linear_{arm}', kind='linear', arm=arm, seed=seed))
        for seed, top in enumerate(tops):
            name = f'linear_{arm}-s{seed}'
            more = dict(metrics={'accuracy/top1': top}, config={'path': '/checkout/configs/linear/x.py'})
            run = write_run(work, name, 'linear', arm=arm, seed=seed, command=['/env/bin/python', 'tools/t.py'], **more)
            lines = [json.dumps(dict(step=step, mse=top / step)) for step in range(1, 9)]
            log = run / '20260101_000000' / 'vis_data'
            log.mkdir(parents=True)
            (log / 'scalars.json').write_text('\n'.join([*lines, '{"step": 9, "m']))
            record = json.loads((run / 'run.json').read_text())
            record['scalars'] = '20260101_000000/vis_data/scalars.json'
            record['kind'] = 'pretrain' if arm == 'c' else 'linear'
            if arm == 'a':
                record['artifacts'] = dict(knn='knn.json')
                found = {'20': dict(top1=top - 20), '10': dict(top1=0.0)}
                (run / 'knn.json').write_text(json.dumps(dict(accuracy=dict(mean=found, cls=found))))
            (run / 'run.json').write_text(json.dumps(record))
    chain = dict(schema=1, name='study', stages=listed, arms=['a', 'b', 'c', 'd'], orderings=CLAIMS)
    (work / 'chain.json').write_text(json.dumps(chain))
    return work


def test_figures_arm_by_arm(folder):
    found = figures_of(collect(folder))
    assert found == {
        'knn': {'a': {0: 40.0, 1: 42.0, 2: 44.0}},
        'linear': {'a': dict(enumerate(A)), 'b': dict(enumerate(B))},
    }


def test_verdicts_of_claims(folder):
    """a - b is 3, 2, 4: mean 3, s = 1, so 3 ± 4.303 / sqrt(3); t from a table."""
    rows = [[cell.text for cell in row] for row in orderings_table(collect(folder)).rows]
    half = 4.3027 / math.sqrt(3)
    low, high = f'+{3 - half:.1f}', f'+{3 + half:.1f}'
    assert rows[0] == ['a beats b', 'a − b', 'linear', '+3.0', f'{low} to {high}', '3', 'holds', '+6.1']
    assert rows[1][3:] == ['−3.0', f'−{high[1:]} to −{low[1:]}', '3', 'does not: the reverse', '–']
    assert rows[2][3:7] == ['–', '–', '0', 'cannot be told']  # c's runs are no linear probes
    assert rows[3][3:7] == ['–', '–', '0', 'cannot be told']
    assert [row[0].text for row in orderings_table(collect(folder), 'Second').rows] == [rows[2][0], rows[3][0]]


def test_an_interval_over_zero_says_nothing(folder):
    record = folder / 'linear_b-s0' / 'run.json'
    record.write_text(record.read_text().replace('57.0', '70.0'))  # a - b: -10, 2, 4
    assert orderings_table(collect(folder)).rows[0][6].text == 'cannot be told'


def test_the_page_has_them(folder):
    _, markdown = write_report(folder)
    text = markdown.read_text()
    assert 'Orderings' in text and 'a beats b' in text and 'does not: the reverse' in text


def test_packed_results_give_the_same_page_without_paths(folder, tmp_path):
    target = pack(folder, tmp_path / 'study.json.xz', root='/checkout')
    text = lzma.decompress(target.read_bytes()).decode()
    assert '/checkout' not in text and '/env' not in text and 'configs/linear/x.py' in text
    again = unpack(target, tmp_path / 'again')
    assert figures_of(collect(again)) == figures_of(collect(folder))
    assert pack(again, tmp_path / 'twice.json.xz').read_bytes() == target.read_bytes()
    (again / 'linear_a-s0' / 'run.json').write_text('{}')  # what is there already stays
    unpack(target, again)
    assert (again / 'linear_a-s0' / 'run.json').read_text() == '{}'


def test_files_that_are_no_packed_chain(folder, tmp_path):
    with pytest.raises(ValueError, match='must end in .json.xz'):
        pack(folder, tmp_path / 'study.zip')
    with pytest.raises(FileNotFoundError, match='nothing to pack'):
        pack(tmp_path / 'nowhere', tmp_path / 'study.json.xz')
    bad = tmp_path / 'bad.json.xz'
    for content in (b'no', lzma.compress(b'[]'), lzma.compress(b'{"schema": 9, "files": {}}')):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match='not a packed chain|schema 9'):
            unpack(bad, tmp_path / 'out')
    for name in ('../out.json', '/out.json'):
        bad.write_bytes(lzma.compress(json.dumps(dict(schema=1, files={name: {}})).encode()))
        with pytest.raises(ValueError, match='outside'):
            unpack(bad, tmp_path / 'out')
    assert not (tmp_path / 'out.json').exists()


DOCUMENT = """Before.

<!-- table: figures b a -->
worn-out
<!-- end -->
Between.
<!-- table: orderings Second -->
<!-- end -->
<!-- table: curve mse c d -->
<!-- end -->
"""


def test_a_document_is_filled_and_stays_filled(folder, tmp_path):
    path = tmp_path / 'page.md'
    path.write_text(DOCUMENT)
    assert main([str(folder), '--fill', str(path)]) == 0
    text = path.read_text()
    assert 'worn-out' not in text and text.startswith('Before.') and 'Between.' in text
    assert text.index('| **b** | – | 59.0 ± 1.7 (3) |') < text.index('| **a** | 42.0 ± 2.0 (3) | 62.0 ± 2.0 (3) |')
    assert 'a beats c' in text and 'a beats b' not in text
    # the mean of c's last values, 187 / 3 / 8; d has no curve
    assert f'| {sum(C) / 3 / 8:.3f} |' in text and '| **d** | – |' in text
    assert fill(text, folder) == text


def test_marks_that_name_nothing(folder, tmp_path, capsys):
    with pytest.raises(ValueError, match='none of figures'):
        fill('<!-- table: curves -->\n<!-- end -->', folder)
    path = tmp_path / 'page.md'
    path.write_text('no mark')
    assert main([str(folder), '--fill', str(path)]) == 2
    assert 'has no mark' in capsys.readouterr().err and path.read_text() == 'no mark'
