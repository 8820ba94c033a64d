"""What the page says of arms: figures by hand, the rule, what was the same, published figures only where they fit."""

import csv
import json
from pathlib import Path

import pytest
from chain_factory import coco_metrics, write_run

from mim_mm.report.collect import collect
from mim_mm.report.comparison import differences_table, evidence, evidence_blocks, result_table
from mim_mm.report.comparison_data import columns, read_comparison
from mim_mm.report.comparison_published import encoder_blocks, encoder_facts, published_table
from mim_mm.report.figures_compare import draw_comparison, panel_points
from mim_mm.report.intervals import paired, spread, verdict
from mim_mm.report.page import write_report
from mim_mm.report.published import beside, known_data, load_published, matching_rows, segmentation_rows

IMAGENET = {'train': dict(files=1281167, bytes=1, sha256='a' * 64), 'val': dict(files=50000, bytes=1, sha256='b' * 64)}
DIGITS = {'train': dict(files=1200, bytes=1, sha256='c' * 64), 'val': dict(files=360, bytes=1, sha256='d' * 64)}
TOPS = dict(emae=(68.0, 69.0, 70.0), mae=(61.0, 63.0, 62.0), scratch=(10.0, 11.0, 12.0))
ENCODER = dict(type='VisionTransformer', name='ViT-B/16', width=768, depth=12, heads=12, patch_size=16, img_size=224,
               parameters=85798656)  # fmt: skip


def texts(table):
    return [['; '.join(filter(None, [cell.text, *cell.folded])) for cell in row] for row in table.rows]


def write_comparison(folder, data=IMAGENET, tops=TOPS, sha='e', kind='linear', **facts):
    """Three arms; EMAE and MAE of 300 epochs, ViT-B/16, on 8 devices with a probe of 2048 images each."""
    facts = dict(dict(epochs=90, iters=None, batch_per_device=2048, resolution=224, head='cls + BN'), **facts)
    arms, listed = {}, []
    for arm, method, variant, views in (('emae', 'EMAE', 'parallel K=4', 4), ('mae', 'MAE', 'random r=3/4', 1)):
        made = dict(method=method, mask_variant=variant, views=views, epochs=300, iters=None, batch_per_device=512)
        arms[arm] = dict(source='config', path=f'/x/configs/{arm}/{arm}_vitb_300e.py', stage=f'pretrain_{arm}',
                         encoder=ENCODER, pretraining=made, data=None, seeds=[0])  # fmt: skip
        listed.append(dict(name=f'pretrain_{arm}', kind='pretrain', arm=arm, seed=0))
        write_run(folder, f'pretrain_{arm}', 'pretrain', arm=arm, gpus=8, data={'train': data['train']})
    arms['scratch'] = dict(source='none', encoder={}, pretraining={}, data=None, seeds=[], stage=None)
    for arm, values in tops.items():
        for seed, top in enumerate(values):
            name = f'{kind}_{arm}-s{seed}'
            listed.append(dict(name=name, base=f'{kind}_{arm}', kind=kind, arm=arm, seed=seed))
            metrics = coco_metrics(top / 100, top / 100) if kind == 'coco' else {'accuracy/top1': top}
            config = dict(path=f'configs/{kind}/x.py', sha256=f'{sha}{seed}', options={})
            write_run(folder, name, kind, arm=arm, seed=seed, gpus=8, data=data, metrics=metrics, config=config)
    recipe = dict(kind=kind, config=f'/x/configs/{kind}/x.py', options={}, seeds=[0, 1, 2],
                  stages={arm: f'{kind}_{arm}' for arm in arms}, facts=dict(facts, encoder='ViT-B/16'))  # fmt: skip
    content = dict(schema=1, name='c', arms=arms, recipes={kind: recipe}, allowed=[], allow=[])
    (folder / 'compare.json').write_text(json.dumps(content))
    (folder / 'chain.json').write_text(json.dumps(dict(schema=1, name='c', stages=listed, arms=list(arms))))
    chain = collect(folder)
    return chain, read_comparison(chain)


# ---- the arithmetic


def test_interval_by_hand():
    """Differences 2, 3, 4: mean 3, s = sqrt((1 + 0 + 1) / 2) = 1; t(0.975, 2) = 4.302653; half = t / sqrt(3)."""
    pair = paired({0: 3.0, 1: 5.0, 2: 7.0, 9: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0, 5: 99.0})
    assert (pair.n, pair.mean, pair.std) == (3, 3.0, 1.0)
    assert pair.low == pytest.approx(3 - 2.484138, abs=1e-6) and pair.high == pytest.approx(3 + 2.484138, abs=1e-6)
    two = paired({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})  # mean 2, s = sqrt 2, t(0.975, 1) = 12.706205
    assert two.high - two.mean == pytest.approx(12.706205, abs=1e-5)
    assert paired({0: 1.0}, {0: 3.0}).mean == -2.0 and paired({0: 1.0}, {0: 3.0}).low is None
    assert paired({}, {0: 1.0}).n == 0


def test_spread_by_hand():
    assert spread([84.0, 86.0, 88.0]) == '86.0 ± 2.0 (n = 3)'
    assert spread([86.0]) == '86.0 (n = 1)' and spread([]) == '–'


@pytest.mark.parametrize(
    'differences, said',
    [
        ((2.0, 3.0, 4.0), 'a is better'),
        ((-2.0, -3.0, -4.0), 'b is better'),
        ((1.0, 3.0, 5.0), 'no difference shown'),  # mean 3, half 4.97
        ((5.0, 5.1), 'not judged: 2 seeds of both'),
        ((5.0,), 'not judged: 1 seed of both'),
        ((5.0, 5.0, 5.0), 'not judged: the difference is the same for every seed, so its spread is not known'),
    ],
)
def test_the_rule(differences, said):
    assert verdict(paired(dict(enumerate(differences)), dict.fromkeys(range(5), 0.0)), 'a', 'b') == said


# ---- the tables


def test_figures_and_differences(tmp_path):
    chain, content = write_comparison(tmp_path)
    assert texts(result_table(chain, content)) == [
        ['emae', '69.0 ± 1.0 (n = 3)'], ['mae', '62.0 ± 1.0 (n = 3)'], ['scratch', '11.0 ± 1.0 (n = 3)'],
    ]  # fmt: skip
    # emae - mae: 7, 6, 8: mean 7, s 1, so 7 +- 2.48
    rows = {row[1]: row[2:] for row in texts(differences_table(chain, content))}
    assert rows['emae − mae'] == ['+7.0', '+4.5 to +9.5', '3', 'emae is better']
    assert rows['mae − scratch'][0] == '+51.0' and len(rows) == 3
    assert set(evidence(chain, content, 'linear').values()) == {'same'}


def test_superseded_runs_are_no_seeds_of_an_arm(tmp_path):
    chain, content = write_comparison(tmp_path)
    before = [texts(table(chain, content)) for table in (result_table, differences_table)]
    run = json.loads((tmp_path / 'linear_emae-s0' / 'run.json').read_text())
    for seed in (0, 7):  # superseded by another result of the seed, and by another choice of seeds
        fields = dict(run, seed=seed, metrics={'accuracy/top1': 1.0}, data=DIGITS, gpus=1)
        write_run(tmp_path, f'linear_emae-s{seed}.old-1', 'linear', **{k: fields[k] for k in fields if k != 'kind'})
    chain = collect(tmp_path)
    assert [texts(table(chain, content)) for table in (result_table, differences_table)] == before
    assert set(evidence(chain, content, 'linear').values()) == {'same'}


def test_missing_runs_are_shown(tmp_path):
    write_comparison(tmp_path)
    (tmp_path / 'linear_mae-s2' / 'run.json').unlink()
    chain = collect(tmp_path)
    content = read_comparison(chain)
    assert texts(result_table(chain, content))[1] == ['mae', '62.0 ± 1.4 (n = 2); 2 of 3 runs']
    assert texts(differences_table(chain, content))[0][-1] == 'not judged: 2 seeds of both'


@pytest.mark.parametrize(
    'change, fact',
    [
        (dict(config=dict(path='x', sha256='other', options={})), 'recipe'),
        (dict(data=dict(IMAGENET, val=dict(files=50000, bytes=1, sha256='0' * 64))), 'test data'),
        (dict(data=dict(IMAGENET, train=dict(files=9, bytes=1, sha256='0' * 64))), 'training data'),
        (dict(gpus=1), 'number of devices'),
    ],
)
def test_runs_that_are_not_alike_are_not_judged(tmp_path, change, fact):
    write_comparison(tmp_path)
    facts = dict(arm='mae', seed=1, gpus=8, data=IMAGENET, metrics={'accuracy/top1': 63.0})
    facts.update(config=dict(path='configs/linear/x.py', sha256='e1', options={}))
    write_run(tmp_path, 'linear_mae-s1', 'linear', **dict(facts, **change))
    chain = collect(tmp_path)
    content = read_comparison(chain)
    found = evidence(chain, content, 'linear')
    assert [name for name, text in found.items() if text != 'same'] == [fact]
    assert {row[-1] for row in texts(differences_table(chain, content))} == {f'not judged: the runs differ in {fact}'}


def test_allowed_differences_are_named(tmp_path):
    chain, content = write_comparison(tmp_path)
    content['allowed'] = [dict(recipe='linear', arm='mae', against='emae', differences=['lr: 0.1 -> 0.2'])]
    said = [block.text for block in evidence_blocks(chain, content)[1:]]
    assert said == ['`linear`: emae and mae were trained differently, as the chain allows: lr: 0.1 -> 0.2']


def test_encoders(tmp_path):
    chain, content = write_comparison(tmp_path)
    emae, mae = (encoder_facts(chain, content, arm) for arm in ('emae', 'mae'))
    assert (emae['epochs'], emae['effective epochs'], emae['batch']) == (300, 1200, 4096)
    assert (mae['epochs'], mae['effective epochs'], mae['pretraining data']) == (300, 300, 'IN-1k')
    assert emae['labels'] == 'no'
    said = encoder_blocks(chain, content)[1].text
    assert 'effective epochs: emae 1200, mae 300' in said and 'parameters' not in said and 'batch' not in said


def test_iterations_are_turned_into_epochs(tmp_path):
    chain, content = write_comparison(tmp_path, data=DIGITS, epochs=None, iters=300, batch_per_device=1)
    from mim_mm.report.comparison_published import our_protocol

    assert our_protocol(chain, content, 'linear', 'emae', 3)['epochs'] == 2.0  # 300 x 8 / 1200


def test_published_figures_stand_beside_ours(tmp_path):
    chain, content = write_comparison(tmp_path)
    rows = {row[0]: row[2:] for row in texts(published_table(chain, content))}
    here, value, label, differs, unstated = rows['emae']
    assert value == '68.2' and 'EMAE, ViT-B/16, parallel K=4, 300 epochs [emae_tpami24' in label
    assert differs == 'none found' and unstated == 'epochs, batch, resolution, head, seeds'
    assert rows['mae'][1] == '61.5' and rows['scratch'][2] == 'nothing for scratch on ViT-B/16'


def test_settings_that_make_another_method_are_named(tmp_path):
    chain, content = write_comparison(tmp_path)
    content['arms']['emae']['pretraining']['changes'] = ['consistency_weight: 0.1 here, 1.0 in the method']
    row = {row[0]: row[2:] for row in texts(published_table(chain, content))}['emae']
    assert row[3] == 'consistency_weight: 0.1 here, 1.0 in the method'


def test_stated_protocols_are_compared(tmp_path):
    chain, content = write_comparison(tmp_path, epochs=25, batch_per_device=64, resolution=32, head='mean')
    content['arms']['mae']['pretraining'].update(epochs=1600)
    row = {row[0]: row[2:] for row in texts(published_table(chain, content))}['mae']
    assert row[1] == '67.8'
    assert row[3] == (
        'epochs: 25 here, 90 published; batch: 512 here, 16384 published; resolution: 32 here, 224 published; '
        'head: mean here, cls + BN published'
    )


@pytest.mark.parametrize('kind, value', [('linear', '68.2'), ('finetune', '83.8'), ('coco', '50.6')])
def test_other_data_are_not_comparable(tmp_path, kind, value):
    chain, content = write_comparison(tmp_path, data=DIGITS, kind=kind)
    wanted = 'COCO val2017' if kind == 'coco' else 'IN-1k val'
    for row in texts(published_table(chain, content)):
        assert row[3] in ('not comparable', '–'), row
    first = texts(published_table(chain, content))[0]
    assert first[5].startswith(f'their {value} is for {wanted}, ours for other data')
    assert f'test data: 360 files (sha256 dddddddd) here, {wanted} published' in first[5]


def test_scratch_stands_beside_supervised_training_from_scratch(tmp_path):
    chain, content = write_comparison(tmp_path, kind='finetune', epochs=100)
    row = {row[0]: row[2:] for row in texts(published_table(chain, content))}['scratch']
    assert row[1] == '82.3' and row[3] == 'epochs: 100 here, 300 published'


def test_sizes_that_nobody_published(tmp_path):
    chain, content = write_comparison(tmp_path)
    for arm in content['arms'].values():
        arm['encoder'] = dict(ENCODER, name='ViT (width 32)') if arm['encoder'] else {}
    content['recipes']['linear']['facts']['encoder'] = 'ViT (width 32)'
    assert published_table(chain, content).text.startswith('Our table has no published figure')


def test_a_kind_that_no_table_knows(tmp_path):
    chain, content = write_comparison(tmp_path, kind='attentive')
    assert [title for _, _, title, _ in columns(chain, content)] == ['accuracy/top1']
    assert texts(result_table(chain, content))[0] == ['emae', '69.0 ± 1.0 (n = 3)']
    assert published_table(chain, content) is None


def test_page(tmp_path):
    write_comparison(tmp_path, data=DIGITS)
    write_run(tmp_path, 'pretrain_mae', 'pretrain', arm='mae', status='skipped', checkpoint='/x/mae.pth')
    html, markdown = (path.read_text() for path in write_report(tmp_path))
    for page in (html, markdown):
        assert '69.0 ± 1.0 (n = 3)' in page and 'not comparable' in page and 'emae is better' in page
        assert 'Rule: an arm is called better when the 95% t interval' in page and 'paired by seed' in page
        assert '10 of 10 runs done' in page and 'What went wrong' not in page
    assert (tmp_path / 'report' / 'comparison.png').is_file() and 'data:image/png' in html
    (tmp_path / 'compare.json').write_text('{"schema": 1, "arms"')
    assert 'compare.json cannot be read' in write_report(tmp_path)[1].read_text()


# ---- the figure


def test_points_of_a_seed_stand_at_the_same_place_of_each_arm():
    placed = panel_points({'a': {0: 1.0, 2: 3.0}, 'b': {0: 2.0, 1: 5.0, 2: 4.0}})
    assert [(s, v) for _, s, v in placed['a']] == [(0, 1.0), (2, 3.0)]
    where = {arm: {s: x for x, s, _ in points} for arm, points in placed.items()}
    assert where['b'][0] - where['a'][0] == pytest.approx(1.0) and where['b'][2] - where['a'][2] == pytest.approx(1.0)
    assert where['b'][0] < where['b'][1] < where['b'][2]


def test_figure(tmp_path):
    values = {'emae': {0: 1.0, 1: 2.0}, 'scratch': {}}
    path = draw_comparison([('linear', None, 'Linear', values)], tmp_path / 'a' / 'c.png')
    from matplotlib.image import imread

    pixels = imread(path)[..., :3]
    blue = (abs(pixels - [0x24 / 255, 0x57 / 255, 0xC5 / 255]).max(-1) < 0.05).sum()  # the first arm's points and bar
    orange = (abs(pixels - [0xD9 / 255, 0x73 / 255, 0x0D / 255]).max(-1) < 0.05).sum()  # the second has none
    assert blue > 100 and orange == 0
    assert draw_comparison([('linear', None, 'Linear', {'emae': {}})], tmp_path / 'none.png') is None


# ---- the published table


def test_fields_of_the_table_have_a_source():
    for row in load_published():
        stated = [row[key] for key in ('epochs', 'batch', 'resolution', 'head', 'protocol') if row[key]]
        assert bool(stated) == bool(row['protocol_source']), row
        assert row['source'] and float(row['value']) > 0
        assert all(not row[key] or int(row[key]) > 0 for key in ('epochs', 'batch', 'resolution'))
    (row,) = [r for r in load_published() if (r['method'], r['backbone'], r['pretrain_epochs'], r['metric'])
              == ('MAE', 'ViT-B/16', '1600', 'linear_top1')]  # fmt: skip
    assert (row['epochs'], row['batch'], row['resolution'], row['head']) == ('90', '16384', '224', 'cls + BN')
    assert all(not r['epochs'] for r in load_published() if r['method'] == 'EMAE'), 'nobody states them for EMAE'


def test_the_table_is_rectangular():
    path = Path(__file__).parents[2] / 'mim_mm' / 'report' / 'published_results.csv'
    with open(path, newline='') as file:
        lengths = {len(row) for row in csv.reader(file)}
    assert lengths == {16}


def test_nearest_row():
    assert beside('linear_top1', 'MAE', 'ViT-B/16', None, 900)['value'] == '64.4'  # 800 epochs
    assert beside('linear_top1', 'mae', 'ViT-B/16', 'random r=13/14', 300)['value'] == '54.7'
    assert beside('linear_top1', 'mae', 'ViT-B/16')['pretrain_epochs'] == '2400'
    assert beside('linear_top1', 'EMAE', 'ViT-B/16', 'parallel K=4', 300)['value'] == '68.2'  # the main table's
    assert beside('bbox_mAP', 'supervised', 'ViT-B/16')['value'] == '47.9'
    assert beside('linear_top1', 'MAE', 'ViT-S/16') is None
    assert beside('mIoU', 'BootMAE', 'ViT-B/16')['value'] == '49.1'
    assert (
        beside('linear_mIoU', 'iBOT', 'ViT-B/16')['head'] == 'linear'
        and beside('linear_mIoU', 'MAE', 'ViT-B/16') is None
    )


def test_rows_of_segmentation():
    """The method's own first, the others behind it; beside a chain that segments, and no other."""
    found = segmentation_rows(dict(method='MAE', backbone='ViT-B/16', epochs=800, mask_variant='random r=3/4'))
    assert [(e['method'], e['values'], e['own']) for e in found][0] == ('MAE', dict(mIoU=48.1), True)
    assert found[0]['differs'] == ['pretraining epochs: 800 here, 1600 published']
    ibot = next(e for e in found if e['method'] == 'iBOT')
    assert ibot['values'] == dict(mIoU=50.0, linear_mIoU=38.3) and not ibot['own']
    assert segmentation_rows(dict(method='EMAE', backbone='ViT-B/16'))[0]['own'] is False
    ours = matching_rows(dict(method='MAE', backbone='ViT-B/16', epochs=1600))
    assert not any('mIoU' in name for entry in ours for name in entry['values'])


def test_known_data():
    assert known_data(IMAGENET) == dict(train='IN-1k', test='IN-1k val', images=1281167)
    coco = {'train/annotations/i.json': dict(sha256='f' * 64), 'train/train2017': dict(files=118287, sha256='a' * 64),
            'val/val2017': dict(files=5000, sha256='b' * 64)}  # fmt: skip
    assert known_data(coco)['test'] == 'COCO val2017'
    fewer = dict(IMAGENET, train=dict(files=12811, sha256='a' * 64))
    assert known_data(fewer)['test'] == '50000 files (sha256 bbbbbbbb)', 'trained on a part: not the published protocol'
    assert known_data(None) == dict(train=None, test=None, images=None)
