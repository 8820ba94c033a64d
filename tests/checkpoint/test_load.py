"""Loading an encoder: names, counts by hand, resized positions, refusals, and the hook in a real run."""

import argparse
import json

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.models.backbones import HiViT, VisionTransformer
from torch import nn

from mim_mm.checkpoint.keymap import rename_key
from mim_mm.checkpoint.load import LoadError, load_encoder, read_checkpoint, resize_positions
from mim_mm.encoders import grid_of

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def vit(**kwargs) -> VisionTransformer:
    model = VisionTransformer(**{**dict(arch=ARCH, patch_size=8, img_size=32), **kwargs})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def pretraining_file(path, model, **extra):
    state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    torch.save(
        dict(state_dict={**state, 'decoder.mask_token': torch.zeros(1, 1, 8)}, meta=dict(epoch=3), **extra), path
    )
    return path


def test_own_pretraining_checkpoint_loads_completely(tmp_path):
    source, target = vit(), vit()
    report = load_encoder(target, pretraining_file(tmp_path / 'epoch_3.pth', source))
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name
    assert report.fraction == 1.0 and report.prefix == 'backbone.'
    assert report.unused == ['decoder.mask_token'] and not report.random and not report.by_design


class Tower(nn.Module):
    """Parameters of known size: 10, 30 and 5 values."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(2, 5))
        self.second = nn.Parameter(torch.zeros(30))
        self.ln2 = nn.LayerNorm(5, bias=False)
        self.register_buffer('count', torch.zeros(7))


def test_report_by_hand(tmp_path):
    path = tmp_path / 'tower.pth'
    torch.save({'state_dict': {'backbone.first': torch.ones(2, 5), 'head.weight': torch.ones(3)}}, path)
    model = Tower()
    with pytest.raises(LoadError, match='25.00 %.*95 %'):
        load_encoder(model, path)
    assert model.first.sum() == 0, 'a refused file must leave the model as it was'
    report = load_encoder(model, path, min_loaded=0.25)
    assert model.first.sum() == 10
    values = report.as_dict()['values']
    assert values == dict(total=45, loaded=10, resized=0, moved=0, by_design=5, random=30)
    assert report.fraction == 10 / (45 - 5)
    assert report.random == ['second'] and list(report.by_design) == ['ln2.weight'] and report.unused == ['head.weight']
    lines = report.table().splitlines()
    assert [line.split() for line in lines if line.startswith('left')] == [
        ['left', 'at', 'start', 'by', 'design', '1', '5', '11.11%'],
        ['left', 'random', '1', '30', '66.67%'],
    ]
    report.save(tmp_path / 'run')
    stored = json.loads((tmp_path / 'run' / 'load_report.json').read_text())
    assert stored['fraction'] == 0.25 and stored['random'] == ['second']
    assert sorted(p.name for p in (tmp_path / 'run').iterdir()) == ['load_report.json', 'load_report.txt']


@pytest.mark.parametrize('top', ['model', None, 'teacher'])
def test_timm_named_checkpoint_gives_the_features_of_timm(tmp_path, top):
    timm_models = pytest.importorskip('timm.models.vision_transformer')
    theirs = timm_models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, num_classes=0, init_values=0.3
    ).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = dict(theirs.state_dict(), mask_token=torch.zeros(1, 1, 8), decoder_pos_embed=torch.zeros(1, 17, 8))
    if top == 'teacher':
        state = {f'module.backbone.{k}': v for k, v in state.items()}
    path = tmp_path / 'release.pth'
    torch.save(state if top is None else {top: state, 'args': argparse.Namespace(lr=1)}, path)

    ours = vit(layer_scale_init_value=0.1)
    report = load_encoder(ours, path)
    assert report.fraction == 1.0 and len(report.unused) == 2
    ours.eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        difference = (ours(x)[0] - theirs.forward_features(x)[:, 0]).abs().max()
    assert difference < 1e-5


@pytest.mark.parametrize(
    'theirs, ours',
    [
        ('patch_embed.proj.bias', 'patch_embed.projection.bias'),
        ('blocks.11.norm1.weight', 'layers.11.ln1.weight'),
        ('blocks.0.mlp.fc1.weight', 'layers.0.ffn.layers.0.0.weight'),
        ('blocks.0.mlp.fc2.bias', 'layers.0.ffn.layers.1.bias'),
        ('blocks.2.7.attn.qkv.weight', 'layers.7.attn.qkv.weight'),
        ('blocks.3.gamma_2', 'layers.3.ffn.gamma2.weight'),
        ('norm.weight', 'ln1.weight'),
        ('fc_norm.bias', 'ln2.bias'),
        ('layers.1.ln1.weight', 'layers.1.ln1.weight'),
    ],
)
def test_names(theirs, ours):
    assert rename_key(theirs) == ours


def test_split_query_and_value_biases_become_one(tmp_path):
    source = vit()
    state = {f'encoder.{k}': v for k, v in source.state_dict().items()}
    for layer in range(2):
        bias = state.pop(f'encoder.layers.{layer}.attn.qkv.bias')
        state[f'encoder.layers.{layer}.attn.q_bias'] = bias[:32]
        state[f'encoder.layers.{layer}.attn.v_bias'] = bias[64:]
    torch.save({'model': state}, tmp_path / 'beit.pth')
    target = vit()
    assert load_encoder(target, tmp_path / 'beit.pth').fraction == 1.0
    x = torch.randn(2, 3, 32, 32)
    source.eval(), target.eval()
    torch.testing.assert_close(target(x)[0], source(x)[0], atol=1e-5, rtol=1e-5)  # the key bias has no effect


def test_hivit_keeps_its_own_block_names(tmp_path):
    arch = dict(embed_dims=32, depths=[1, 1, 2], num_heads=2)
    source, target = HiViT(arch=arch, img_size=32), HiViT(arch=arch, img_size=64)
    report = load_encoder(target, pretraining_file(tmp_path / 'hivit.pth', source), grid=grid_of(target))
    assert grid_of(target) == (4, 4) and report.fraction == 1.0 and list(report.resized) == ['pos_embed']
    assert torch.equal(target.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize('source_class, target_class', [(True, True), (True, False), (False, False), (False, True)])
@pytest.mark.parametrize('size', [64, (32, 56)])
def test_position_table_is_resized_as_interpolate_does(tmp_path, source_class, target_class, size):
    kinds = {True: {}, False: dict(with_cls_token=False, out_type='featmap')}
    source, target = vit(**kinds[source_class]), vit(img_size=size, **kinds[target_class])
    own_class_row = target.pos_embed[:, :1].clone()
    path = pretraining_file(tmp_path / 'a.pth', source)
    report = load_encoder(target, path, min_loaded=0.9)
    table = source.pos_embed.data
    class_row, patches = (table[:, :1], table[:, 1:]) if source_class else (own_class_row, table)
    grid = tuple(s // 8 for s in ((size, size) if isinstance(size, int) else size))
    wanted = nn.functional.interpolate(
        patches.reshape(1, 4, 4, 32).permute(0, 3, 1, 2), size=grid, mode='bicubic', align_corners=False
    )
    wanted = wanted.permute(0, 2, 3, 1).reshape(1, -1, 32)
    if target_class:
        wanted = torch.cat((class_row, wanted), 1)
    torch.testing.assert_close(target.pos_embed.data, wanted.data)
    assert report.resized == {'pos_embed': f'{tuple(table.shape)} -> {tuple(wanted.shape)}'}


def test_position_map_and_table_that_is_no_square():
    target = torch.zeros(1, 65, 4)
    stored = torch.randn(1, 8, 8, 4)
    assert torch.equal(resize_positions(stored, target, (8, 8))[:, 1:], stored.flatten(1, 2))
    with pytest.raises(LoadError, match='12 rows'):
        resize_positions(torch.zeros(1, 12, 4), target, (8, 8))
    with pytest.raises(LoadError, match='width'):
        resize_positions(torch.zeros(1, 17, 5), target, (8, 8))


def test_detector_backbone_from_a_pretraining_checkpoint(tmp_path):
    from mim_mm.detection.windowed_vit import WindowedViT

    source = vit()
    path = pretraining_file(tmp_path / 'a.pth', source)
    arch = dict(ARCH, global_attn_indexes=(1,))
    options = dict(arch=arch, patch_size=8, img_size=64, pretrain_img_size=32, window_size=4)
    for rel_pos, tables in (('decomposed', 4), ('shared_bias', 2), ('none', 0)):
        for mode in ('native', 'fixed'):
            report = load_encoder(WindowedViT(**options, rel_pos=rel_pos, pos_embed_mode=mode), path)
            assert report.fraction == 1.0 and len(report.by_design) == tables
            assert list(report.resized) == ['pos_embed']
            assert {'backbone.cls_token', 'decoder.mask_token'} - set(report.unused) <= {'backbone.cls_token'}
            assert 'cls_token' in report.unused


def test_classifier_for_fine_tuning_keeps_its_fresh_norm(tmp_path):
    target = vit(out_type='avg_featmap', final_norm=False)
    before = target.ln2.weight.clone()
    report = load_encoder(target, pretraining_file(tmp_path / 'a.pth', vit()))
    assert list(report.by_design) == ['ln2.weight', 'ln2.bias'] and report.fraction == 1.0
    assert torch.equal(target.ln2.weight, before)
    assert 'ln1.weight' in report.unused


def test_refusals(tmp_path):
    with pytest.raises(LoadError, match='does not exist'):
        load_encoder(vit(), tmp_path / 'none.pth')
    with pytest.raises(LoadError, match='last_checkpoint'):
        load_encoder(vit(), tmp_path)
    torch.save({'state_dict': {'fc.weight': torch.ones(2)}}, tmp_path / 'other.pth')
    with pytest.raises(LoadError, match='holds no backbone keys'):
        load_encoder(vit(), tmp_path / 'other.pth')
    torch.save({'epoch': 3}, tmp_path / 'empty.pth')
    with pytest.raises(LoadError, match='no dictionary of tensors'):
        load_encoder(vit(), tmp_path / 'empty.pth')
    (tmp_path / 'text.pth').write_text('not a checkpoint')
    with pytest.raises(LoadError, match='text.pth'):
        load_encoder(vit(), tmp_path / 'text.pth')
    path = pretraining_file(tmp_path / 'wide.pth', vit(arch=dict(ARCH, feedforward_channels=128)))
    with pytest.raises(LoadError, match='(?s)another shape.*ffn.layers.0.0.weight: file .128, 32., model .64, 32.'):
        load_encoder(vit(), path, min_loaded=0.0)
    broken = vit()
    broken.ln1.weight.data[0] = float('nan')
    with pytest.raises(LoadError, match='not finite.*ln1.weight'):
        load_encoder(vit(), pretraining_file(tmp_path / 'nan.pth', broken))


def test_skip_leaves_random_and_counts_against_the_minimum(tmp_path):
    path = pretraining_file(tmp_path / 'wide.pth', vit(arch=dict(ARCH, feedforward_channels=128)))
    with pytest.raises(LoadError, match='at least 95 %'):
        load_encoder(vit(), path, skip=['ffn'])
    report = load_encoder(vit(), path, skip=['ffn'], min_loaded=0.5)
    assert report.random and all('ffn' in name for name in report.random)


class Opaque:
    """A class of another project inside a checkpoint."""


def test_files_with_other_classes(tmp_path):
    model = vit()
    logs = pretraining_file(tmp_path / 'mmengine.pth', model, message_hub=dict(loss=HistoryBuffer([1.0], [1])))
    before = set(torch.serialization.get_safe_globals())
    assert load_encoder(vit(), logs).fraction == 1.0
    assert set(torch.serialization.get_safe_globals()) == before
    opaque = pretraining_file(tmp_path / 'opaque.pth', model, extra=Opaque())
    with pytest.raises(LoadError, match='trust=True'):
        read_checkpoint(opaque)
    assert load_encoder(vit(), opaque, trust=True).fraction == 1.0


def test_work_dir_stands_for_its_last_checkpoint(tmp_path):
    source = vit()
    pretraining_file(tmp_path / 'epoch_3.pth', source)
    (tmp_path / 'last_checkpoint').write_text('/moved/away/epoch_3.pth')
    target = vit()
    load_encoder(target, tmp_path)
    assert torch.equal(target.cls_token, source.cls_token)


class Probe(BaseModel):
    """A backbone and a loss: the smallest model that a Runner trains."""

    def __init__(self):
        super().__init__()
        self.backbone = vit()

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.backbone(torch.stack(inputs))[0].square().mean())


def train(work_dir, checkpoint, epochs=1, more_hooks=(), **kwargs):
    runner = Runner(
        model=Probe(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=1, dataset=[dict(inputs=torch.zeros(3, 32, 32))], sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[
            dict(type='mim_mm.LoadPretrainedHook', checkpoint=checkpoint and str(checkpoint)),
            *more_hooks,
        ],
        default_hooks=dict(checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1)),
        experiment_name=f'load_{work_dir.name}_{epochs}_{checkpoint and checkpoint.stem}',
        **kwargs,
    )
    runner.train()
    log = next(iter(sorted(work_dir.glob('*/*.log'))[-1:])).read_text()
    return runner.model.backbone, log


def test_hook_loads_saves_and_leaves_a_resumed_run_alone(tmp_path):
    source, other = vit(), vit()
    path = pretraining_file(tmp_path / 'first.pth', source)
    backbone, log = train(tmp_path / 'run', path)
    assert torch.equal(backbone.pos_embed, source.pos_embed)
    assert '100.00 % of what a pretraining checkpoint can hold' in log
    assert json.loads((tmp_path / 'run' / 'load_report.json').read_text())['checkpoint'] == str(path)

    second = pretraining_file(tmp_path / 'second.pth', other)
    backbone, log = train(tmp_path / 'run', second, epochs=2, resume=True)
    assert torch.equal(backbone.pos_embed, source.pos_embed)
    assert 'is not loaded again' in log


def test_hook_takes_the_weights_that_the_config_names(tmp_path):
    source = vit()
    path = pretraining_file(tmp_path / 'first.pth', source)
    cfg = dict(init=str(path))
    for name, checkpoint in (('named', None), ('twice_the_same', path)):
        backbone, _ = train(tmp_path / name, checkpoint, cfg=cfg)
        assert torch.equal(backbone.pos_embed, source.pos_embed)
        assert json.loads((tmp_path / name / 'load_report.json').read_text())['checkpoint'] == str(path)
    _, log = train(tmp_path / 'named', None, epochs=2, resume=True, cfg=cfg)
    assert f'{path} is not loaded again' in log
    # of two hooks the first one is meant; what the second loads stays its own affair
    other = vit()
    second = dict(type='mim_mm.LoadPretrainedHook', checkpoint=str(pretraining_file(tmp_path / 'second.pth', other)))
    backbone, _ = train(tmp_path / 'two', None, more_hooks=[second], cfg=cfg)
    assert torch.equal(backbone.pos_embed, other.pos_embed)


def test_hook_refuses_two_sources(tmp_path):
    path = pretraining_file(tmp_path / 'a.pth', vit())
    with pytest.raises(ValueError, match='init=b.pth and LoadPretrainedHook.checkpoint=.*a.pth.*differ'):
        train(tmp_path / 'both', path, cfg=dict(init='b.pth'))
    with pytest.raises(ValueError, match='load_from=x.pth and init=.*a.pth'):
        train(tmp_path / 'whole', None, cfg=dict(init=str(path), load_from='x.pth'))
    with pytest.raises(ValueError, match='init=3 is no path'):
        train(tmp_path / 'number', None, cfg=dict(init=3))
    with pytest.raises(LoadError):
        train(tmp_path / 'empty', None, cfg=dict(init=''))


def test_hook_without_checkpoint_says_that_the_encoder_is_random(tmp_path):
    _, log = train(tmp_path / 'scratch', None)
    assert 'starts from RANDOM weights' in log and not (tmp_path / 'scratch' / 'load_report.json').exists()


def test_hook_stops_the_run(tmp_path):
    with pytest.raises(LoadError, match='does not exist'):
        train(tmp_path / 'missing', tmp_path / 'nothing.pth')
    path = pretraining_file(tmp_path / 'a.pth', vit())
    with pytest.raises(ValueError, match='load_from'):
        train(tmp_path / 'both', path, load_from=str(path), cfg=dict(load_from=str(path)))
