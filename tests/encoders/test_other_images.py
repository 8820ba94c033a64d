"""Images that are not square, or not of three channels of 8 bits: masks, targets, pictures, and the way to transfer."""

import copy
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from masker_table import table
from mmengine.config import Config
from recipe_table import load
from tiny import DECODER, HIVIT, VIT, build, images, total_loss
from tiny_run import TINY_ARCH

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.encoders import grid_of
from mim_mm.evaluation.frozen.config_images import labelled_images
from mim_mm.evaluation.frozen.features import Source, encode, extract
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.evaluation.pictures.mask_gallery import MaskView, gallery
from mim_mm.evaluation.pictures.reconstruction import load_pretraining_model, reconstruct_files
from mim_mm.masking.base import set_grid
from mim_mm.registry import MODELS
from mim_mm.targets import unpatchify

WIDE = (32, 128)  # 4 x 16 patches of 8 px: as many as 8 x 8, which a grid that is taken for square would be


def wide(kind='MAE', masker=None, **backbone):
    model = build(kind, masker, dict(VIT, img_size=WIDE, **backbone))
    model.init_weights()
    return model


@pytest.mark.parametrize('name', sorted(table((4, 16))))
@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
def test_every_masker_knows_the_grid_of_the_images(kind, name):
    """The grid is not in the config; the plan is that of a masker with the grid in its config."""
    bare, stated = copy.deepcopy(table((4, 16))[name]), table((4, 16))[name]
    for inner in (bare, bare.get('masker') or {}):
        inner.pop('grid', None)
    x = torch.randn(3, 3, *WIDE, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = wide(kind, bare)
    model.mask_generator = torch.Generator().manual_seed(1)
    total_loss(model.loss(x)).backward()
    other = wide(kind, stated)
    other.load_state_dict(model.state_dict())
    found, wanted = (m.plan(x, torch.Generator().manual_seed(2)) for m in (model, other))
    assert found.num_patches == 64 and torch.equal(found.order, wanted.order)


def test_blocks_on_a_wide_grid_are_rectangles():
    """One block fills what is hidden: on 4 x 16 patches its bounding box is full, on 8 x 8 it would be torn."""
    masker = dict(type='BlockMasking', ratio=9 / 64, min_block=9, max_block=9, min_aspect=1.0)
    model = wide(masker=masker)
    mask = model.plan(torch.randn(8, 3, *WIDE), torch.Generator().manual_seed(0)).mask[:, 0].view(8, 4, 16)
    whole = 0
    for one in mask:
        rows, columns = (one.any(dim).nonzero().flatten() for dim in (1, 0))
        box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        whole += int(box == one.sum())
    assert whole >= 6, whole


def test_a_stated_grid_stays():
    masker = MODELS.build(dict(type='BlockMasking', grid=(2, 32)))
    set_grid(masker, (4, 16))
    assert masker.grid == (2, 32)
    outer = MODELS.build(dict(type='DrawnRatio', masker=dict(type='BlockMasking'), ratio=(0.2, 0.4)))
    set_grid(outer, (4, 16))
    assert outer.inner.grid == (4, 16)


def test_hivit_takes_squares_only():
    with pytest.raises(ValueError, match='HiViT has 4 x 16 patches.*square img_size'):
        build('MAE', backbone=dict(HIVIT, img_size=WIDE))


@pytest.mark.parametrize('height, recipe', [
    (32, 'finetune/vitb_finetune_100e'), (32, 'linear/vitb_quick_probe'), (64, 'finetune/vitb_finetune_100e'),
])  # fmt: skip
def test_a_wide_encoder_goes_whole_into_transfer(tmp_path, height, recipe):
    model = build('EMAE', backbone=dict(VIT, img_size=(32, 80), arch=dict(TINY_ARCH)))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    cfg = load(recipe)
    cfg.model.backbone.update(arch=dict(TINY_ARCH), img_size=(height, height * 80 // 32), patch_size=8)
    target = MODELS.build(dict(cfg.model.backbone, _scope_='mmpretrain'))
    report = load_encoder(target, tmp_path / 'a.pth')
    assert not report.random and set(report.by_design) <= {'ln2.weight', 'ln2.bias'}
    assert grid_of(target) == (height // 8, height * 80 // 32 // 8)
    # on 8 x 20 patches: the very resampling that the encoder does for images of that size
    wanted = model.encoder.positions((height, height * 80 // 32))
    torch.testing.assert_close(target.pos_embed[:, 1:], wanted)


@pytest.mark.parametrize('patch, masker', [
    (14, dict(type='ParallelMasking', num_parts=4)), (32, dict(type='ParallelMasking', num_parts=4)),
    (14, dict(type='SalienceParallelMasking', num_parts=4)), (32, dict(type='SalienceParallelMasking', num_parts=4)),
])  # fmt: skip
def test_patches_of_other_sizes(tmp_path, patch, masker):
    """Target, picture and the way to transfer; the weights go whole into a classifier of twice the side."""
    side = 4 * patch
    model = build('EMAE', masker, dict(VIT, img_size=side, patch_size=patch, arch=dict(TINY_ARCH)))
    model.init_weights()
    model.norm_pix = False
    x = images(2, side)
    parts = model.reconstruct(x, torch.Generator().manual_seed(0))
    assert parts['target'].shape == (2, 16, patch * patch * 3)
    torch.testing.assert_close(unpatchify(parts['target'], patch, (4, 4)), x)
    total_loss(model.loss(x)).backward()
    assert model.backbone.patch_embed.projection.weight.grad.abs().sum() > 0
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    cfg = load('linear/vitb_quick_probe')
    cfg.model.backbone.update(arch=dict(TINY_ARCH), img_size=2 * side, patch_size=patch)
    target = MODELS.build(dict(cfg.model.backbone, _scope_='mmpretrain'))
    assert load_encoder(target, tmp_path / 'a.pth').fraction == 1
    torch.testing.assert_close(target.pos_embed[:, 1:], model.encoder.positions((2 * side, 2 * side)))


def test_a_table_of_two_readings_stops(tmp_path):
    """64 rows for 8 x 32 patches: 8 x 8 or 4 x 16."""
    torch.save(dict(state_dict=MODELS.build(dict(VIT, img_size=WIDE)).state_dict()), tmp_path / 'a.pth')
    with pytest.raises(LoadError, match='of 8 x 8 patches or.* of 4 x 16'):
        load_encoder(MODELS.build(dict(VIT, img_size=(64, 256))), tmp_path / 'a.pth')
    assert load_encoder(MODELS.build(dict(VIT, img_size=WIDE)), tmp_path / 'a.pth').fraction == 1


def test_a_table_of_other_proportions_that_is_no_square_stops(tmp_path):
    torch.save(dict(state_dict=MODELS.build(dict(VIT, img_size=(16, 88))).state_dict()), tmp_path / 'a.pth')
    with pytest.raises(LoadError, match='pos_embed has 23 rows'):
        load_encoder(MODELS.build(dict(VIT, img_size=WIDE)), tmp_path / 'a.pth')


# ---------------------------------------------------------------- channels and bits


@pytest.mark.parametrize('channels', [1, 4, 8])
def test_the_target_has_all_channels(channels):
    """Predicting the target itself costs nothing, and it is the image of that many channels."""
    model = wide('EMAE', in_channels=channels)
    x = torch.randn(2, channels, *WIDE, generator=torch.Generator().manual_seed(0))
    model.norm_pix = False
    parts = model.reconstruct(x, torch.Generator().manual_seed(0))
    assert parts['target'].shape[-1] == 64 * channels
    torch.testing.assert_close(unpatchify(parts['target'], 8, (4, 16)), x)
    model.norm_pix = True
    total_loss(model.loss(x)).backward()
    assert (model.backbone.patch_embed.projection.weight.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


CHANNELS = {  # kind -> file, its numbers, how the config reads it
    'grey 16 bits': (1, np.uint16, 'png'), '4 x 8 bits': (4, np.uint8, 'png'), '8 x 16 bits': (8, np.uint16, 'npy'),
    'colour 16 bits': (3, np.uint16, 'png'),
}  # fmt: skip


@pytest.fixture(params=CHANNELS)
def other(request, tmp_path):
    """Six images in two classes, and a pretrained model of their channels with its config."""
    channels, dtype, ending = CHANNELS[request.param]
    rng = np.random.RandomState(0)
    top = np.iinfo(dtype).max // (1 if dtype == np.uint8 else 16)  # 12 bits in 16
    for part in ('train', 'val'):
        for i in range(6):
            folder = tmp_path / 'images' / part / 'ab'[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.randint(0, top + 1, (40, 160, channels)).astype(dtype)
            if ending == 'npy':
                np.save(folder / f'{i}.npy', pixels)
            else:
                cv2.imwrite(str(folder / f'{i}.png'), pixels)
    bytes_in = dtype == np.uint8 or channels in (1, 3)  # mapped to 0..255 by the value range
    mean = [127.5 if bytes_in else top / 2] * channels
    backbone = dict(VIT, img_size=WIDE, in_channels=channels)
    content = dict(
        model=dict(
            type='EMAE', backbone=backbone, masker=dict(type='SalienceParallelMasking', num_parts=4),
            decoder=dict(DECODER), data_preprocessor=dict(type='mim_mm.ChannelNormalizer', mean=mean, std=mean),
        ),
        value_range=(0, int(top)), data_root=str(tmp_path / 'images'), default_scope='mim_mm',
    )  # fmt: skip
    config = tmp_path / 'config.py'
    config.write_text('\n'.join(f'{key} = {value!r}' for key, value in content.items()))
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    files = sorted((tmp_path / 'images/val').rglob(f'*.{ending}'))
    return SimpleNamespace(cfg=cfg, config=config, weights=tmp_path / 'a.pth', files=files, channels=channels, top=top)


def test_pictures_of_any_channels(other, tmp_path):
    model, _ = load_pretraining_model(other.config, other.weights)
    rows = reconstruct_files(model, other.files[:2], value_range=other.cfg.value_range)
    for row in rows:
        assert row['original'].shape == (*WIDE, 3) and row['visible'].shape == (4, *WIDE, 3)
        assert 0 <= row['original'].min() < 0.2 and 0.8 < row['original'].max() <= 1, 'from black to white'
        seen = ~np.isnan(row['visible'])
        assert (seen[..., 0].sum(0) == 1).all()
        for part in range(4):
            assert np.allclose(row['visible'][part][seen[part]], row['original'][seen[part]], atol=1e-4)
        assert row['disagreement'].shape == (4, 16)
        if other.channels == 1:
            assert np.array_equal(row['original'][..., 0], row['original'][..., 2])
    view = MaskView(other.config, other.weights)
    found = gallery(view, other.files[:1], ['BlockMasking', 'SalienceMasking'], seeds=1)
    (row,) = found['rows']
    assert row['picture'].shape == (224, 896, 3) and row['masks'][0][0].shape == (1, 4, 16)
    assert 0 <= row['picture'].min() and row['picture'].max() <= 1


def test_frozen_features_of_any_channels(other):
    preprocess = Preprocess.from_config(other.cfg)
    assert (preprocess.crop, preprocess.resize) == (WIDE, (37, 146))
    train, val = labelled_images(other.cfg, preprocess)
    found, label = train[0]
    assert found.shape == (other.channels, *WIDE) and label == 0
    backbone = MODELS.build(dict(VIT, img_size=WIDE, in_channels=other.channels))
    report = load_encoder(backbone, other.weights)
    assert report.fraction == 1
    features = extract(backbone, val, preprocess, batch_size=4)
    assert features.pooled['mean'].shape == (6, 32) and features.labels.tolist() == [0, 0, 0, 1, 1, 1]
    normal = preprocess.normalize(torch.stack([val[i][0] for i in range(6)]))
    assert normal.abs().max() <= 1.6 and normal.std() > 0.2
    torch.testing.assert_close(features.pooled['mean'], encode(backbone, normal)['mean'])
    json.dumps(Source(other.cfg, other.weights, preprocess).identity(val))


def test_proportions_of_the_crop_must_agree():
    with pytest.raises(ValueError, match='crop'):
        Preprocess(resize=256, crop=(64, 32))
    with pytest.raises(ValueError, match='must be 1 to resize'):
        Preprocess(resize=(64, 64), crop=(64, 65))
    assert images(1).shape == (1, 3, 32, 32)
