"""Comparisons: the chain that is written, what is refused, and what is known of encoders and protocols."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from workplace import STAND_IN

from mim_mm.report.published import protocol_differences
from mim_mm.transfer import Call, ChainError, load_chain, run_chain
from mim_mm.transfer.compare.compare_facts import downstream, encoder, encoder_of_file, of_checkpoint, pretraining
from mim_mm.transfer.compare.comparison import CHAIN_FILE, chain_text, parse_arm, parse_seeds, read_recipes
from mim_mm.transfer.display import Display
from mim_mm.transfer.launch import Scripts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipes(place):
    """The stand-in's chain, as recipes: a probe and a detector, of one seed each."""
    place.write(pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'), coco=place.stage('coco'))
    return place


def arms(place, *names):
    for name in names:
        place.config(name, load=False, lr=len(name))
    return [str(place.folder / f'{name}.py') for name in names]


def compare(place, given, seeds=(), **options):
    call = Call(compare=given, recipes=str(place.chain), seeds=seeds, work_dir=str(place.work), gpus=0, **options)
    said = Display(open(place.folder / 'said.txt', 'w'))
    code = run_chain(call, said, Scripts(STAND_IN, STAND_IN))
    return code, (place.folder / 'said.txt').read_text()


def written(place, given):
    """The chain of a comparison with one seed, not run."""
    text = chain_text('c', [parse_arm(arm) for arm in given], read_recipes(str(place.chain)), dict(linear=1, coco=1))
    place.work.mkdir(exist_ok=True)
    (place.work / CHAIN_FILE).write_text(text)


# ---- the chain that is written


def test_every_arm_and_scratch_run_the_same_recipes_and_seeds(recipes):
    code, _ = compare(recipes, arms(recipes, 'one', 'two'), seeds=['2'])
    assert code == 0
    chain = load_chain(recipes.work / CHAIN_FILE)
    assert chain.work_dir == recipes.work, 'the file runs from where it lies'
    made = {(s.base, s.seed, s.init) for s in chain.stages if s.kind not in ('pretrain', 'report')}
    assert made == {
        (f'{recipe}_{arm}', seed, None if arm == 'scratch' else f'pretrain_{arm}')
        for arm in ('one', 'two', 'scratch')
        for recipe, seeds in (('linear', (0, 1)), ('coco', (0,)))
        for seed in seeds
    }
    content = json.loads((recipes.work / 'compare.json').read_text())
    assert list(content['arms']) == ['one', 'two', 'scratch'] and content['allowed'] == []
    assert content['recipes']['linear']['seeds'] == [0, 1] and content['recipes']['coco']['seeds'] == [0]
    shas = {s.base: recipes.record(s.name)['config']['sha256'] for s in chain.stages if s.base.startswith('coco')}
    assert len(set(shas.values())) == 1, 'one recipe hash for all arms'


def test_calling_again_skips_and_a_third_arm_only_adds(recipes):
    one, two, three = arms(recipes, 'one', 'two', 'three')
    compare(recipes, [one, two], seeds=['2'])
    done = {p: p.stat().st_mtime_ns for p in recipes.work.glob('*_*/run.json')}
    code, said = compare(recipes, [one, two, three], seeds=['2'])
    assert code == 0 and {p: p.stat().st_mtime_ns for p in done} == done
    assert json.loads((recipes.work / 'compare.json').read_text())['arms'].keys() == {'one', 'two', 'three', 'scratch'}


def test_seeds():
    kinds = {'linear', 'probe', 'coco'}
    assert parse_seeds([], kinds) == dict(linear=3, probe=3, coco=0)
    assert parse_seeds(['5', 'coco=2'], kinds) == dict(linear=5, probe=5, coco=2)
    for wrong in ('0', 'x', 'finetune=3', '=3', '-1'):
        with pytest.raises(ChainError, match='--seeds'):
            parse_seeds([wrong], kinds)


def test_more_seeds_of_the_chain_are_kept(recipes):
    recipes.write(linear=recipes.stage('linear', init=None, seeds=[7, 3]))
    settings = read_recipes(str(recipes.chain))
    recipes.work.mkdir()
    (recipes.work / CHAIN_FILE).write_text(chain_text('c', [], settings, parse_seeds([], {'linear'})))
    bases = [s for s in load_chain(recipes.work / CHAIN_FILE).stages if s.base == 'linear_scratch']
    assert [s.seed for s in bases] == [7, 3, 0], 'filled up to the default of three'


def test_recipes_of_the_demo_are_four_although_it_has_two_arms():
    found = read_recipes('configs/chains/demo.py')
    assert {name: stage['kind'] for name, stage in found.items()} == dict(
        coco='coco', finetune='finetune', linear='linear', probe='probe'
    )
    assert all('init' not in stage and 'arm' not in stage for stage in found.values())
    assert found['coco']['artifacts'][0]['name'] == 'detections'


def test_dry_run_writes_nothing(recipes):
    given = arms(recipes, 'one')
    before = [f for f in recipes.files() if f != 'said.txt']
    code, said = compare(recipes, given, dry_run=True)
    assert code == 0 and 'linear_scratch-s2' in said and 'pretrain_one' in said
    assert [f for f in recipes.files() if f != 'said.txt'] == before


def test_an_edited_chain_is_kept(recipes):
    given = arms(recipes, 'one')
    written(recipes, given)
    path = recipes.work / CHAIN_FILE
    path.write_text(path.read_text().replace('seeds=[0]', 'seeds=[4]'))
    edited = path.read_text()
    with pytest.raises(ChainError, match='was edited'):
        compare(recipes, given, seeds=['1'])
    assert path.read_text() == edited


# ---- what is refused


@pytest.mark.parametrize(
    'text, said',
    [
        ('nowhere.py', "'nowhere.py' is not a file"),
        ('emae', 'an arm is a pretraining config'),
        ('epoch_3.pth', 'an arm is a pretraining config'),
        ('mae=gone.pth', 'gone.pth does not exist'),
        ('scratch=configs/demo/pretrain_emae.py', 'always there'),
        ('a.b=configs/demo/pretrain_emae.py', 'becomes a folder'),
    ],
)
def test_arms_that_are_none(text, said):
    with pytest.raises(ChainError, match=re.escape(said)):
        parse_arm(text)


def test_two_arms_of_a_name(recipes):
    with pytest.raises(ChainError, match="two arms are called 'one'"):
        compare(recipes, arms(recipes, 'one') * 2)


def edited(place, old, new):
    """The written chain with a change, run as an ordinary chain."""
    path = place.work / CHAIN_FILE
    assert old in path.read_text()
    place.chain = place.folder / 'edited.py'
    place.chain.write_text(path.read_text().replace(old, new))
    return place.run()


def stage_of(place, name):
    text = (place.work / CHAIN_FILE).read_text()
    return next(line for line in text.splitlines() if line.startswith(f"    '{name}'"))


def test_arms_trained_differently_are_refused_unless_the_page_says_so(recipes):
    written(recipes, arms(recipes, 'one'))
    line = stage_of(recipes, 'linear_one')
    other = line.replace("kind='linear'", "kind='linear', options={'lr': 0.2}")
    with pytest.raises(ChainError, match=r"one and scratch are trained differently \(lr: 0.2 -> 0.1\).*add 'lr' to"):
        edited(recipes, line, other)
    path = recipes.work / CHAIN_FILE
    path.write_text(path.read_text().replace(line, other))
    code, _ = edited(recipes, 'allow=[]', "allow=['lr']")
    allowed = json.loads((recipes.work / 'compare.json').read_text())['allowed']
    assert code == 0
    assert allowed == [dict(recipe='linear', arm='scratch', against='one', differences=['lr: 0.2 -> 0.1'])]


@pytest.mark.parametrize(
    'stage, old, new, said',
    [
        ('linear_one', 'seeds=[0]', 'seeds=[0, 1]', 'has seeds'),
        ('linear_one', "kind='linear'", "kind='linear', gpus=2", 'gpus or launcher'),
        ('linear_scratch', 'init=None', "init='pretrain_one'", 'starts from random weights'),
        ('linear_one', "init='pretrain_one'", 'init=None', 'needs init=STAGE'),
        ('linear_one', "arm='one'", "arm='won'", "must be 'one'"),
        ('linear_scratch', "kind='linear'", "kind='linear', options={'load_from': 'x.pth'}", 'loads x.pth by itself'),
        ('linear_scratch', "kind='linear'", "kind='linear', options={'init': 'y.pth'}", 'loads y.pth by itself'),
        (
            'linear_scratch',
            "kind='linear'",
            "kind='linear', options={'custom_hooks.0.checkpoint': 'y.pth'}",
            'loads y.pth by itself',
        ),
    ],
)
def test_unequal_arms_of_an_edited_chain(recipes, stage, old, new, said):
    recipes.config('linear', load_from=None)
    written(recipes, arms(recipes, 'one'))
    line = stage_of(recipes, stage)
    with pytest.raises(ChainError, match=said):
        edited(recipes, line, line.replace(old, new))
    assert not list(recipes.work.rglob('run.json')), 'nothing was started'


@pytest.mark.parametrize('keys', ["kind='linear', init=None", "kind='pretrain', config='one.py'"])
def test_a_checkpoint_is_a_pretraining_stage_without_config(recipes, keys):
    recipes.chain.write_text(f"stages = dict(given=dict({keys}, checkpoint='one.pth'))\n")
    with pytest.raises(ChainError, match='checkpoint= names the weights of a pretrain stage that takes no config'):
        load_chain(recipes.chain)


def test_a_comparison_without_scratch_is_refused(recipes):
    written(recipes, arms(recipes, 'one'))
    with pytest.raises(ChainError, match="lacks 'scratch'"):
        edited(recipes, "arms=['one', 'scratch']", "arms=['one']")
    with pytest.raises(ChainError, match="arm 'scratch' has no stage 'linear_scratch'"):
        edited(recipes, stage_of(recipes, 'linear_scratch'), '')


# ---- encoders and protocols


def vit(heads=2, width=32, layers=3, size=32):
    arch = dict(embed_dims=width, num_layers=layers, num_heads=heads, feedforward_channels=64)
    return dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=size, patch_size=8)


def test_encoder_facts_are_those_of_the_module_and_of_its_file(tmp_path):
    config = Config(dict(model=dict(type='EMAE', backbone=vit()), default_scope='mim_mm'))
    found = encoder(config)
    # patch 8*8*3*32 + 32; class token 32; 16 + 1 positions; a block: norms 4*32, qkv, proj, ffn; last norm
    block = 4 * 32 + 32 * 96 + 96 + 32 * 32 + 32 + 32 * 64 + 64 + 64 * 32 + 32
    assert found['parameters'] == 8 * 8 * 3 * 32 + 32 + 32 + 17 * 32 + 3 * block + 2 * 32
    assert (found['width'], found['depth'], found['heads'], found['patch_size'], found['img_size']) == (32, 3, 2, 8, 32)
    from mmpretrain.registry import MODELS

    state = MODELS.build(vit()).state_dict()
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in state.items()}), tmp_path / 'a.pth')
    timm = {key.replace('layers.', 'blocks.').replace('projection', 'proj'): value for key, value in state.items()}
    torch.save(dict(model=dict(timm, decoder_pos_embed=torch.zeros(1, 17, 8))), tmp_path / 'b.pth')
    for name in ('a.pth', 'b.pth'):
        of_file = encoder_of_file(tmp_path / name)
        same = ('width', 'depth', 'patch_size', 'img_size', 'parameters')
        assert [of_file[key] for key in same] == [found[key] for key in same], name
        assert of_checkpoint(tmp_path / name)['pretraining'] == {}, 'a file alone does not say how it was made'


@pytest.mark.parametrize(
    'path, name',
    [
        ('configs/emae/emae_vits_300e.py', 'ViT-S/16'),
        ('configs/mae/mae_vitb_300e.py', 'ViT-B/16'),
        ('configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', 'ViT-B/16'),
        ('configs/linear/vith_linear_50e.py', 'ViT-H/14'),
    ],
)
def test_published_sizes_have_their_names(path, name):
    assert encoder(Config.fromfile(f'{ROOT}/{path}'))['name'] == name


def test_views_and_masks_of_the_recipes():
    def said(path):
        facts = pretraining(Config.fromfile(f'{ROOT}/{path}'))
        return facts['method'], facts['mask_variant'], facts['views'], facts['epochs']

    assert said('configs/emae/emae_vitb_300e_k7.py') == ('EMAE', 'parallel K=7', 7, 300)
    assert said('configs/mae/mae_vitb_1600e.py') == ('MAE', 'random r=3/4', 1, 1600)
    assert said('configs/sbam/sbam_mae_vitb_400e.py')[0] == 'MAE + SBAM'
    assert said('configs/evidence/pretrain_emae_complementary.py')[1:3] == ('complementary', 2)
    own = Config(dict(model=dict(type='MAE', masker=dict(type='OfAnotherProcess', num_parts=3))))
    assert (pretraining(own)['mask_variant'], pretraining(own)['views']) == ('of another process', 3)


def test_a_checkpoint_of_a_run_of_ours_is_as_old_as_its_name_says(tmp_path):
    state = {f'backbone.{key}': value for key, value in encoder_state().items()}
    torch.save(dict(state_dict=state), tmp_path / 'epoch_100.pth')
    Config.fromfile(f'{ROOT}/configs/emae/emae_vitb_300e.py').dump(str(tmp_path / 'emae_vitb_300e.py'))
    facts = of_checkpoint(tmp_path / 'epoch_100.pth')['pretraining']
    assert (facts['method'], facts['epochs'], facts['views']) == ('EMAE', 100, 4)


def encoder_state():
    from mmpretrain.registry import MODELS

    return MODELS.build(vit()).state_dict()


@pytest.mark.parametrize('change, said', [(dict(heads=4), 'heads of arm'), (dict(layers=4), 'depth of arm')])
def test_encoders_that_do_not_fit_are_refused_before_anything_runs(recipes, change, said):
    recipes.config('linear', model=dict(backbone=vit()))
    recipes.config('coco', model=dict(backbone=vit()))
    recipes.config('one', load=False, model=dict(type='EMAE', backbone=vit(**change)))
    with pytest.raises(ChainError, match=said):
        compare(recipes, [str(recipes.folder / 'one.py')])
    recipes.config('one', load=False, model=dict(type='EMAE', backbone=vit(size=64)))  # resized when loaded
    assert compare(recipes, [str(recipes.folder / 'one.py')], dry_run=True)[0] == 0


def test_a_given_checkpoint_never_trains_and_its_content_counts(recipes):
    path = recipes.folder / 'released.pth'
    torch.save(dict(model={'patch_embed.proj.weight': torch.zeros(32, 3, 8, 8)}), path)
    given = [f'supervised={path}', *arms(recipes, 'one')]
    code, said = compare(recipes, given, seeds=['1'])
    assert code == 0, said
    record = recipes.record('pretrain_supervised')
    assert record['status'] == 'skipped' and record['checkpoint'] == str(path)
    assert recipes.record('linear_supervised')['parent']['checkpoint'] == str(path)
    torch.save(dict(model={'patch_embed.proj.weight': torch.ones(32, 3, 8, 8)}), path)
    code, said = compare(recipes, given, seeds=['1'], dry_run=True)
    assert re.search(r'linear_supervised +rerun +parent weights changed', said)
    assert re.search(r'linear_one +skip', said) and re.search(r'linear_scratch +skip', said)


def test_differences_of_two_tiny_configs_from_a_published_row():
    row = dict(epochs='90', batch='16384', resolution='224', head='cls + BN', seeds='', test_data='IN-1k val')
    neck = dict(type='ClsBatchNormNeck')
    model = dict(backbone=dict(type='VisionTransformer', img_size=224), neck=neck)
    as_published = Config(dict(
        model=model, train_cfg=dict(max_epochs=90), train_dataloader=dict(batch_size=512),
        optim_wrapper=dict(accumulative_counts=4),
    ))  # fmt: skip
    short = Config(dict(
        model=dict(backbone=dict(type='VisionTransformer', img_size=32, out_type='avg_featmap')),
        train_cfg=dict(max_epochs=25), train_dataloader=dict(batch_size=64), optim_wrapper=dict(),
    ))  # fmt: skip

    def ours(config, gpus):
        facts = downstream(config)
        return dict(facts, batch=facts['batch_per_device'] * gpus, seeds=3, test_data='IN-1k val')

    assert protocol_differences(ours(as_published, 8), row) == ([], ['seeds'])
    assert protocol_differences(ours(short, 1), row) == (
        ['epochs: 25 here, 90 published', 'batch: 64 here, 16384 published', 'resolution: 32 here, 224 published',
         'head: mean here, cls + BN published'],
        ['seeds'],
    )  # fmt: skip
    assert 'epochs: not known here, 90 published' in protocol_differences(dict(epochs=None), row)[0]
