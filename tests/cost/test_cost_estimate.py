"""Plans of stages and chains against sums worked out by hand, and the command itself."""

import json
import math
import subprocess
import sys

import pytest
from mmengine.config import Config
from processes import in_process

from mim_mm.compat.paths import configs_root, repo_root
from mim_mm.cost import GPUS, Assumptions, Conditions, estimate_stage, known_measurements, read_measurements, work_of
from mim_mm.cost.command import answer, arguments, scaled
from mim_mm.cost.display import table
from mim_mm.cost.estimate import schedule
from mim_mm.cost.measured import Measurement, find
from mim_mm.cost.published import PUBLISHED, TRAININGS, check, speedup

TINY = dict(
    model=dict(
        type='mim_mm.EMAE',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
            img_size=32,
            patch_size=8,
        ),
        masker=dict(type='ParallelMasking', num_parts=4),
        decoder=dict(type='MAEDecoder', embed_dims=24, depth=1, num_heads=2),
    ),
    train_dataloader=dict(batch_size=10, drop_last=True, dataset=dict(data_root='data/imagenet')),
    train_cfg=dict(by_epoch=True, max_epochs=8),
    optim_wrapper=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW')),
    auto_scale_lr=dict(base_batch_size=80),
    default_hooks=dict(checkpoint=dict(interval=4, max_keep_ckpts=3)),
)


BARE = Assumptions(host_ms=0)


def recipe(name):
    return Config.fromfile(str(configs_root() / name))._cfg_dict.to_dict()


def test_a_stage_by_hand():
    estimate = estimate_stage(
        's',
        TINY,
        Conditions(gpus=4, gpu='h100', mfu=dict(pretrain=0.5), images=dict(imagenet=1005), price=3, assumptions=BARE),
    )
    assert estimate.iterations == 8 * 25 and estimate.images == 8000  # 1005 images are 25 batches of 40 and a rest
    assert estimate.flops == estimate.images * estimate.work.train and estimate.evaluated == 0
    rate = 0.5 * 989e12 / estimate.work.train
    assert estimate.rate == pytest.approx(rate) and estimate.mfu == pytest.approx(0.5)
    assert estimate.hours == pytest.approx(8000 / (4 * rate) / 3600)
    assert estimate.gpu_hours == pytest.approx(4 * estimate.hours) and estimate.cost == pytest.approx(
        3 * estimate.gpu_hours
    )
    assert estimate.energy == pytest.approx(estimate.gpu_hours * 0.7 * 0.8 * 1.2)  # kW
    assert estimate.cores == pytest.approx(rate / 260)  # mmpretrain's pipeline
    assert estimate.checkpoints == 2 and estimate.disk == 2 * (
        4 * estimate.work.params + 8 * estimate.work.trainable
    )  # weights and two moments
    assert any('40' in note and '80' in note and '20 images a GPU' in note for note in estimate.notes)


def test_too_few_workers_are_named():
    conditions = Conditions(gpus=4, gpu='h100', mfu=dict(pretrain=0.5), images=dict(imagenet=1005), assumptions=BARE)
    wanted = estimate_stage('s', TINY, conditions).cores
    said = {}
    for workers in (0, int(wanted), math.ceil(wanted)):
        loader = dict(TINY['train_dataloader'], num_workers=workers)
        notes = estimate_stage('s', dict(TINY, train_dataloader=loader), conditions).notes
        said[workers] = [note for note in notes if 'num_workers' in note]
    assert said[math.ceil(wanted)] == [] and len(said[int(wanted)]) == 1
    assert 'num_workers=0 read about 260 images/s' in said[0][0]
    assert f'train_dataloader.num_workers={math.ceil(wanted)} ' in said[0][0]


def test_evaluations_count():
    cfg = dict(TINY, train_cfg=dict(max_epochs=9, val_interval=2), val_dataloader={})
    conditions = Conditions(images=dict(imagenet=1000), assumptions=BARE)
    assert schedule(cfg, 'finetune', 100, conditions.images) == (90, 9000, 9, 4 * 50000)
    assert schedule(cfg, 'probe', 100, conditions.images)[3] == 8 * 50000
    assert schedule(dict(TINY, train_cfg=dict(max_iters=7)), 'pretrain', 100, {})[:2] == (7, 700)
    without, with_them = (estimate_stage('s', c, conditions) for c in (dict(cfg, val_dataloader=None), cfg))
    seconds = 200000 * with_them.work.forward / (0.4 * 989e12)
    assert with_them.hours - without.hours == pytest.approx(seconds / 3600)


def test_precision_decides_the_peak():
    conditions = Conditions(mfu=dict(pretrain=0.5), assumptions=BARE)
    estimate = estimate_stage('s', dict(TINY, optim_wrapper=dict(type='OptimWrapper')), conditions)
    assert estimate.rate == pytest.approx(0.5 * 67e12 / estimate.work.train)
    assert estimate.work.saved > 1.3 * estimate_stage('s', TINY, Conditions()).work.saved and 'fp32' in ' '.join(
        estimate.notes
    )


@pytest.mark.parametrize('name, rate', [
    ('mae/mae_vitb_800e.py', 520), ('linear/vitb_linear_90e.py', 520), ('finetune/vitb_finetune_100e.py', 310),
    ('beit/beit_vitb_300e.py', 120),
])  # fmt: skip
def test_images_of_a_core_follow_the_pipeline(name, rate):
    assert estimate_stage('s', recipe(name), Conditions()).loader == rate
    assert estimate_stage('s', recipe(name), Conditions(loader=dict(pretrain=7, linear=7, finetune=7))).loader == 7


@pytest.mark.parametrize('name, views', [
    ('cmae/cmae_vitb_300e.py', 1), ('ibot/ibot_vitb_400e.py', 2 + 10 * (96 / 224) ** 2),
    ('dino/dino_vits_800e.py', 2 + 10 * (96 / 224) ** 2),
])  # fmt: skip
def test_views_with_colours_cost_the_loader_what_was_measured(name, views):
    assert estimate_stage('s', recipe(name), Conditions()).loader == pytest.approx(1 / (1 / 520 + 8.3e-3 * views))


def test_few_cores_limit_the_rate():
    estimate = estimate_stage('s', TINY, Conditions(assumptions=Assumptions(cores=3), loader=dict(pretrain=50)))
    assert estimate.rate == 150 and '3 cores' in estimate.basis


def test_no_step_is_faster_than_the_host():
    estimate = estimate_stage('s', TINY, Conditions(assumptions=Assumptions(host_ms=4)))
    assert estimate.rate == pytest.approx(10 / 0.004) and '4 ms' in estimate.basis  # batches of 10


def test_more_nodes_are_less_efficient():
    estimates = [
        estimate_stage('s', recipe('mae/mae_vitl_800e.py'), Conditions(gpus=n, gpu='a100-80')) for n in (8, 64, 512)
    ]
    assert estimates[0].efficiency == 1 > estimates[1].efficiency > estimates[2].efficiency > 0.8


def test_measurements(tmp_path):
    work = work_of(TINY)
    entry = dict(gpu='H100', gpus=2, model=work.model, images_per_second=1234.5, mfu=0.1, source='here')
    (tmp_path / 'a.json').write_text(
        json.dumps(dict(measurements=[entry, dict(entry, gpu='v100', images_per_second=9)]))
    )
    (tmp_path / 'other.json').write_text('[1, 2]')
    found = known_measurements(tmp_path)
    assert [m.images_per_second for m in found] == [1234.5, 9.0]
    estimate = estimate_stage('s', TINY, Conditions(gpus=2, measurements=found))
    assert estimate.rate == 1234.5 and 'measured on 2' in estimate.basis
    assert 'assumed' in estimate_stage('s', TINY, Conditions(gpu='a100-40', measurements=found)).basis
    several = [
        Measurement('h100', 1.0, 'm', gpus=8),
        Measurement('h100', 2.0, 'm', gpus=1),
        Measurement('h100', 3.0, 'm'),
    ]
    assert find(several, 'h100', 'm', '', 6).images_per_second == 1.0
    assert find(several, 'h100', 'm', '', 1).images_per_second == 3.0  # the last of equals
    by_file = [Measurement('h100', 5.0, config='emae/a.py')]
    assert find(by_file, 'h100', 'x', '/somewhere/configs/emae/a.py', 1) and not find(
        by_file, 'h100', 'x', 'emae/b.py', 1
    )


@pytest.mark.parametrize('text, named', [
    ('{', 'JSON'), ('[]', 'measurements'), ('{"measurements": [{"gpu": "h100"}]}', 'entry 0'),
    ('{"measurements": [{"gpu": "h100", "model": "m", "images_per_second": 0}]}', 'images_per_second'),
    ('{"measurements": [{"gpu": "h100", "model": "m", "images_per_second": 1, "gpus": 1.5}]}', 'gpus'),
])  # fmt: skip
def test_files_that_are_no_measurements(tmp_path, text, named):
    (tmp_path / 'm.json').write_text(text)
    with pytest.raises(ValueError, match=named):
        read_measurements(tmp_path / 'm.json')


@pytest.mark.parametrize('options, named', [
    (dict(gpus=0), 'gpus'), (dict(mfu=dict(pretrain=1.2)), 'at most 1'), (dict(mfu=dict(preetrain=0.2)), 'preetrain'),
    (dict(loader=dict(coco=0)), 'coco'), (dict(pue=0.5), 'pue'), (dict(images=dict(coco=-1)), 'images'),
])  # fmt: skip
def test_settings_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        Conditions(**options)


def test_unknown_gpu_lists_the_known():
    with pytest.raises(ValueError, match='h100.*rtx4090'):
        estimate_stage('s', TINY, Conditions(gpu='h10'))
    assert all(g.bf16 > g.fp32 and g.memory > 1e10 and g.power > 50 for g in GPUS.values())


def test_speedup_table():
    """EMAE of ViT-L: four encoders of 50 tokens over one, two decoders' worth; the published side is the slides'."""
    rows = {row.method: row for row in speedup(recipe('emae/emae_vitl_800e.py'), Conditions(gpus=64, gpu='a100-80'))}
    assert rows['EMAE'].encoder == pytest.approx(4) and rows['EMAE'].flops == pytest.approx(495.4 / 124.5, rel=0.01)
    # supervised: 197 tokens through 24 blocks, over 50 tokens: linears 197/50, attention its square
    linears, attention = 24 * 1024**2, 4 * 1024
    ratio = (197 * linears + 197**2 * attention) / (50 * linears + 50**2 * attention)
    assert rows['Supervised'].encoder == pytest.approx(ratio)
    assert rows['EMAE'].speedup == pytest.approx(8 / rows['EMAE'].flops, rel=0.01)
    assert rows['MAE'].hours == pytest.approx(rows['EMAE'].hours * rows['EMAE'].speedup)
    assert [(r.method, r.hours, r.speedup) for r in PUBLISHED] == [
        ('MAE', 180.76, 1), ('Supervised', 23.83, 7.58), ('EMAE', 23.75, 7.61)]  # fmt: skip
    for row in PUBLISHED:
        assert PUBLISHED[0].hours / row.hours == pytest.approx(row.speedup, abs=0.01)
    with pytest.raises(ValueError, match='EMAE on a ViT'):
        speedup(recipe('mae/mae_vitb_800e.py'), Conditions())


def test_published_trainings():
    large, base = (check(training) for training in TRAININGS)
    assert large['rate'] == pytest.approx(1281167 * 800 / (42 * 3600 * 64)) and large['rate'] == pytest.approx(
        106, abs=0.5
    )
    assert large['mfu'] == pytest.approx(106 * 124.5e9 / 125e12, rel=0.01)  # 11 %
    assert base['rate'] == pytest.approx(1977, abs=1) and base['mfu'] == pytest.approx(0.37, abs=0.005)
    assert base['predicted'] == pytest.approx(18 * base['mfu'] / 0.4, rel=0.01)  # one node: the MFU is all there is


def run(*words):
    return answer(
        [('one', TINY, 'configs/a.py', None), ('two', TINY, 'configs/b.py', 2)], arguments('').parse_args(words)
    )


def test_the_answer_holds_what_was_asked(tmp_path):
    picture = tmp_path / 'curve.png'
    text = run('config', '--price', '2', '--slides', '--scaling', 'two', '--checks', '--png', str(picture))
    assert picture.stat().st_size > 1000
    for word in ('together', 'Supervised', '180.76', 'Scaling of two', 'sigma=0.02', 'DailyMAE', 'cost'):
        assert word in text, word
    content = json.loads(run('config', '--json', '--scaling', '--weak', '--gpus', '8'))
    assert [(s['name'], s['gpus']) for s in content['stages']] == [('one', 8), ('two', 2)]
    assert [s['gpus'] for s in content['scaling']] == [8, 16, 32, 64, 128, 256, 512, 1024]
    total = sum(p['forward'] * (1 + p['backward']) for p in content['stages'][0]['model']['parts'])
    assert total == pytest.approx(content['stages'][0]['model']['train_flops'])
    assert 'one: ' not in run('config', '--only', 'two')


@pytest.mark.parametrize('words, named', [
    (['--only', 'three'], 'one, two'), (['--only', 'one', '--scaling', 'two'], 'no stage'),
    (['--mfu', 'coco'], 'NAME=NUMBER'),
    (['--sigma', '-1'], 'sigma'), (['--gpu', 'x'], 'known are'), (['--measured', '/nowhere.json'], 'nowhere'),
])  # fmt: skip
def test_requests_that_cannot_be(words, named):
    with pytest.raises(ValueError, match=named):
        run('config', *words)


def test_the_curve_starts_at_the_plan():
    cfg, conditions = recipe('mae/mae_vitl_800e.py'), Conditions(gpus=8)
    estimate = estimate_stage('s', cfg, conditions)
    first = scaled(estimate, cfg, conditions, weak=False)[0]
    assert (first.gpus, first.batch) == (8, 512)
    assert first.images_per_second == pytest.approx(8 * estimate.rate, rel=0.005)


def test_a_stage_without_a_cost_model_leaves_the_others():
    odd = dict(TINY, model=dict(type='YOLO', backbone={}))
    text = answer([('one', TINY, '', None), ('odd', odd, '', None)], arguments('').parse_args(['config']))
    assert 'one: EMAE' in text and 'Left out: odd: model YOLO' in text
    with pytest.raises(ValueError, match='YOLO'):
        answer([('odd', odd, '', None)], arguments('').parse_args(['config']))


def test_columns():
    assert table(['a', 'bb'], [['ccc', 1]]) == 'a    bb\n-------\nccc   1'


def test_the_tool_reads_chains_and_recipes():
    def tool(*words):
        command = [sys.executable, str(repo_root() / 'tools/plan.py'), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=repo_root())

    done = tool('configs/chains/emae_vitb_800e.py', '--gpus', '8', '--json')
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)['stages']
    assert [s['name'] for s in stages] == ['pretrain', 'probe', 'linear', 'finetune', 'coco']
    assert stages[0]['iterations'] == 800 * (1281167 // 2048)  # of which two make a step
    assert stages[4]['iterations'] == 184375
    wrong = in_process('plan.py', 'configs/_base_/default_runtime.py')
    assert wrong.returncode == 1 and wrong.stderr.strip().splitlines()[-1].startswith('error:')
