"""Every backbone class of mmpretrain under EMAE, SimMIM and BootMAE: it trains, or it is refused in words."""

import copy
import inspect

import mmpretrain.models  # noqa: F401  (registers them)
import pytest
import torch
from input_tokens import SWIN, VIT
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS as MMPRETRAIN
from tiny import BEIT, DECODER, HIVIT, images
from tiny import VIT as PLAIN_VIT

from mim_mm.encoders import FAMILIES, encoder_of, family_of, reader_of
from mim_mm.encoders.beit import BEiTPretrainEncoder
from mim_mm.encoders.vit import ViTEncoder
from mim_mm.evaluation.frozen.features import encode
from mim_mm.registry import MODELS

CLASSES = sorted(
    name for name, kind in MMPRETRAIN.module_dict.items()
    if inspect.isclass(kind) and (issubclass(kind, BaseBackbone) or '.backbones.' in kind.__module__)
)  # fmt: skip
DEIT3 = dict(PLAIN_VIT, type='mmpretrain.DeiT3')
# a last map of stride 8 in place of 32, for images of 32 px
CONVNEXT = dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 16]), stem_patch_size=1)
RESNET = dict(type='mmpretrain.ResNet', depth=18, stem_channels=8, base_channels=4, strides=(1, 1, 1, 2))
METHODS = {
    'EMAE': dict(masker=dict(type='ParallelMasking', num_parts=4), decoder=dict(DECODER)),
    'SimMIM': dict(masker=dict(type='RandomMasking', ratio=0.6), mask_unit=8),
    'BootMAE': dict(masker=dict(type='RandomMasking'), decoder_dims=24),
}
TRAINS = {
    'EMAE': {'VisionTransformer': PLAIN_VIT, 'HiViT': HIVIT, 'DeiT3': DEIT3, 'ConvNeXt': CONVNEXT, 'ResNet': RESNET},
    'SimMIM': {'BEiTPretrainViT': VIT, 'SimMIMSwinTransformer': SWIN},
    'BootMAE': {'VisionTransformer': PLAIN_VIT, 'DeiT3': DEIT3, 'BEiTViT': BEIT},
}
REFUSED = 'cannot encode visible patches only|has no place for mask tokens|cannot show several depths'
NEEDS = {'EMAE': 'encode', 'SimMIM': 'encode_masked', 'BootMAE': 'encode_levels'}


def build(method, backbone):
    size = dict(img_size=32) if backbone in (CONVNEXT, RESNET) else {}
    return MODELS.build(copy.deepcopy(dict(type=method, backbone=backbone, **METHODS[method], **size)))


def test_there_are_all_of_them():
    assert {'VisionTransformer', 'DeiT3', 'DistilledVisionTransformer', 'ViTEVA02', 'ViTSAM', 'MAEViT', 'ResNet',
            'SwinTransformer', 'CAEPretrainViT', 'TIMMBackbone'} <= set(CLASSES)  # fmt: skip
    assert len(CLASSES) > 60


@pytest.mark.parametrize('method', METHODS)
def test_each_class_trains_or_is_refused(method):
    """Refused before it is built, so that neither its size nor a missing argument matters."""
    for name in CLASSES:
        if name in TRAINS[method]:
            model = build(method, TRAINS[method][name])
            model.init_weights()
            loss = sum(value for key, value in model.loss(images(2)).items() if key.startswith('loss'))
            loss.backward()
            gradients = [p.grad for p in model.backbone.parameters() if p.grad is not None]
            assert loss.isfinite() and any(float(g.abs().sum()) > 0 for g in gradients), name
        else:
            with pytest.raises((NotImplementedError, ValueError), match=REFUSED) as error:
                build(method, dict(type=f'mmpretrain.{name}'))
            assert str(error.value).startswith(name)
    able = {kind for kind, family in FAMILIES.items() if family.can(NEEDS[method])}
    # those of other tests' own families aside
    assert {kind.__name__ for kind in able if kind.__module__.startswith('mmpretrain')} == set(TRAINS[method])


def test_a_subclass_is_refused_until_it_is_added(monkeypatch):
    class Mine(MMPRETRAIN.get('VisionTransformer')):
        pass

    class Masked(MMPRETRAIN.get('BEiTPretrainViT')):
        pass

    advice = r'class MineEncoder\(ViTEncoder\): backbones = \(Mine,\)'
    with pytest.raises(NotImplementedError, match=f'^Mine cannot encode .* no subclass of them.*{advice}'):
        build('EMAE', dict(PLAIN_VIT, type=Mine))
    with pytest.raises(
        NotImplementedError, match=r'^Masked has no place .* class MaskedEncoder\(BEiTPretrainEncoder\)'
    ):
        build('SimMIM', dict(VIT, type=Masked))
    backbone = Mine(**{k: v for k, v in PLAIN_VIT.items() if k != 'type'})
    with pytest.raises(NotImplementedError, match='^Mine shows no class-token attention'):
        encoder_of(backbone, 'cls_attention')
    assert type(reader_of(backbone)) is ViTEncoder  # to read: its own pass

    kept = dict(FAMILIES)
    for module in ('base', 'families', 'lookup'):
        monkeypatch.setattr(f'mim_mm.encoders.{module}.FAMILIES', kept)

    class MineEncoder(ViTEncoder):
        backbones = (Mine,)

    class MaskedEncoder(BEiTPretrainEncoder):
        backbones = (Masked,)

    assert type(build('EMAE', dict(PLAIN_VIT, type=Mine)).encoder) is MineEncoder
    assert type(encoder_of(backbone)) is family_of(Mine) is MineEncoder
    assert type(build('SimMIM', dict(VIT, type=Masked)).encoder) is MaskedEncoder
    with pytest.raises(KeyError, match='NoSuchViT'):
        build('EMAE', dict(type='mmpretrain.NoSuchViT'))


def test_overlapping_patches_are_refused():
    with pytest.raises(ValueError, match='overlapping kernels would show pixels of hidden patches'):
        build('EMAE', dict(PLAIN_VIT, patch_cfg=dict(stride=4)))


ARCH = dict(PLAIN_VIT['arch'])
PROBED = {
    'DistilledVisionTransformer': {},
    'DeiT3': {},
    'ViTEVA02': dict(arch=dict(ARCH, mlp_ratio=2)),
    'BEiTViT': {},
    'MAEViT': {},
    'RevVisionTransformer': {},
    'ViTSAM': dict(arch=dict(ARCH, global_attn_indexes=[1]), window_size=2, out_channels=0),
}


@pytest.mark.parametrize('name', PROBED)
def test_frozen_features_of_relatives_take_their_own_prefix_away(name):
    """k-NN and probes use a backbone's own pass: the mean over patches is that of its map, or the probe refuses."""
    options = dict(arch=ARCH, img_size=32, patch_size=8) | PROBED[name]
    backbone = MMPRETRAIN.build(dict(options, type=name, out_type='raw'))
    mapped = MMPRETRAIN.build(dict(options, type=name, out_type='featmap'))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    mapped.load_state_dict(backbone.state_dict())
    mapped.eval()
    with torch.no_grad():
        wanted = (mapped(images(2), mask=None) if name == 'MAEViT' else mapped(images(2)))[-1]
    torch.testing.assert_close(encode(backbone, images(2))['mean'], wanted.flatten(2).mean(2))
    if name in ('RevVisionTransformer', 'ViTSAM'):
        with pytest.raises(ValueError, match=f'{name} cannot be probed by block'):
            reader_of(backbone).read(images(2), [1])
        return
    backbone.eval()
    encoder = reader_of(backbone)
    tokens = encoder.read(images(2), [1])[0]
    torch.testing.assert_close(tokens[:, encoder.num_prefix :].mean(1), wanted.flatten(2).mean(2))
