"""The quick probe and the curves of pretraining on the page: what was chosen, by what, and beside which figures."""

import json

from chain_factory import write_demo_chain, write_run

from mim_mm.report.collect import collect
from mim_mm.report.figures_quality import quality_curves
from mim_mm.report.headline import arms_table
from mim_mm.report.page import write_report
from mim_mm.report.tables_probe import probe_table

CHOSEN = {
    'accuracy/top1': 72.25,
    'probe/best_head': 'last1_mean_bn_lr0.3',
    'probe/best_lr': 0.3,
    'probe/held_out_top1': 81.0,
    'probe/num_heads': 60,
}


def with_probes(folder):
    write_demo_chain(folder)
    write_run(folder, 'probe_emae', 'probe', arm='emae', metrics=CHOSEN, artifacts={'knn': 'knn.json'})
    accuracy = {
        'cls': {'10': {'top1': 1.0}, '20': {'top1': 41.04}},
        'mean': {'10': {'top1': 2.0}, '20': {'top1': 55.5}},
    }
    (folder / 'probe_emae' / 'knn.json').write_text(json.dumps(dict(accuracy=accuracy)))
    write_run(folder, 'probe_scratch', 'probe', arm='scratch', metrics={'accuracy/top1': 30.0})
    chain = json.loads((folder / 'chain.json').read_text())  # a run that the chain does not list is not current
    chain['stages'] += [dict(name=f'probe_{arm}', kind='probe', arm=arm, seed=0) for arm in ('emae', 'scratch')]
    (folder / 'chain.json').write_text(json.dumps(chain))
    return folder


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_the_probe_is_a_column_and_a_table_of_its_choice(tmp_path):
    chain = collect(with_probes(tmp_path))
    assert arms_table(chain).header[:3] == ['arm', 'Quick probe top-1', 'Linear top-1']
    assert [row[1] for row in texts(arms_table(chain))] == ['72.2', '30.0']
    table = probe_table(chain)
    assert table.header[2:] == ['chosen head', 'of', 'held-out top-1', 'test top-1', 'k-NN test top-1']
    assert texts(table) == [
        ['probe_emae', 'emae', 'last1_mean_bn_lr0.3', '60 heads', '81.0', '72.2',
         'class token 41.0, mean patch 55.5 (k = 20)'],
        ['probe_scratch', 'scratch', '–', '–', '–', '30.0', '–'],
    ]  # fmt: skip
    page = write_report(tmp_path)[0].read_text()
    assert 'last1_mean_bn_lr0.3' in page and '<span class="v">+42.2</span>' in page


def test_a_chain_without_probe_has_neither(tmp_path):
    chain = collect(write_demo_chain(tmp_path))
    assert probe_table(chain) is None and 'Quick probe top-1' not in arms_table(chain).header
    assert quality_curves(chain, tmp_path / 'report') == []


def test_damaged_knn_is_passed_over(tmp_path):
    folder = with_probes(tmp_path)
    for text in ('{', '{"accuracy": []}', '{"accuracy": {"cls": {"20": {}}}}', '[]'):
        (folder / 'probe_emae' / 'knn.json').write_text(text)
        table = probe_table(collect(folder))
        assert len(table.header) == 6 and texts(table)[0][-1] == '72.2'


def test_the_page_has_the_curve_of_the_pretraining(tmp_path):
    folder = write_demo_chain(tmp_path)
    rows = [dict(iter=i, epoch=i / 2, protocol='p', knn_top1=i, probe_top1=2 * i, classes=7,
                 images=dict(train=50, test=20)) for i in (0, 4, 8)]  # fmt: skip
    (folder / 'pretrain' / 'quality.jsonl').write_text('\n'.join([*map(json.dumps, rows), '{"iter": 9, "kn']))
    ((path, caption),) = quality_curves(collect(folder), folder / 'report')
    assert path.name == 'quality_pretrain.png' and path.read_bytes()[:4] == b'\x89PNG'
    assert '50 training and 20 test images, 7 classes' in caption
    markdown = write_report(folder)[1].read_text()
    assert 'quality_pretrain.png' in markdown and 'random encoder' in markdown
