"""Frozen features: against a direct forward pass, in whatever mode the backbone is; when a stored file is reused."""

import json
import os

import numpy
import pytest
import torch
from frozen_data import VIT, write_classes
from mmengine.config import Config
from mmpretrain.registry import MODELS as MMPRETRAIN
from PIL import Image

from mim_mm.checkpoint.load import LoadError
from mim_mm.evaluation.frozen import features as room
from mim_mm.evaluation.frozen.features import FolderImages, Preprocess, Source, build_encoder, encode, load_or_extract

PREPROCESS = Preprocess(resize=36, crop=32)


def config(**backbone):
    return Config(dict(default_scope='mmpretrain', model=dict(type='ImageClassifier', backbone=dict(VIT, **backbone))))


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / 'data')


@pytest.fixture
def checkpoint(tmp_path):
    model = MMPRETRAIN.build(dict(VIT))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save({f'backbone.{k}': v for k, v in model.state_dict().items()}, tmp_path / 'encoder.pth')
    return tmp_path / 'encoder.pth'


def plain_images(root, split, names):
    """Pillow and arithmetic only: short edge 36, centre 32, RGB, ImageNet's mean and spread."""
    batch = []
    for name in names:
        image = Image.open(root / split / name).resize((45, 36), Image.BICUBIC).crop((6, 2, 38, 34))
        batch.append((numpy.asarray(image, dtype=numpy.float32) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375])
    return torch.tensor(numpy.stack(batch), dtype=torch.float32).permute(0, 3, 1, 2)


def test_equal_a_direct_forward_of_the_backbone(root, checkpoint, tmp_path):
    found = load_or_extract(
        Source(config(), checkpoint, PREPROCESS), FolderImages(root, 'train', PREPROCESS), tmp_path / 'f', batch_size=4
    )
    direct = MMPRETRAIN.build(dict(VIT, out_type='raw'))
    direct.load_state_dict({k[9:]: v for k, v in torch.load(checkpoint).items()})
    direct.eval()
    with torch.no_grad():
        tokens = direct(plain_images(root, 'train', found.names))[-1]  # (6, 17, 32), after the final norm
    assert found.names == ['a/0.png', 'a/1.png', 'a/2.png', 'b/0.png', 'b/1.png', 'c/0.png']
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2]
    cls, mean = tokens[:, 0], tokens[:, 1:].mean(1)
    for name, expected in dict(cls=cls, mean=mean, cls_mean=torch.cat([cls, mean], 1)).items():
        torch.testing.assert_close(found.get(name), expected, rtol=1e-4, atol=1e-5)
    assert found.provenance['load_report']['fraction'] == 1.0


def test_train_mode_changes_nothing_and_comes_back(checkpoint):
    backbone, _ = build_encoder(Source(config(), checkpoint, PREPROCESS))
    images = torch.randn(3, 3, 32, 32)
    quiet = encode(backbone, images)
    backbone.train()
    backbone.layers[0].training = False
    with torch.no_grad():
        assert not torch.equal(backbone(images)[-1], backbone(images)[-1])  # dropout is at work in train mode
    modes = [m.training for m in backbone.modules()]
    loud = encode(backbone, images)
    assert torch.equal(quiet['cls'], loud['cls']) and torch.equal(quiet['mean'], loud['mean'])
    assert [m.training for m in backbone.modules()] == modes and any(modes) and not all(modes)
    assert not loud['cls'].requires_grad


def test_the_global_generator_stays_where_it_was(root, checkpoint, tmp_path):
    before = torch.get_rng_state()
    load_or_extract(Source(config(), None, PREPROCESS), FolderImages(root, 'train', PREPROCESS), tmp_path)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ('backbone', 'pooled'),
    [
        (dict(VIT, with_cls_token=False, out_type='avg_featmap', final_norm=False), {'mean': 32}),
        (dict(VIT, type='MAEViT', drop_rate=0.0, drop_path_rate=0.0), {'cls': 32, 'mean': 32}),
        (dict(VIT, type='BEiTPretrainViT', drop_rate=0.0, drop_path_rate=0.0), {'cls': 32, 'mean': 32}),
        (dict(type='CAEPretrainViT', arch=VIT['arch'], img_size=32, patch_size=8, layer_scale_init_value=0.1),
         {'cls': 32, 'mean': 32}),
        (dict(type='SwinTransformer', arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2]), img_size=32,
              patch_size=4, window_size=4, out_indices=(1,)), {'mean': 16}),
        (dict(type='ResNet', depth=18, stem_channels=8, base_channels=8), {'mean': 64}),
    ],
)  # fmt: skip
def test_other_backbones(backbone, pooled):
    cfg = Config(dict(default_scope='mmpretrain', model=dict(backbone=backbone)))
    images = torch.randn(2, 3, 32, 32)
    built, report = build_encoder(Source(cfg, None, PREPROCESS))
    first, second = encode(built, images), encode(built, images)
    assert {name: value.shape for name, value in first.items()} == {n: (2, d) for n, d in pooled.items()}
    assert all(torch.equal(first[n], second[n]) for n in first) and report is None  # MAEViT would mask at random


def test_a_map_is_averaged_over_its_places():
    class Maps(torch.nn.Module):
        def forward(self, x):
            return (x[:, :, :1], x * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1))

    out = encode(Maps(), torch.ones(2, 3, 4, 4))
    assert out['mean'].tolist() == [[1.0, 2.0, 3.0]] * 2


def test_final_norm_is_switched_on():
    """A fine-tuning config leaves the final norm out; features have it: spread 1 over the width of a token."""
    built, _ = build_encoder(Source(config(out_type='avg_featmap', final_norm=False), None, PREPROCESS))
    token = encode(built, torch.randn(2, 3, 32, 32))['cls']
    torch.testing.assert_close(token.std(1, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)


def test_val_takes_the_labels_of_train(root):
    train = FolderImages(root, 'train', PREPROCESS)
    val = FolderImages(root, 'val', PREPROCESS, train.classes)
    assert val.items == [('a/7.png', 0), ('c/8.png', 2)] and val[1][1] == 2 and val[0][0].dtype == torch.uint8
    with pytest.raises(ValueError, match="train lacks.*'b'"):
        FolderImages(root, 'train', PREPROCESS, ('a', 'c'))
    with pytest.raises(FileNotFoundError, match='ROOT/test/<class>'):
        FolderImages(root, 'test', PREPROCESS)
    (root / 'empty' / 'a').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='no image'):
        FolderImages(root, 'empty', PREPROCESS)


def test_reused_only_when_nothing_changed(root, checkpoint, tmp_path, monkeypatch):
    count = []
    real = room.extract
    monkeypatch.setattr(room, 'extract', lambda *a, **k: count.append(1) or real(*a, **k))

    def run(source=None, split='train'):
        source = source or Source(config(), checkpoint, PREPROCESS)
        return load_or_extract(source, FolderImages(root, split, source.preprocess), tmp_path / 'store')

    first, again = run(), run()
    assert len(count) == 1 and again.provenance['reused'] and not first.provenance['reused']
    assert torch.equal(first.get('cls_mean'), again.get('cls_mean')) and again.names == first.names
    assert torch.equal(first.labels, again.labels) and again.classes == ('a', 'b', 'c')
    narrow = Preprocess(resize=40, crop=32)
    run(Source(config(), checkpoint, narrow))
    run(Source(config(patch_cfg=dict(bias=True)), checkpoint, PREPROCESS))
    run(Source(config(), checkpoint, PREPROCESS, amp='bf16'))
    run(Source(config(), None, PREPROCESS))
    assert len(count) == 5
    os.utime(root / 'train' / 'a' / '0.png', ns=(1, 1))  # rewritten in place
    run()
    assert len(count) == 6
    state = torch.load(checkpoint)
    state['backbone.cls_token'] += 1
    torch.save(state, checkpoint)
    changed = run()
    assert len(count) == 7 and not torch.equal(changed.get('cls'), first.get('cls'))
    file = changed.provenance['file']
    with open(file, 'r+b') as stream:
        stream.truncate(os.path.getsize(file) // 2)  # cut off by a full disk
    assert torch.equal(run().get('cls'), changed.get('cls')) and len(count) == 8
    assert not [f for f in os.listdir(tmp_path / 'store') if f.endswith('.tmp')]


def test_the_95_per_cent_rule_stops(root, checkpoint, tmp_path):
    state = torch.load(checkpoint)
    half = {k: v for k, v in state.items() if 'layers.1' not in k}
    torch.save(half, tmp_path / 'half.pth')
    data = FolderImages(root, 'val', PREPROCESS)
    with pytest.raises(LoadError, match='at least 95 %'):
        load_or_extract(Source(config(), tmp_path / 'half.pth', PREPROCESS), data, tmp_path / 'f')
    low = load_or_extract(Source(config(), tmp_path / 'half.pth', PREPROCESS, min_loaded=0.4), data, tmp_path / 'f')
    assert 0.4 < low.provenance['load_report']['fraction'] < 0.95
    with pytest.raises(LoadError, match='at least 95 %'):  # the stored file does not open a way around the rule
        load_or_extract(Source(config(), tmp_path / 'half.pth', PREPROCESS), data, tmp_path / 'f')


def test_not_finite_is_refused(root, tmp_path):
    backbone, _ = build_encoder(Source(config(), None, PREPROCESS))
    torch.nn.init.constant_(backbone.ln1.bias, float('nan'))
    with pytest.raises(FloatingPointError, match='a/7.png.*not finite'):
        room.extract(backbone, FolderImages(root, 'val', PREPROCESS), PREPROCESS)


@pytest.mark.parametrize('size', [1, 2, 3, 1000])
def test_batches_are_stored_in_order_and_the_first_wrong_one_is_named(root, size):
    backbone, _ = build_encoder(Source(config(), None, PREPROCESS))
    data = FolderImages(root, 'train', PREPROCESS)
    found = room.extract(backbone, data, PREPROCESS, batch_size=size)
    for index in range(len(data)):
        one = encode(backbone, PREPROCESS.normalize(data[index][0][None]))
        for name, value in one.items():
            torch.testing.assert_close(found.pooled[name][index], value[0], rtol=1e-4, atol=1e-5)
    seen, wrong = [], 2 * size if 2 * size < len(data) else 0

    def spoil(module, inputs, output):
        seen.append(len(inputs[0]))
        return tuple(o * float('nan') for o in output) if sum(seen[:-1]) == wrong else output

    backbone.register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match=f'from {data.items[wrong][0]} on'):
        room.extract(backbone, data, PREPROCESS, batch_size=size)


@pytest.mark.parametrize(
    ('preprocessor', 'last', 'rgb'),
    [
        (dict(to_rgb=True), 'PackInputs', True),
        (dict(), 'PackInputs', False),
        (dict(bgr_to_rgb=True), 'PackInputs', True),
        (dict(), 'mim_mm.PackImage', True),  # our pretraining: the packing turns the channels
        (dict(to_rgb=True), 'PackImage', False),
    ],
)
def test_channel_order_is_that_of_training(preprocessor, last, rgb):
    cfg = config(img_size=64)
    cfg.data_preprocessor = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0], **preprocessor)
    cfg.train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type=last)]))
    found = Preprocess.from_config(cfg)
    assert (found.resize, found.crop, found.to_rgb) == (73, 64, rgb)  # 64 * 256 / 224 = 73.1
    blue, green, red = 10, 20, 30
    first = red if rgb else blue
    pixel = torch.tensor([blue, green, red], dtype=torch.uint8).view(1, 3, 1, 1)
    assert found.normalize(pixel).flatten().tolist() == [(first - 1) / 2, 9.0, (40 - first - 3) / 2]


def test_a_backbone_without_output_is_refused():
    class Nothing(torch.nn.Module):
        def forward(self, x):
            return ()

    with pytest.raises(TypeError, match='Nothing.*out_indices'):
        encode(Nothing(), torch.ones(1, 3, 4, 4))


def test_refusals():
    with pytest.raises(ValueError, match='crop 300 must be 1 to resize'):
        Preprocess(crop=300)
    with pytest.raises(ValueError, match='no model.backbone'):
        build_encoder(Source(Config(dict(model=dict(type='X'))), None, PREPROCESS))
    with pytest.raises(ValueError, match="'VisionTransfomer' is not registered"):
        build_encoder(Source(config(type='VisionTransfomer'), None, PREPROCESS))
    only_mean = room.Features(dict(mean=torch.zeros(1, 2)), torch.zeros(1), ['x'], ('a',), {})
    with pytest.raises(ValueError, match="'cls' must be one of"):
        only_mean.get('cls')


def test_published_transform_is_the_default():
    assert vars(Preprocess.from_config(Config(dict(model=dict(backbone=dict(img_size=224)))))) == vars(Preprocess())
    assert json.loads(json.dumps(vars(Preprocess())))['resize'] == 256
