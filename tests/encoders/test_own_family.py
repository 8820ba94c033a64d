"""A family of backbones from outside the package: one subclass of Encoder, and MAE, a probe and copies work on it."""

import copy
import pickle

import pytest
import torch
from tiny import DECODER, HIVIT, VIT, build, images, total_loss
from torch import nn

from mim_mm.encoders import Encoder, Grid, encoder_of, family_of, reader_of
from mim_mm.encoders.grid import gather_parts
from mim_mm.registry import MODELS


class Mixer(nn.Module):
    """Patches of 8 px on a 4 x 4 grid; each block adds the mean of all tokens to each of them."""

    def __init__(self, width=16, init_cfg=None):
        super().__init__()
        self.init_cfg = init_cfg
        self.embedding = nn.Conv2d(3, width, 8, 8)
        self.positions = nn.Parameter(torch.randn(1, 16, width))
        self.stack = nn.ModuleList(Mean(width) for _ in range(3))

    def forward(self, x):
        x = self.embedding(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.stack:
            x = block(x)
        return (x,)


class Mean(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + self.linear(x.mean(1, keepdim=True))


class MixerEncoder(Encoder):
    backbones = (Mixer,)

    @property
    def grid(self):
        return Grid(4, 4, 8, 3, self.backbone.positions.shape[-1], 0)

    @property
    def blocks(self):
        return list(self.backbone.stack)

    def prepare(self, pos_embed):
        nn.init.normal_(self.backbone.positions)

    def embed(self, images):
        return self.backbone.embedding(images).flatten(2).transpose(1, 2) + self.backbone.positions

    def encode(self, tokens, visible):
        x = gather_parts(tokens, visible)
        for block in self.blocks:
            x = block(x)
        return x


def mixer_model(kind='MAE', masker='RandomMasking'):
    return MODELS.build(dict(type=kind, backbone=dict(type=Mixer), masker=dict(type=masker), decoder=dict(DECODER)))


@pytest.mark.parametrize('kind, masker', [('MAE', 'RandomMasking'), ('EMAE', 'ParallelMasking')])
def test_a_step_trains_it(kind, masker):
    model = mixer_model(kind, masker)
    model.init_weights()
    assert all(name.startswith(('backbone.', 'decoder.')) for name, _ in model.named_parameters())
    out = model.loss(images())
    total_loss(out).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    # What is hidden does not count.
    x, order = images(), torch.arange(16).expand(3, 1, 16)
    first = model.encoder.encode(model.encoder.embed(x), order[..., :4])
    x[:, :, 8:] = 9.0
    assert torch.equal(model.encoder.encode(model.encoder.embed(x), order[..., :4]), first)


def test_a_probe_reads_it():
    probe = MODELS.build(
        dict(type='FrozenProbe', backbone=dict(type=Mixer), blocks=[0, 2], pool='mean', norm=False,
             head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=32))
    )  # fmt: skip
    x, seen = images(), []
    probe.backbone.stack[0].register_forward_hook(lambda module, args, out: seen.append(out))
    found = probe.features(x)
    wanted = torch.cat([seen[0].mean(1), probe.backbone(x)[0].mean(1)], 1)
    torch.testing.assert_close(found, wanted)


def test_what_it_lacks_is_refused_with_the_name_of_the_method_to_add():
    with pytest.raises(NotImplementedError, match='Mixer has no place for mask tokens .*add encode_masked to MixerEnc'):
        MODELS.build(dict(type='SimMIM', backbone=dict(type=Mixer), masker=dict(type='RandomMasking')))
    model = mixer_model('MAE', 'AttMask')
    with pytest.raises(NotImplementedError, match='Mixer shows no class-token attention'):
        model.loss(images())
    assert family_of(Mixer).can('encode') and not family_of(Mixer).can('encode_packed')


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])  # fmt: skip
@pytest.mark.parametrize('backbone', [VIT, HIVIT], ids=['vit', 'hivit'])
def test_a_copy_of_a_model_encodes_with_its_own_backbone(copied, backbone):
    model = build('MAE', backbone=backbone)
    other = copied(model)
    assert other.encoder.backbone is other.backbone is not model.backbone
    assert list(other.state_dict()) == list(model.state_dict())
    for p in model.backbone.parameters():
        p.data.zero_()
    assert model.encoder.embed(images()).abs().sum() == 0 < other.encoder.embed(images()).abs().sum()


FAMILIES = {
    'vit': VIT,
    'vit without class token': dict(VIT, with_cls_token=False),
    # Seven main blocks: with few, the index of the last one names an early block too, where mmpretrain's pass breaks.
    'hivit': dict(HIVIT, arch=dict(embed_dims=32, depths=[1, 1, 7], num_heads=2), out_indices=[6]),
    'beit': dict(VIT, type='mmpretrain.BEiTViT', final_norm=True),
    'beit, masked': {**VIT, 'type': 'mmpretrain.BEiTPretrainViT'},
    'swin': dict(
        type='mmpretrain.SwinTransformer', arch=dict(embed_dims=16, depths=[1, 2], num_heads=[2, 2]), img_size=32,
        out_indices=(1,), stage_cfgs=dict(block_cfgs=dict(window_size=4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', FAMILIES)
def test_the_whole_image_gives_what_the_backbone_gives(name):
    backbone = MODELS.build(dict(FAMILIES[name]))
    for p in backbone.parameters():
        nn.init.normal_(p, std=0.2)
    backbone.eval()
    encoder, x = encoder_of(backbone), images()
    with torch.no_grad():
        prefix, patches = encoder.encode_whole(x)
        wanted = (backbone(x, None) if 'masked' in name else backbone(x))[-1]
    stride, channels = encoder.output
    assert prefix.shape == (3, encoder.num_prefix, channels) and patches.shape == (3, (32 // stride) ** 2, channels)
    if wanted.ndim == 4:
        wanted = wanted.flatten(2).transpose(1, 2)
    torch.testing.assert_close(torch.cat([prefix, patches], 1), wanted)
    assert sum(encoder.stages) == sum(FAMILIES[name]['arch'].get('depths', [2]))


def test_two_sizes_in_one_step():
    """Local crops: positions are resampled for each call, and nothing of it stays."""
    model = build('MAE')
    encoder, small = model.encoder, images(2, size=16)
    before = dict(vars(encoder))
    with torch.no_grad():
        whole, crops = encoder.encode_whole(images()), encoder.encode_whole(small)
        assert whole[1].shape == (3, 16, 32) and crops[1].shape == (2, 4, 32)
        torch.testing.assert_close(encoder.encode_whole(images()), whole, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat(crops, 1), model.backbone(small)[0])
    assert vars(encoder) == before == {'backbone': model.backbone}


def test_a_reader_is_found_by_inheritance():
    class Derived(Mixer):
        pass

    assert isinstance(reader_of(Derived()), MixerEncoder)
    with pytest.raises(NotImplementedError, match=r'class DerivedEncoder\(MixerEncoder\): backbones = \(Derived,\)'):
        encoder_of(Derived())
