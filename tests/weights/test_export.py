"""What is given away computes the same where it is opened, by the call that the tool prints; or it is refused."""

import json
import re

import pytest
import torch
from foreign_models import MODELS, SAID, content, scattered
from mmengine.config import Config
from mmengine.logging import MMLogger
from safetensors.torch import load_file
from tiny import HIVIT, VIT, build

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.registry import MODELS as REGISTRY
from mim_mm.weights import verify
from mim_mm.weights.exporting import export
from mim_mm.weights.importing import open_foreign
from mim_mm.weights.own import open_own

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
TRAINING = """model = dict(
    type='MAE', backbone={backbone}, masker=dict(type='RandomMasking', ratio=0.75),
    decoder=dict(type='MAEDecoder', embed_dims=24, depth=1, num_heads=2),
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
train_dataloader = dict(batch_size=8, dataset=dict(type='mim_mm.UnlabelledImages', data_root='/scratch/me/photos',
    pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=32), dict(type='PackImage')]))
train_cfg = dict(by_epoch=True, max_epochs=7)
"""


def checkpoint(folder, backbone=VIT, **options):
    """A checkpoint as mmengine writes it after a MAE of ours."""
    model = scattered(build('MAE', backbone={**backbone, **options})).float()
    text = TRAINING.format(backbone=repr({**backbone, **options}))
    meta = dict(cfg=text, epoch=7, iter=70, time='20260101_000000')
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'epoch_7.pth')
    return folder / 'epoch_7.pth', model


@pytest.mark.parametrize('target', ['timm', 'hf', 'safetensors', 'torchvision', 'mmpretrain'])
def test_a_plain_vit_to_each(tmp_path, target):
    pytest.importorskip({'hf': 'transformers'}.get(target, 'timm'))
    path, model = checkpoint(tmp_path)
    done = export(open_own(path), target, tmp_path / 'out')
    assert done.difference <= 1e-5
    with torch.no_grad():
        wanted = model.backbone(IMAGES)[-1]
        found = opened_by_the_printed_lines(done, target)(IMAGES)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(FileExistsError, match='out'):
        export(open_own(path), target, tmp_path / 'out')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['epoch_7.pth', 'out']


def opened_by_the_printed_lines(done, target):
    """The lines as a user runs them in the folder of the files."""
    from functools import partial

    names = {'torch': torch, 'partial': partial}
    if target in ('safetensors', 'mmpretrain'):
        backbone = REGISTRY.build(VIT)
        report = load_encoder(backbone, next(p for p in done.folder.glob('model.*')))
        assert report.fraction == 1
        if target == 'mmpretrain':
            settings = Config.fromfile(done.folder / 'backbone.py').model.backbone
            settings.init_cfg.checkpoint = str(done.folder / 'model.pth')
            backbone = REGISTRY.build(settings)
            MMLogger.get_instance(str(done.folder))  # it is told of every weight; that of another test may be closed
            backbone.init_weights()
        backbone.eval()
        return lambda images: backbone(images)[-1]
    names.update(
        {word: pytest.importorskip(word) for word in ('timm', 'transformers', 'torchvision') if word in done.opened_by}
    )
    lines = re.sub(
        r"'(FOLDER|model\.\w+)'", lambda m: repr(str(done.folder / m[1].replace('FOLDER', ''))), done.opened_by
    )
    exec(lines, names)
    model = names['model'].eval()
    if target == 'timm':
        return model.forward_features
    if target == 'hf':
        return lambda images: model(images).last_hidden_state

    def torchvisions(images):
        x = model._process_input(images)
        return model.encoder(torch.cat((model.class_token.expand(len(x), -1, -1), x), dim=1))

    return torchvisions


def imported(tmp_path, kind):
    torch.save(content(kind, MODELS[kind]()), tmp_path / 'theirs.pth')
    options = {'heads': 2, **SAID.get(kind, {})}
    open_foreign(tmp_path / 'theirs.pth', **options).write(tmp_path / 'ours.pth')
    return open_own(tmp_path / 'ours.pth')


REFUSED = {  # by whom, and what
    ('timm pooled norm', 'hf'): 'norm before pooling', ('clip', 'hf'): 'norm before the blocks',
    ('simmim swin', 'hf'): 'Swin',
}  # fmt: skip
KINDS = [
    'timm layer scale', 'timm without qkv bias', 'timm pooled norm', 'clip', 'ijepa', 'cae', 'beit', 'beit fine-tuned',
    'simmim swin', 'dinov2 registers', 'timm registers',
]  # fmt: skip


@pytest.mark.parametrize('target', ['timm', 'hf', 'mmpretrain'])
@pytest.mark.parametrize('kind', KINDS)
def test_every_form_of_encoder(tmp_path, kind, target):
    pytest.importorskip('timm')
    own = imported(tmp_path, kind)
    if (kind, target) in REFUSED:
        with pytest.raises(LoadError, match=f'{REFUSED[kind, target]}.*cannot compute that. Take --to timm'):
            export(own, target, tmp_path / 'out')
        assert not (tmp_path / 'out').exists() and len(list(tmp_path.iterdir())) == 2
        return
    pytest.importorskip({'hf': 'transformers'}.get(target, 'timm'))
    assert export(own, target, tmp_path / 'out').difference <= 1e-5
    if target == 'hf' and own.about['pixels']:
        assert open_foreign(tmp_path / 'out').pixels == tuple(own.about['pixels'])
    source = tmp_path / 'out' / ('model.pth' if target == 'mmpretrain' else '')
    again = open_foreign(source, **({} if target == 'hf' else dict(heads=2, **SAID.get(kind, {}))))
    with torch.no_grad():
        images = torch.randn(2, 3, *2 * [own.config['img_size']])
        torch.testing.assert_close(again.backbone(images)[-1], own.backbone(images)[-1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    'backbone, target, match',
    [
        (dict(VIT, norm_cfg=dict(type='LN', eps=1e-5)), 'timm', 'epsilon 1e-05.*--to hf'),
        (dict(VIT, layer_scale_init_value=0.1), 'torchvision', 'layer scale: torchvision cannot.*--to timm'),
        (dict(VIT, qkv_bias=False), 'torchvision', 'no biases of queries'),
        (dict(VIT, layer_cfgs=dict(act_cfg=dict(type='GELU', approximate='tanh'))), 'torchvision', 'gelu_tanh'),
    ],
)
def test_what_a_library_cannot_compute_is_refused(tmp_path, backbone, target, match):
    path, _ = checkpoint(tmp_path, backbone)
    with pytest.raises(LoadError, match=match):
        export(open_own(path), target, tmp_path / 'out')
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_7.pth']


def test_what_is_none_of_the_families(tmp_path):
    path, model = checkpoint(tmp_path, HIVIT)
    for target in ('mmpretrain', 'safetensors'):
        assert export(open_own(path), target, tmp_path / target).difference == 0
    with pytest.raises(LoadError, match='mmpretrain.HiViT: timm has no such encoder; --to mmpretrain'):
        export(open_own(path), 'timm', tmp_path / 'out')
    path, _ = checkpoint(tmp_path, dict(VIT, type='mmpretrain.DeiT3'))  # a ViT with layer scale, in other words
    assert export(open_own(path), 'timm', tmp_path / 'deit3').difference <= 1e-5
    vgg = dict(type='mmpretrain.VGG', depth=11)
    state = {f'backbone.{n}': v for n, v in REGISTRY.build(vgg).state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg=TRAINING.format(backbone=repr(vgg)))), path)
    with pytest.raises(LoadError, match='mmpretrain.VGG: timm has no such encoder'):
        export(open_own(path), 'timm', tmp_path / 'out')


@pytest.mark.parametrize(
    'kind', ['BEiTPretrainViT', 'CAEPretrainViT', 'RegisterViT', 'MoCoV3ViT', 'SimMIMSwinTransformer']
)
def test_encoders_of_pretrainings_become_those_of_downstream_recipes(tmp_path, kind):
    backbone = dict(VIT, type=f'mmpretrain.{kind}')
    if kind == 'CAEPretrainViT':
        backbone.update(layer_scale_init_value=0.1)
    if kind == 'RegisterViT':
        backbone.update(type='mim_mm.RegisterViT', num_registers=2)
    if kind == 'SimMIMSwinTransformer':
        arch = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2])
        backbone = dict(type=f'mmpretrain.{kind}', arch=arch, img_size=64, out_indices=(1,))
        backbone['stage_cfgs'] = dict(block_cfgs=dict(window_size=4))
    source = scattered(REGISTRY.build(backbone))
    source.float()
    state = {f'backbone.{n}': v for n, v in source.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg=TRAINING.format(backbone=repr(backbone)))), tmp_path / 'a.pth')
    pytest.importorskip('timm')
    assert export(open_own(tmp_path / 'a.pth'), 'timm', tmp_path / 'out').difference <= 1e-5


def test_the_teacher_by_its_prefix(tmp_path):
    path, model = checkpoint(tmp_path)
    state = model.state_dict()
    teacher = {f'teacher.{n}': v + 1 for n, v in state.items() if n.startswith('backbone.')}
    torch.save(dict(state_dict={**state, **teacher}, meta=dict(cfg=TRAINING.format(backbone=repr(VIT)))), path)
    for prefix, plus in (('backbone.', 0), ('teacher.backbone.', 1)):
        own = open_own(path, prefix=prefix)
        assert torch.equal(own.encoder()['cls_token'], state['backbone.cls_token'] + plus)


def test_no_biased_positions_in_torchvision(tmp_path):
    with pytest.raises(LoadError, match='BEiTViT: torchvision cannot'):
        export(imported(tmp_path, 'beit'), 'torchvision', tmp_path / 'out')


def test_an_export_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    pytest.importorskip('timm')
    path, _ = checkpoint(tmp_path)
    right = verify.open_timm

    def wrong(*args):
        features = right(*args)
        return lambda images: features(images) * 1.001

    monkeypatch.setattr(verify, 'open_timm', wrong)
    with pytest.raises(LoadError, match='features differ by .* after the export.*nothing was written'):
        export(open_own(path), 'timm', tmp_path / 'out')
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_7.pth']


def test_a_library_that_is_missing_is_said(tmp_path, monkeypatch):
    path, _ = checkpoint(tmp_path)

    def missing(name):
        raise verify.Missing(f'{name} is not installed')

    monkeypatch.setattr(verify, 'library', missing)
    done = export(open_own(path), 'timm', tmp_path / 'out')
    assert done.difference is None and done.why_not == 'timm is not installed'
    assert '| compared | not: timm is not installed |' in (tmp_path / 'out/README.md').read_text()


@pytest.mark.parametrize('part', ['decoder', 'whole'])
def test_decoder_and_whole(tmp_path, part):
    path, model = checkpoint(tmp_path)
    export(open_own(path), 'safetensors', tmp_path / 'a', part)
    export(open_own(path), 'mmpretrain', tmp_path / 'b', part)
    wanted = {n: v for n, v in model.state_dict().items() if part == 'whole' or n.startswith('decoder.')}
    for found in (
        load_file(tmp_path / 'a/model.safetensors'),
        torch.load(tmp_path / 'b/model.pth', weights_only=True)['state_dict'],
    ):
        assert found.keys() == wanted.keys() and all(torch.equal(found[n], v) for n, v in wanted.items())
    with pytest.raises(LoadError, match=f'--part {part} to timm'):
        export(open_own(path), 'timm', tmp_path / 'c', part)
    if part == 'decoder':
        torch.save(dict(state_dict={f'backbone.{n}': v for n, v in model.backbone.state_dict().items()},
                        meta=dict(cfg=TRAINING.format(backbone=repr(VIT)))), tmp_path / 'x.pth')  # fmt: skip
        with pytest.raises(LoadError, match='holds no decoder'):
            export(open_own(tmp_path / 'x.pth'), 'safetensors', tmp_path / 'd', part)


def test_the_card_says_what_the_checkpoint_says(tmp_path):
    path, _ = checkpoint(tmp_path)
    run = dict(stage='linear', arm='mae', seed=1, metrics={'accuracy/top1': 71.5})
    (tmp_path / 'chain/linear').mkdir(parents=True)
    (tmp_path / 'chain/linear/run.json').write_text(json.dumps(run))
    (tmp_path / 'run.json').write_text(json.dumps(dict(
        config=dict(sha256='abc'), data={'train': dict(files=12, sha256='def')}, metrics={})))  # fmt: skip
    export(open_own(path), 'safetensors', tmp_path / 'out', licence='apache-2.0', runs=[tmp_path / 'chain'])
    card = (tmp_path / 'out/README.md').read_text()
    for words in (
        'license: apache-2.0', '| method | MAE, mask random r=3/4 |',
        'UnlabelledImages photos; train: 12 files, sha256 def',
        '| epochs | 7 (iteration 70) of 7 epochs |', 'sha256 abc of what is learned', 'RandomResizedCrop(scale=32)',
        'minus [123.675, 116.28, 103.53]', '| linear | mae | 1 | accuracy/top1 | 71.5 |',
        '32 px here, 224 in the method',
    ):  # fmt: skip
        assert words in card, words
    assert '/scratch' not in card
    with pytest.raises(LoadError, match='holds no run.json'):
        export(open_own(path), 'safetensors', tmp_path / 'no', runs=[tmp_path / 'out'])


def test_the_card_of_an_import_names_its_licence_and_source(tmp_path):
    export(imported(tmp_path, 'mocov3'), 'safetensors', tmp_path / 'out')
    card = (tmp_path / 'out/README.md').read_text()
    assert '| licence | CC BY-NC 4.0 |' in card and 'imported from | MoCo v3: theirs.pth, sha256 ' in card
    assert '| data | not known' in card


def test_a_checkpoint_that_does_not_say_its_encoder(tmp_path):
    path, model = checkpoint(tmp_path)
    torch.save(dict(state_dict=model.state_dict()), path)
    with pytest.raises(LoadError, match='does not say how its encoder is built.*--config'):
        open_own(path)
    (tmp_path / 'config.py').write_text(TRAINING.format(backbone=repr(VIT)))
    own = open_own(path, tmp_path / 'config.py')
    assert own.config['arch']['num_heads'] == 2
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg='import os')), path)
    with pytest.raises(LoadError, match='its config is no plain data.*--config'):
        open_own(path)
