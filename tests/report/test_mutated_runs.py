"""Damaged files of a chain: the page is written, says which file is damaged, and shows the rest."""

import base64
import hashlib
import html
import json
import lzma
import os
import random
import re
from urllib.parse import unquote

import pytest
from chain_factory import write_class_results, write_demo_chain, write_run
from mutated import damage, mutate

from mim_mm.report.packed import pack
from mim_mm.report.page import write_report

TRIALS = int(os.environ.get('TRIALS') or 12)


def write_all(folder):
    """A chain of every kind of run, with everything that the page reads."""
    write_demo_chain(folder)
    pretrain = folder / 'pretrain'
    row = dict(iter=10, epoch=1, knn_top1=40.5, probe_top1=50.5, protocol='p', images=dict(train=9, test=3), classes=10)
    (pretrain / 'quality.jsonl').write_text(''.join(json.dumps(dict(row, iter=i)) + '\n' for i in (10, 20)))
    metrics = {'accuracy/top1': 70.5, 'probe/num_heads': 3, 'probe/best_head': 'b1', 'probe/held_out_top1': 69.0}
    probe = write_run(folder, 'probe', 'probe', arm='emae', metrics=metrics, artifacts={'knn': 'knn.json'})
    knn = dict(accuracy=dict(cls={'20': dict(top1=40.0)}, mean={'20': dict(top1=44.5)}))
    (probe / 'knn.json').write_text(json.dumps(knn))
    config = dict(
        model=dict(type='mim_mm.EMAE', backbone=dict(type='mmpretrain.VisionTransformer', arch='base', img_size=224),
                   masker=dict(type='ParallelMasking', num_parts=4), decoder=dict(depth=8)),
        train_cfg=dict(max_epochs=300), train_dataloader=dict(batch_size=64), optim_wrapper=dict(accumulative_counts=1),
        custom_hooks=[dict(type='ConsistencyRampHook')],
    )  # fmt: skip
    (pretrain / 'identity.json').write_text(json.dumps(dict(config=config)))
    write_class_results(folder, 'finetune_emae', 'coco_emae')
    chain = json.loads((folder / 'chain.json').read_text())
    chain['stages'].append(dict(name='probe', kind='probe', arm='emae', seed=0))
    chain['orderings'] = [dict(claim='emae first', better='emae', worse='scratch', part='Masks', figures=['linear'])]
    (folder / 'chain.json').write_text(json.dumps(chain))
    raw = json.loads((pretrain / 'run.json').read_text())
    raw.update(gpus=8, code=dict(mine=dict(file='mine.py', sha256='e' * 64)), progress=dict(iter=5, max_iters=9),
               data={'train/x': dict(files=1281167, sha256='f' * 64), 'val/x': dict(files=50000, sha256='a' * 64)},
               artifact_errors=dict(detections='no'), seeds=dict(seed=0))  # fmt: skip
    (pretrain / 'run.json').write_text(json.dumps(raw))
    return folder


def compare_file():
    arms = dict(
        emae=dict(stage='pretrain', path='/x/configs/emae/a.py', source='config', sha256='a' * 64, seeds=[0],
                  pretraining=dict(method='EMAE', mask_variant='parallel K=4', views=4, epochs=300, batch_per_device=64,
                                   changes=['x']), encoder=dict(name='ViT-B/16', parameters=86000000, img_size=224)),
        scratch=dict(stage=None, seeds=[0]),
    )  # fmt: skip
    recipe = dict(kind='linear', seeds=[0, 1, 2], config='/x/configs/linear/a.py', options={'a': 1},
                  stages=dict(emae='linear_emae', scratch='linear_scratch'),
                  facts=dict(resolution=224, head='cls + BN', epochs=90, batch_per_device=512,
                             encoder='ViT-B/16'))  # fmt: skip
    allowed = [dict(recipe='linear', arm='scratch', against='emae', differences=['lr'])]
    return dict(schema=1, arms=arms, recipes=dict(linear=recipe), allowed=allowed)


FILES = ('pretrain/run.json', 'linear_emae-s1/run.json', 'coco_emae/run.json', 'probe/run.json', 'chain.json',
         'compare.json', 'probe/knn.json', 'pretrain/vis_data/scalars.json', 'pretrain/quality.jsonl',
         'pretrain/identity.json', 'finetune_emae/confusion.json', 'coco_emae/per_class.json')  # fmt: skip


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp('chain'))


@pytest.fixture
def undrawn(monkeypatch):
    """No file is drawn: matplotlib takes most of the time. Everything before and the calls of it run."""
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda self, path, **options: path.write_bytes(b'png'))


@pytest.mark.parametrize('name', FILES)
def test_a_damaged_file_never_keeps_the_page_from_being_written(chain, undrawn, name):
    comparing = name == 'compare.json'
    extra = {chain / 'compare.json': json.dumps(compare_file()).encode()} if comparing else {}
    for path, data in extra.items():
        path.write_bytes(data)
    path = chain / name
    whole = path.read_bytes()
    try:
        for trial in range(TRIALS):
            rng = random.Random(f'{name} {trial}')
            if rng.random() < 0.2:
                data = damage(whole, rng)
            elif name.endswith('scalars.json') or name.endswith('.jsonl'):
                lines = whole.decode().splitlines()
                at = rng.randrange(len(lines) - 1)
                lines[at] = json.dumps(mutate(json.loads(lines[at]), rng))
                data = '\n'.join(lines).encode()
            else:
                data = json.dumps(mutate(json.loads(whole), rng)).encode()
            path.write_bytes(data)
            try:
                page, markdown = write_report(chain)
            except Exception as error:
                raise AssertionError(f'trial {trial} of {name}: {data[:3000]!r}') from error
            for text in (page.read_text(), markdown.read_text()):
                assert 'coco\\_scratch' in text or 'coco_scratch' in text or name == 'chain.json', trial
    finally:
        path.write_bytes(whole)
        for path in extra:
            path.unlink()


# file, place in it, wrong value -> what the page says of it
SAID = [
    ('coco_emae/run.json', ('arm',), 1.5, 'run.json is damaged: arm must be text or null, it is 1.5'),
    ('coco_emae/run.json', ('config', 'options'), 3, 'config.options must be an object or null, it is 3'),
    ('coco_emae/run.json', ('metrics',), [1], 'metrics must be an object or null, it is [1]'),
    ('coco_emae/run.json', ('wall_s',), 10**400, 'passed over: wall_s must be a finite number or null, it is 1000'),
    ('coco_emae/run.json', ('artifacts',), {'x': 7}, 'passed over: artifacts.x must be text or null, it is 7'),
    ('chain.json', ('arms',), 5, 'chain.json is damaged, and what is wrong in it is passed over: arms must be a list'),
    ('chain.json', ('stages', 1), {'name': '../out'}, "stage 2: the name '../out' is no name of a folder"),
    ('chain.json', ('stages', 0, 'seeds'), 'x', "stage 1: seeds must be a list or null, it is 'x'"),
    (
        'compare.json',
        ('arms', 'emae', 'pretraining'),
        'x',
        "arms.emae.pretraining must be an object or null, it is 'x'",
    ),
    ('compare.json', ('recipes', 'linear', 'stages'), 4, 'recipes.linear.stages must be an object or null, it is 4'),
    ('pretrain/identity.json', ('config', 'model', 'backbone'), 'x', 'identity.json) is damaged'),
    ('finetune_emae/confusion.json', ('counts', 0, 1), -1, 'counts must be 3 rows of as many whole numbers from 0'),
    (
        'finetune_emae/confusion.json',
        ('counts', 2),
        [1],
        'confusion.json is damaged and left out: counts must be 3 rows',
    ),
    ('finetune_emae/confusion.json', ('classes',), 'abc', 'classes must be a list of 1 to 5000 names'),
    ('finetune_emae/confusion.json', ('training_images',), [1.5, 2, 3], 'training_images must be 3 whole numbers'),
    (
        'finetune_emae/confusion.json',
        ('counts', 0, 0),
        1,
        'its figure over all classes is 94.39, that of run.json 97.00',
    ),
    ('coco_emae/per_class.json', ('classes', 0, 'bbox', 'AP'), 60, 'AP and AP50 must be 0 to 1 or null'),
    ('coco_emae/per_class.json', ('classes', 0, 'boxes'), 0, 'bbox must be an object with an AP where there are boxes'),
    ('coco_emae/per_class.json', ('classes', 1, 'segm'), 7, 'segm must be an object with an AP where there are boxes'),
    ('coco_emae/per_class.json', ('classes', 1, 'bbox', 'AP'), 0.9, 'that of run.json 60.00'),
]


@pytest.mark.parametrize('name, place, value, said', SAID)
def test_the_page_says_what_is_damaged_and_keeps_the_rest(tmp_path, undrawn, name, place, value, said):
    chain = write_all(tmp_path)
    if name == 'compare.json':
        (chain / name).write_text(json.dumps(compare_file()))
    content = json.loads((chain / name).read_text())
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (chain / name).write_text(json.dumps(content))
    page, markdown = write_report(chain)
    text = html.unescape(page.read_text())
    assert said in text and said in html.unescape(markdown.read_text())
    assert '95.5' in text, 'the fine-tuning from scratch'


def test_nothing_outside_of_the_work_dir_is_embedded(tmp_path):
    chain = write_all(tmp_path / 'chain')
    secret = tmp_path / 'secret.png'
    secret.write_bytes(b'\x89PNG secret')
    (tmp_path / 'knn.json').write_text(json.dumps(dict(accuracy=dict(mean={'20': dict(top1=99.9)}))))
    (chain / 'probe' / 'link.png').symlink_to(secret)
    raw = json.loads((chain / 'probe' / 'run.json').read_text())
    raw['artifacts'] = dict(up='../../secret.png', absolute=str(secret), link='link.png', knn='../../knn.json')
    raw['scalars'] = '../../secret.png'
    (chain / 'probe' / 'run.json').write_text(json.dumps(raw))
    page, markdown = write_report(chain)
    assert base64.b64encode(secret.read_bytes()).decode() not in page.read_text()
    assert 'secret.png' not in ''.join(re.findall(r'!\[.*', markdown.read_text())) and '99.9' not in page.read_text()
    assert html.unescape(page.read_text()).count('outside of the work dir: not read') == 5
    packed = pack(chain, tmp_path / 'x.json.xz')
    assert not any('..' in name for name in json.loads(lzma.decompress(packed.read_bytes()))['files'])


NASTY = '<script>alert(1)</script> [x](javascript:y) ![z](http://t/z.png) a|b &lt; `<i>` ``'


def test_names_are_names_in_both_pages(tmp_path):
    chain = write_all(tmp_path)
    raw = json.loads((chain / 'coco_emae' / 'run.json').read_text())
    raw.update(arm=NASTY, device=NASTY, error=NASTY, status='failed', artifact_errors={NASTY: NASTY})
    raw['config']['path'] = NASTY
    (chain / 'coco_emae' / 'run.json').write_text(json.dumps(raw))
    content = json.loads((chain / 'chain.json').read_text())
    content.update(name=NASTY, orderings=[dict(claim=NASTY, better=NASTY, worse='emae', part=NASTY)])
    (chain / 'chain.json').write_text(json.dumps(content))
    page, markdown = (path.read_text() for path in write_report(chain))
    assert page.count('<script') == page.count('</script') == 1 and '<i>' not in page
    links = re.findall(r'href="([^"]*)"', page)  # parts of the page, and files of the runs
    assert links and all(link[0] == '#' or (chain / unquote(link)).is_file() for link in links)
    digest = re.search(r"script-src 'sha256-([^']+)'", page)[1]
    script = re.search(r'<script>(.*)</script>', page, re.S)[1]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == digest
    for line in markdown.splitlines():
        if not line.startswith('    '):  # what is indented is shown as it is
            assert '<script' not in line and '<i>' not in line, line
            assert '](javascript' not in line and '](http' not in line, line


def test_a_config_that_run_json_names_is_not_run(tmp_path):
    chain = write_all(tmp_path / 'chain')
    (chain / 'pretrain' / 'identity.json').unlink()
    evil = tmp_path / 'evil.py'
    evil.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nmodel = dict(type='MAE')\n")
    raw = json.loads((chain / 'pretrain' / 'run.json').read_text())
    raw['config']['path'] = str(evil)
    (chain / 'pretrain' / 'run.json').write_text(json.dumps(raw))
    write_report(chain)
    assert not (tmp_path / 'ran').exists()
