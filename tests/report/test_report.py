"""The page says what the run.json files say: numbers by hand, failures shown, every link alive."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chain_factory import coco_metrics, write_demo_chain, write_png, write_run  # noqa: E402

from mim_mm.report.__main__ import main  # noqa: E402
from mim_mm.report.collect import collect, read_scalars  # noqa: E402
from mim_mm.report.document import Cell, Heading, Pre, Table, Text, to_html, to_markdown  # noqa: E402
from mim_mm.report.page import write_report  # noqa: E402
from mim_mm.report.published import load_published, matching_rows, recipe_of  # noqa: E402
from mim_mm.report.tables import METRICS, arms_table, duration, floors_table, protocol_notes, summarise  # noqa: E402

VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}


class Balanced(HTMLParser):
    """Fails on tags that do not close in order; gathers pictures and text."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.text, self.cells = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag == 'img':
            self.images.append(dict(attrs)['src'])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f'</{tag}> closes {self.open[-3:]}'
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def parse(path):
    page = Balanced()
    page.feed(path.read_text())
    page.close()
    assert page.open == []
    return page


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_arms_table_by_hand(tmp_path):
    table = arms_table(collect(write_demo_chain(tmp_path)))
    coco = ['Box AP', 'AP50', 'AP75', 'Mask AP', 'AP50', 'AP75']
    assert table.header == ['arm', 'Linear top-1', 'Fine-tune top-1', *coco]
    # (84, 86, 88): mean 86, squared deviations 4 + 0 + 4 over n - 1 = 2 -> std 2
    assert texts(table) == [
        ['emae', '86.0 ± 2.0', '97.0', '60.0', '70.0', '50.0', '61.0', '71.0', '51.0'],
        ['scratch', '71.0 ± 1.0', '95.5', '55.0', '65.0', '45.0', '61.0', '71.0', '51.0'],
    ]


def test_floors_are_computed(tmp_path):
    verdicts = [row[-1] for row in texts(floors_table(collect(write_demo_chain(tmp_path / 'a'))))]
    assert verdicts == ['pass', 'pass', 'pass']
    worse = write_demo_chain(tmp_path / 'b', linear_scratch=(81.0, 81.5, 81.0), scratch_box=0.499)
    rows = texts(floors_table(collect(worse)))
    assert [row[-1] for row in rows] == ['FAIL', 'pass', 'FAIL']
    assert 'difference +4.8' in rows[2][2]
    (tmp_path / 'a' / 'linear_scratch-s1' / 'run.json').unlink()
    rows = texts(floors_table(collect(tmp_path / 'a')))
    assert rows[2][-1] == 'not measured' and '(2 of 3 runs)' in rows[2][2]


def test_exactly_at_the_floor_passes(tmp_path):
    chain = write_demo_chain(tmp_path, linear_emae=(76.0,) * 3, linear_scratch=(71.0,) * 3, scratch_box=0.5)
    chain = collect(chain)
    assert [row[-1] for row in texts(floors_table(chain))] == ['pass', 'pass', 'pass']


def test_report_pages_are_whole(tmp_path):
    folder = write_demo_chain(tmp_path)
    html_path, md_path = write_report(folder)
    assert (html_path, md_path) == (folder / 'report.html', folder / 'report.md')
    page = parse(html_path)
    text = ' '.join(page.text)
    assert '86.0 ± 2.0' in text and 'a1b2c3d4e5f6, clean' in text and 'digits-demo' in text and 'cpu, 1 thread' in text
    assert '11 of 11 runs done; 3 of 3 floors reached' in text
    assert 'Box AP emae − scratch +5.0' in text and 'Linear top-1 emae − scratch +15.0' in text
    assert '11 of 11 done' in text
    assert len(page.images) == 2 and all(src.startswith('data:image/png;base64,') for src in page.images)
    assert 'http://' not in html_path.read_text() and 'https://' not in html_path.read_text()
    links = re.findall(r'!\[[^\]]*\]\(<([^>]+)>\)', md_path.read_text())
    assert len(links) == 2 and all((folder / link).is_file() for link in links)
    assert '| emae' in md_path.read_text().replace('**', '') and '86.0 ± 2.0' in md_path.read_text()
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith('.')) == []


def supersede(folder, name, number=1, **changes):
    """What a rerun leaves beside the run: a whole run of its own, with its stage, arm and seed."""
    run = json.loads((folder / name / 'run.json').read_text())
    kind = run.pop('kind')
    write_run(folder, f'{name}.old-{number}', kind, **{**run, **changes})


def test_superseded_runs_count_nowhere(tmp_path):
    chain = collect(write_demo_chain(tmp_path))
    before = [texts(arms_table(chain)), texts(floors_table(chain))]
    supersede(tmp_path, 'linear_emae-s0', metrics={'accuracy/top1': 1.0})
    supersede(tmp_path, 'linear_emae-s0', 2, status='failed', error='long ago', metrics={})
    supersede(tmp_path, 'pretrain', status='interrupted', error='long ago')
    supersede(tmp_path, 'finetune_emae')
    # A stage that was given seeds: what lies under its old name is no further seed either.
    write_run(tmp_path, 'linear_emae', 'linear', arm='emae', metrics={'accuracy/top1': 2.0})
    chain = collect(tmp_path)
    assert [texts(arms_table(chain)), texts(floors_table(chain))] == before
    page = write_report(tmp_path)[1].read_text()
    head, _, earlier = page.partition('## Earlier runs')
    assert '11 of 11 runs done' in head and 'What went wrong' not in head and 'long ago' not in page
    assert not any('.old-' in line for line in head.splitlines())
    rows = [line.split(' | ')[:3] for line in earlier.splitlines() if '.old-' in line or 'linear_emae |' in line]
    assert ['| linear_emae-s0.old-2', 'superseded by linear_emae-s0', 'failed'] in rows
    assert ['| linear_emae', 'not in the chain any more', 'done'] in rows and len(rows) == 5
    (tmp_path / 'chain.json').unlink()  # then the names alone decide
    assert summarise(collect(tmp_path), METRICS[1], 'emae').expected == 4


def test_failures_are_shown_not_fatal(tmp_path):
    folder = write_demo_chain(tmp_path)
    write_run(
        folder,
        'coco_emae',
        'coco',
        arm='emae',
        status='failed',
        exit_code=1,
        metrics=coco_metrics(0.9, 0.9),
        error='RuntimeError: <loss> is nan & more',
    )
    (folder / 'finetune_emae' / 'run.json').write_text('{"status": "done", "metr')
    (folder / 'finetune_scratch' / 'run.json').write_text(json.dumps(dict(status='done', git='abc', kind='finetune')))
    (folder / 'linear_emae-s2' / 'run.json').unlink()
    chain = collect(folder)
    rows = texts(arms_table(chain))
    assert rows[0][1:4] == ['85.0 ± 1.4 (2 of 3 runs)', 'unreadable', 'failed'], 'metrics of a failed run are no result'
    assert rows[1][2] == 'unreadable'
    text = ' '.join(parse(write_report(folder)[0]).text)
    for part in ('RuntimeError: <loss> is nan & more', 'cannot be read', 'git must be an object', 'never started'):
        assert part in text
    assert '7 of 11 runs done; 0 of 3 floors reached' in text
    assert '1 failed' in text and '2 unreadable' in text and '1 missing' in text
    assert re.search(r'Box AP of both arms.*?not measured', text)


def test_damaged_chain_json_and_odd_values(tmp_path):
    folder = write_demo_chain(tmp_path)
    (folder / 'chain.json').write_text('{')
    write_run(
        folder,
        'coco_scratch',
        'coco',
        arm='scratch',
        metrics={'coco/bbox_mAP': -1.0, 'coco/segm_mAP': True},
        wall_s='long',
        started='yesterday',
        scalars='../../../etc/none.json',
        artifacts={'x': 'gone.png'},
    )
    chain = collect(folder)
    assert len(chain.runs) == 12 and 'chain.json cannot be read' in chain.notes[0]
    assert texts(arms_table(chain))[1][3] == 'no such metric'
    assert 'chain.json cannot be read' in ' '.join(parse(write_report(folder)[0]).text)


def test_nothing_to_report(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match='no chain.json and no <stage>/run.json'):
        collect(tmp_path)
    with pytest.raises(FileNotFoundError):
        collect(tmp_path / 'absent')
    assert main([str(tmp_path)]) == 2
    assert 'nothing to report' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_entry_point_writes_and_says_where(tmp_path, capsys):
    assert main([str(write_demo_chain(tmp_path))]) == 0
    assert str(tmp_path / 'report.html') in capsys.readouterr().out


def test_vitb_chain_gets_its_published_row(tmp_path):
    config = {'path': 'configs/emae/emae_vitb_800e.py', 'sha256': 'e' * 64, 'options': {}}
    write_run(tmp_path, 'pretrain', 'pretrain', arm='emae', config=config)
    coco = {'path': 'configs/coco/x.py', 'sha256': 'f' * 64, 'options': {'train_cfg.max_epochs': 2}}
    write_run(tmp_path, 'coco', 'coco', arm='emae', metrics=coco_metrics(0.5, 0.45), config=coco)
    chain = collect(tmp_path)
    rows = {row[0]: row[1:] for row in texts(arms_table(chain))}
    assert rows['published: EMAE, ViT-B/16, 800 epochs, parallel K=4 [emae_tpami24]'] == [
        '51.4',
        '72.2',
        '56.5',
        '45.7',
        '69.4',
        '49.8',
    ]
    assert rows['published: Supervised, ViT-B/16, 300 epochs [emae_tpami24]'][0] == '47.9'
    assert not any('K=7' in label or '1600' in label for label in rows)
    notes = ' '.join(protocol_notes(chain))
    assert '`coco` changed its recipe (train_cfg.max_epochs=2): not comparable' in notes
    assert 'published: EMAE' in write_report(tmp_path)[1].read_text()
    assert floors_table(chain) is None


def test_recipe_names():
    assert recipe_of('configs/emae/emae_vitl_800e.py')['backbone'] == 'ViT-L/16'
    assert recipe_of('configs/emae/emae_vitb_k7_300e.py')['variant'] == 'parallel K=7'
    assert recipe_of('configs/emae/emae_vitb_300e_k14.py')['variant'] == 'parallel K=14'
    assert recipe_of('configs/mae/mae_vitb_1600e.py') == dict(
        method='MAE', backbone='ViT-B/16', epochs='1600', variant=None
    )
    assert recipe_of('configs/demo/pretrain_emae.py') is None and recipe_of(None) is None
    assert matching_rows(None) == []


def test_published_matches_are_the_printed_ones():
    first = matching_rows(recipe_of('emae_vitb_300e.py'))[0]
    coco = dict(bbox_mAP=50.6, bbox_mAP_50=70.9, bbox_mAP_75=56.1, segm_mAP=45.0, segm_mAP_50=68.6, segm_mAP_75=49.3)
    assert first['values'] == dict(linear_top1=68.2, finetune_top1=83.8, **coco)
    seven = matching_rows(recipe_of('emae_vitb_k7_300e.py'))
    assert [e['values']['linear_top1'] for e in seven if e['method'] == 'EMAE'] == [66.5]
    assert all(row['source'] and float(row['value']) > 0 for row in load_published())


def test_scalars_of_a_resumed_run_keep_the_later_value(tmp_path):
    path = tmp_path / 'scalars.json'
    rows = [dict(step=1, loss=3.0), dict(step=2, loss=2.0), dict(step=2, loss=1.5), dict(step=3, loss=1.0, note='x')]
    path.write_text('\n'.join(map(json.dumps, rows)) + '\n{"step": 4, "loss"\n[1]\n')
    assert read_scalars([path]) == {'loss': ([1, 2, 3], [3.0, 1.5, 1.0])}
    assert read_scalars([]) == {}
    later = tmp_path / 'later.json'
    later.write_text('{"loss": 0.9, "step": 3}\n{"loss": 0.8, "step": 4}\n')
    assert read_scalars([path, later]) == {'loss': ([1, 2, 3, 4], [3.0, 1.5, 0.9, 0.8])}


def test_summary_needs_two_values_for_a_spread(tmp_path):
    chain = collect(write_demo_chain(tmp_path))
    finetune = next(m for m in METRICS if m.name == 'finetune_top1')
    assert summarise(chain, finetune, 'emae').std is None
    assert str(summarise(chain, finetune, 'nobody')) == 'not run'


def test_documents_escape_and_link(tmp_path):
    blocks = [Heading('a < b'), Text('x `y<z>` & w', 'bad'), Pre('<b>'), Table(['h|1'], [[Cell('p|q', 'good')]], 'c')]
    (tmp_path / 'page.html').write_text(to_html('T & U', blocks))
    page = (tmp_path / 'page.html').read_text()
    parse(tmp_path / 'page.html')
    assert '<code>y&lt;z&gt;</code>' in page and '&lt;b&gt;' in page and 'T &amp; U' in page and 'class="bad"' in page
    markdown = to_markdown('T', blocks, tmp_path)
    assert '**p\\|q**' in markdown and '    <b>' in markdown


TIMES = [(5.4, '5 s'), (75, '1 min 15 s'), (3725, '1 h 02 min'), (None, '–'), ('x', '–')]


@pytest.mark.parametrize('seconds,text', TIMES)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_picture_of_another_type_is_not_embedded(tmp_path):
    folder = write_demo_chain(tmp_path)
    run = write_run(
        folder,
        'coco_emae',
        'coco',
        arm='emae',
        metrics=coco_metrics(0.6, 0.6),
        artifacts={'detections': 'detections.png', 'log': 'log.txt', 'gone': 'gone.png'},
    )
    write_png(run / 'detections.png')
    (run / 'log.txt').write_text('text')
    assert len(parse(write_report(folder)[0]).images) == 3


def test_recorded_facts_are_readable(tmp_path):
    folder = write_demo_chain(tmp_path)
    data = {
        'train/train2017': {'files': 12, 'bytes': 9, 'sha256': 'beef' * 16},
        'train/x.json': {'sha256': 'cafe' * 16},
    }
    config = {'path': '/somewhere/else/configs/demo/mask_rcnn.py', 'sha256': 'c' * 64, 'options': {}}
    write_run(folder, 'coco_emae', 'coco', arm='emae', metrics=coco_metrics(0.5, 0.5), data=data, config=config,
              artifact_errors={'detections': 'exit code 1; <no weights>'})  # fmt: skip
    page = write_report(folder)[0]
    text = ' '.join(parse(page).text)
    assert 'train/train2017 (12 files, sha256 beefbeef); train/x.json (sha256 cafecafe)' in text
    assert 'configs/demo/mask_rcnn.py (cccccccc)' in text and '/somewhere/else' not in text
    assert 'detections could not be made' in text and 'exit code 1; <no weights>' in text
    assert 'Box AP emae − scratch −5.0' in text
