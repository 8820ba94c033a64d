"""The page says what the run.json files say: numbers by hand, failures shown, every link alive."""

import base64
import inspect
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from chain_factory import coco_metrics, write_demo_chain, write_png, write_run
from mmengine.config import Config

from mim_mm import masking
from mim_mm.recipe_facts import MASKER_DEFAULTS
from mim_mm.report.__main__ import main
from mim_mm.report.collect import collect, read_scalars
from mim_mm.report.document import Cell, Fold, Heading, Picture, Pre, Table, Text, to_markdown
from mim_mm.report.headline import arms_table
from mim_mm.report.html_page import to_html
from mim_mm.report.page import write_report
from mim_mm.report.published import beside, doubtful, load_published, matching_rows
from mim_mm.report.recipe import pretrainings
from mim_mm.report.tables import METRICS, duration, floors_table, protocol_notes, runs_table, summarise
from mim_mm.transfer.identity import learned

ROOT = Path(__file__).resolve().parents[2]
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
    return [['; '.join(filter(None, [cell.text, *cell.folded])) for cell in row] for row in table.rows]


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
    assert re.search(r'Box AP\s+emae − scratch\s+\+5.0\s+–\s+1\s+not judged: 1 seed', text)
    # differences 14, 15, 16: t(2) = 4.3027 at 97.5 %, times 1 / sqrt(3)
    assert re.search(r'Linear top-1\s+emae − scratch\s+\+15.0\s+\+12.5 to \+17.5\s+3\s+emae is better', text)
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
    pretrained(tmp_path, resolved_config(), arm='emae')
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


def resolved_config(method='EMAE', masker=None, epochs=800, arch='base', patch=16, **model):
    """What the chain writes into identity.json, as far as it tells a recipe."""
    masker = masker or dict(type='ParallelMasking', num_parts=4)
    backbone = dict(type='mmpretrain.VisionTransformer', arch=arch, patch_size=patch, img_size=224)
    return dict(model=dict(type=method, backbone=backbone, masker=masker, **model), train_cfg=dict(max_epochs=epochs),
                train_dataloader=dict(batch_size=512), custom_hooks=[])  # fmt: skip


def pretrained(folder, config, name='pretrain', path='configs/any/name_of_mine.py', **fields):
    """A chain's pretraining that left its resolved config, under a file name that says nothing."""
    fields = dict(dict(arm='own', config=dict(path=path, sha256='e' * 64, options={}), gpus=8), **fields)
    run = write_run(folder, name, 'pretrain', **fields)
    (run / 'identity.json').write_text(json.dumps(dict(config=config, parent=None, data={})))
    return collect(folder)


def own_entry(facts):
    """(label, differences) of the row that stands beside a pretraining; None without one."""
    return next(((e['label'], e['differs']) for e in matching_rows(facts) if e['own']), None)


SALIENT = dict(type='SalienceMasking', ratio=0.75, noise=0.5)


@pytest.mark.parametrize('config, label, differs', [
    (resolved_config(), 'EMAE, ViT-B/16, 800 epochs, parallel K=4', []),
    (resolved_config(arch=dict(embed_dims=768, num_layers=12, num_heads=12)),
     'EMAE, ViT-B/16, 800 epochs, parallel K=4', []),
    (resolved_config(masker=dict(type='mim_mm.ParallelMasking', num_parts=7), epochs=300),
     'EMAE, ViT-B/16, 300 epochs, parallel K=7', []),
    (resolved_config(masker=dict(type='ParallelMasking', num_parts=5)), 'EMAE, ViT-B/16, 800 epochs, parallel K=4',
     ['mask: parallel K=5 here, parallel K=4 published']),
    (resolved_config(epochs=500, consistency_weight=0.1), 'EMAE, ViT-B/16, 300 epochs, parallel K=4',
     ['pretraining epochs: 500 here, 300 published', 'consistency_weight: 0.1 here, 1.0 in the method']),
    (resolved_config('MAE', dict(type='RandomMasking'), 300), 'MAE, ViT-B/16, 300 epochs, random r=3/4', []),
    (resolved_config('MAE', dict(type='BlockMasking'), 300), 'MAE, ViT-B/16, 300 epochs, random r=3/4',
     ['mask: block r=5/13 here, random r=3/4 published']),
    (resolved_config('MAE', SALIENT, 400), 'MAE + SBAM, ViT-B/16, salience', []),
    (resolved_config('MAE', dict(SALIENT, ratio=dict(type='AdaptiveRatio')), 400), 'MAE + SBAM, ViT-B/16, salience',
     ['mask: salience, ratio by image here, salience published']),
    (resolved_config('SimMIM', dict(type='RandomMasking', ratio=0.6)), 'SimMIM, ViT-B/16, 800 epochs', []),
    (resolved_config('SimMIM', dict(SALIENT, ratio=0.6)), 'SimMIM, ViT-B/16, 800 epochs',
     ['method: SimMIM + SBAM here, SimMIM published', 'mask: salience r=3/5 here, random r=3/5 in the method']),
    (resolved_config(arch=dict(embed_dims=768, num_layers=12, num_heads=8)), None, None),
    (resolved_config(arch='small'), None, None),  # mmpretrain's, which is no ViT-S
    (resolved_config('iBOT', dict(type='BlockMasking')), 'iBOT, ViT-B/16, 1600 epochs',
     ['pretraining epochs: 800 here, 1600 published']),
    (resolved_config('iBOT', SALIENT), 'iBOT, ViT-B/16, 1600 epochs',
     ['method: iBOT + SBAM here, iBOT published', 'pretraining epochs: 800 here, 1600 published']),
    (resolved_config('MyOwn'), None, None),
])  # fmt: skip
def test_the_row_beside_a_run_is_found_by_its_facts(tmp_path, config, label, differs):
    chain = pretrained(tmp_path, config)
    (found,) = [facts for _, facts in pretrainings(chain)]
    assert own_entry(found) == (None if label is None else (label, differs))
    rows = [row[0] for row in texts(arms_table(chain)) if 'published' in row[0]]
    if label is None:
        assert rows == [] and protocol_notes(chain) == []
    else:
        assert rows[0].startswith(f'{"nearest " if differs else ""}published: {label} [')
        assert all(line in rows[0] for line in differs)


@pytest.mark.parametrize('path, label', [
    ('configs/sbam/sbam_mae_vitb_400e.py', 'MAE + SBAM, ViT-B/16, salience'),
    ('configs/mae/mae_vith_1600e_fsdp.py', 'MAE, ViT-H/14, 1600 epochs, random r=3/4'),
    ('configs/simmim/simmim_vitb_800e.py', 'SimMIM, ViT-B/16, 800 epochs'),
    ('configs/beit/beit_vitb_300e.py', 'BEiT, ViT-B/16, 800 epochs'),
    ('configs/emae/emae_vitb_300e_k14.py', 'EMAE, ViT-B/16, 300 epochs, parallel K=14'),
    ('configs/demo/pretrain_emae.py', None),
])  # fmt: skip
def test_our_recipes_and_renamed_copies_have_the_same_row(tmp_path, path, label):
    """Both as the chain leaves them (identity.json) and as a plain training does (mmengine's dump)."""
    config = Config.fromfile(ROOT / path)
    facts = [facts for _, facts in pretrainings(pretrained(tmp_path / 'a', learned(config)))]
    plain = write_run(tmp_path / 'b', 'mine', 'pretrain', config=dict(path='mine.py', options={}), gpus=8)
    config.dump(str(plain / 'mine.py'))
    facts += [facts for _, facts in pretrainings(collect(tmp_path / 'b'))]
    # A run that left neither: the file that run.json names, with the options of the run.
    options = {'train_cfg.max_epochs': 100}
    write_run(tmp_path / 'c', 'x', 'pretrain', config=dict(path=str(ROOT / path), options=options), gpus=8)
    late = [facts for _, facts in pretrainings(collect(tmp_path / 'c'))]
    assert facts[0] == facts[1] and (own_entry(facts[0]) or (None,))[0] == label
    assert label is None or late[0]['epochs'] == 100


def test_a_checkpoint_that_takes_the_place_of_a_stage_has_its_runs_row(tmp_path):
    pretrained(tmp_path / 'earlier', resolved_config(epochs=1600, method='MAE', masker=dict(type='RandomMasking')))
    checkpoint = str(tmp_path / 'earlier' / 'pretrain' / 'epoch_300.pth')
    write_run(tmp_path / 'now', 'pretrain', 'pretrain', status='skipped', checkpoint=checkpoint)
    (found,) = [facts for _, facts in pretrainings(collect(tmp_path / 'now'))]
    assert own_entry(found) == ('MAE, ViT-B/16, 300 epochs, random r=3/4', [])


def test_downstream_protocols_are_compared_with_the_row(tmp_path):
    pretrained(tmp_path, resolved_config('MAE', dict(type='RandomMasking'), 1600))
    probe = dict(model=dict(backbone=dict(out_type='avg_featmap', img_size=224), neck=dict(type='ClsBatchNormNeck')),
                 train_cfg=dict(max_epochs=30), train_dataloader=dict(batch_size=2048))  # fmt: skip
    run = write_run(tmp_path, 'linear', 'linear', arm='own', metrics={'accuracy/top1': 60.0}, gpus=8)
    (run / 'identity.json').write_text(json.dumps(dict(config=probe, parent=None, data={})))
    (note,) = [note for note in protocol_notes(collect(tmp_path)) if 'is not the protocol of' in note]
    assert note == ('`linear` is not the protocol of MAE, ViT-B/16, 1600 epochs, random r=3/4: '
                    'epochs: 30 here, 90 published; head: mean + BN here, cls + BN published.')  # fmt: skip


def test_defaults_of_maskers_are_those_of_the_classes():
    for name, values in MASKER_DEFAULTS.items():
        parameters = inspect.signature(getattr(masking, name)).parameters
        assert {key: parameters[key].default for key in values} == values, name


def test_published_matches_are_the_printed_ones():
    entry = lambda **facts: matching_rows(dict(method='EMAE', backbone='ViT-B/16', epochs=300, **facts))  # noqa: E731
    first = entry(mask_variant='parallel K=4')[0]
    coco = dict(bbox_mAP=50.6, bbox_mAP_50=70.9, bbox_mAP_75=56.1, segm_mAP=45.0, segm_mAP_50=68.6, segm_mAP_75=49.3)
    assert first['values'] == dict(linear_top1=68.2, finetune_top1=83.8, **coco)
    seven = entry(mask_variant='parallel K=7')
    assert [e['values']['linear_top1'] for e in seven if e['method'] == 'EMAE'] == [66.5]
    assert all(row['source'] and float(row['value']) > 0 for row in load_published())
    assert matching_rows(None) == []


def test_doubtful_numbers_are_kept_and_never_stand_beside_one():
    """71.5 and 74.4 cannot be fine-tuning of ViT-B: iBOT's README has 84.0, and 74.4 is a linear figure of ViT-S."""
    marked = [(row['method'], row['value']) for row in load_published() if doubtful(row)]
    assert marked == [('iBOT', '71.5'), ('iBOT + SBAM', '74.4')]
    assert beside('finetune_top1', 'iBOT', 'ViT-B/16')['value'] == '84.0'
    assert beside('finetune_top1', 'iBOT + SBAM', 'ViT-B/16') is None
    for method in ('iBOT', 'iBOT + SBAM', 'MAE + SBAM'):
        facts = dict(method=method, backbone='ViT-B/16', epochs=1600, mask_variant='salience')
        assert not {71.5, 74.4} & {value for entry in matching_rows(facts) for value in entry['values'].values()}


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


def test_notes_folds_and_files_are_in_both_pages(tmp_path):
    cell = Cell('68.2', 'strong', note='n = 3', folded=('a|b', 'c'), files=(('log', 'x y/<z>.log'),))
    fold = Fold('what differs', (Text('`one`'), Pre('two')))
    page, markdown = (
        to_html('T', [Table(['h'], [[cell]]), fold]),
        to_markdown('T', [Table(['h'], [[cell]]), fold], tmp_path),
    )
    assert '| **68.2** a\\|b; c (n = 3) [log](<x%20y/%3Cz%3E.log>) |' in markdown
    assert '*what differs*\n\n`one`\n\n    two' in markdown
    assert '<span class="note">n = 3</span>' in page and '<summary>2 differences</summary>' in page
    assert '<li>a|b</li><li>c</li>' in page and 'href="x%20y/%3Cz%3E.log"' in page
    assert '<summary>what differs</summary>' in page and '<code>one</code>' in page


def noise(path, side):
    rng = np.random.default_rng(side)
    cv2.imwrite(str(path), rng.integers(0, 256, (side, side, 3), np.uint8))
    return path


def test_a_page_with_large_pictures_stays_below_its_size(tmp_path):
    """Noise does not compress: 2.2 MB of PNG, of which 300 kB may stay; one that fits is left as it is."""
    large, small = noise(tmp_path / 'large.png', 860), noise(tmp_path / 'small.png', 60)
    page = to_html('T', [Picture(large, 'large', 'what is seen'), Picture(small)], most=300_000)
    kinds = re.findall(r'<img alt="([^"]*)" src="data:image/(\w+);', page)
    assert kinds == [('what is seen', 'webp'), ('small', 'png')] and 200_000 < len(page.encode()) <= 300_000
    assert base64.b64encode(small.read_bytes()).decode() in page
    (tmp_path / 'odd.png').write_bytes(os.urandom(400_000))  # nothing can make it smaller
    page = to_html('T', [Picture(tmp_path / 'odd.png'), Picture(small)], most=300_000)
    assert 'odd.png is too large for this page' in page and len(page.encode()) <= 300_000


def test_a_run_links_what_it_left(tmp_path):
    run = write_run(write_demo_chain(tmp_path), 'coco_emae', 'coco', arm='emae', checkpoint='iter_280.pth')
    for name in ('20260101_000000/a.log', '20260102_000000/b.log', 'chain.log', 'mask_rcnn.py', 'iter_280.pth'):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text('x')
    (run_row,) = [row for row in runs_table(collect(tmp_path)).rows if row[0].text == 'coco_emae']
    assert dict(run_row[-1].files) == {
        'log': 'coco_emae/20260102_000000/b.log', 'config': 'coco_emae/mask_rcnn.py', 'run.json': 'coco_emae/run.json',
        'checkpoint': 'coco_emae/iter_280.pth',
    }  # fmt: skip
    secret = tmp_path.parent / 'secret.pth'
    secret.write_text('x')
    for named in (str(secret), '../../secret.pth'):
        write_run(tmp_path, 'coco_emae', 'coco', arm='emae', checkpoint=named)
        (run_row,) = [row for row in runs_table(collect(tmp_path)).rows if row[0].text == 'coco_emae']
        assert 'checkpoint' not in dict(run_row[-1].files)


def test_headlines_have_spread_and_interval(tmp_path):
    table = arms_table(collect(write_demo_chain(tmp_path)))
    # 84, 86, 88: s = 2, t(2) = 4.3027, half of the interval 4.3027 * 2 / sqrt(3) = 4.97
    assert [cell.note for cell in table.rows[0][1:4]] == ['95%: 81.0 to 91.0, n = 3', 'one run', 'one run']


def test_own_data_stand_beside_guessing(tmp_path):
    folder = write_demo_chain(tmp_path)
    for arm in ('emae', 'scratch'):
        config = dict(model=dict(type='ImageClassifier', head=dict(num_classes=8)))
        (folder / f'finetune_{arm}' / 'identity.json').write_text(json.dumps(dict(config=config)))
    row = texts(arms_table(collect(folder)))[-1]
    assert row[:4] == ['baseline: guessing one of 8 classes that are equally frequent', '–', '12.5', '–']


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
    assert re.search(r'Box AP\s+emae − scratch\s+−5.0', text)
