"""Figures: refusals, arrays behind the pictures, and pictures that differ when what they show differs."""

import cv2
import numpy as np
import pytest
import torch
from chain_factory import write_demo_chain

from mim_mm.evaluation.pictures.reconstruction import (
    disagreement,
    load_pretraining_model,
    read_images,
    reconstruct_files,
)
from mim_mm.report.collect import collect
from mim_mm.report.figures import draw_curves
from mim_mm.report.figures_detections import draw_detections
from mim_mm.report.figures_reconstruction import draw_reconstructions

CONFIG = """
default_scope = 'mim_mm'
model = dict(
    type='EMAE',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[110.0] * 3, std=[64.0] * 3),
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16),
        img_size=16, patch_size=4, out_type='raw'),
    masker=dict(type='ParallelMasking', num_parts=4),
    decoder=dict(type='MAEDecoder', embed_dims=16, depth=1, num_heads=2),
    norm_eps=0.02,
)
"""


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """A config, a checkpoint of it with every weight, and three images, one of another size."""
    folder = tmp_path_factory.mktemp('pretrained')
    (folder / 'config.py').write_text(CONFIG)
    torch.manual_seed(0)
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mim_mm.registry import MODELS

    init_default_scope('mim_mm')  # another test may have left mmdet's
    model = MODELS.build(Config.fromfile(folder / 'config.py').model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), folder / 'full.pth')
    encoder = {k: v for k, v in model.state_dict().items() if k.startswith('backbone.')}
    torch.save(dict(state_dict=encoder), folder / 'encoder.pth')
    rng = np.random.RandomState(0)
    for index, side in enumerate((16, 16, 24)):
        cv2.imwrite(str(folder / f'{index}.png'), rng.randint(0, 256, (side, side, 3), np.uint8))
    return folder


def test_reconstruction_arrays(pretrained):
    model, config = load_pretraining_model(pretrained / 'config.py', pretrained / 'full.pth')
    assert config.model.type == 'EMAE' and not model.training
    files = [pretrained / f'{i}.png' for i in range(3)]
    rows = reconstruct_files(model, files, seed=3)
    again = reconstruct_files(model, files, seed=3)
    other = reconstruct_files(model, files, seed=4)
    for row, same, different, file in zip(rows, again, other, files):
        assert row['visible'].shape == row['reconstructed'].shape == (4, 16, 16, 3)
        assert row['disagreement'].shape == (4, 4) and np.isfinite(row['disagreement']).all()
        seen = ~np.isnan(row['visible'][..., 0])
        assert (seen.sum(0) == 1).all(), 'parallel parts see each pixel exactly once'
        # what is seen is the file itself, in RGB, and is left as it is in the reconstruction
        image = cv2.resize(cv2.imread(str(file)), (16, 16), interpolation=cv2.INTER_AREA)[..., ::-1] / 255
        for part in range(4):
            assert np.allclose(row['visible'][part][seen[part]], image[seen[part]], atol=1e-5)
            assert np.allclose(row['reconstructed'][part][seen[part]], image[seen[part]], atol=1e-5)
            assert not np.allclose(row['reconstructed'][part][~seen[part]], image[~seen[part]], atol=0.05)
        assert np.array_equal(row['visible'], same['visible'], equal_nan=True)
        assert not np.array_equal(row['visible'], different['visible'], equal_nan=True)


def test_hidden_patches_borrow_true_statistics(pretrained):
    """A decoder that predicts zeros draws every hidden patch as its own mean: that is what the figure's note says."""
    model, _ = load_pretraining_model(pretrained / 'config.py', pretrained / 'full.pth')
    torch.nn.init.zeros_(model.decoder.decoder_pred.weight)
    torch.nn.init.zeros_(model.decoder.decoder_pred.bias)
    row = reconstruct_files(model, [pretrained / '0.png'])[0]
    patches = row['original'].reshape(4, 4, 4, 4, 3)
    means = (patches.mean(axis=(1, 3, 4), keepdims=True) * np.ones_like(patches)).reshape(16, 16, 3)
    for part in range(4):
        hidden = np.isnan(row['visible'][part])
        # The mean is taken over the normalised channels, which share one mean and std here.
        assert np.allclose(row['reconstructed'][part][hidden], means[hidden], atol=1e-4)
    assert np.allclose(row['disagreement'], 0)


def test_refuses_an_exported_encoder_and_other_models(pretrained, tmp_path):
    with pytest.raises(ValueError, match='weights of the decoder .* not an exported encoder'):
        load_pretraining_model(pretrained / 'config.py', pretrained / 'encoder.pth')
    wider = tmp_path / 'wider.py'
    wider.write_text(CONFIG.replace('embed_dims=16, depth=1', 'embed_dims=32, depth=1'))
    with pytest.raises(ValueError, match='use the config the checkpoint was trained with'):
        load_pretraining_model(wider, pretrained / 'full.pth')
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(ValueError, match="text.png' cannot be read: cannot identify"):  # it is there, and no image
        read_images([tmp_path / 'text.png'], 16, 16)


def test_disagreement_by_hand():
    pred = torch.zeros(1, 3, 4, 2)
    pred[0, 0, 0] = torch.tensor([1.0, 3.0])  # part 0 against part 1 at patch 0: (1 + 3) / 2 = 2
    pred[0, 2, 1] = 5.0
    mask = torch.tensor([[[1, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]]], dtype=torch.bool)
    result = disagreement(pred, mask)[0]
    # patch 0: one pair, 2. patch 1: pairs 0-1: 0, 0-2: 5, 1-2: 5 -> 10/3. patch 2 and 3: hidden to one part only
    assert torch.allclose(result[:2], torch.tensor([2.0, 10 / 3])) and result[2:].isnan().all()


def picture(path):
    image = cv2.imread(str(path))
    assert image is not None and min(image.shape[:2]) > 100 and image.std() > 5
    return image


def test_reconstruction_figure_for_one_and_for_four_parts(pretrained, tmp_path):
    model, _ = load_pretraining_model(pretrained / 'config.py', pretrained / 'full.pth')
    rows = reconstruct_files(model, [pretrained / '0.png', pretrained / '1.png'])
    four = picture(draw_reconstructions(rows, tmp_path / 'a' / 'four.png'))
    one = [dict(r, visible=r['visible'][:1], reconstructed=r['reconstructed'][:1]) for r in rows]
    assert picture(draw_reconstructions(one, tmp_path / 'one.png')).shape[1] < four.shape[1]
    with pytest.raises(ValueError, match='no image'):
        draw_reconstructions([], tmp_path / 'none.png')


def test_detection_figure_shows_what_was_found(tmp_path):
    mask = np.zeros((64, 64), bool)
    mask[10:30, 12:25] = True
    instance = dict(label=3, box=np.array([12, 10, 25, 30]), mask=mask, score=None)
    scene = dict(image=np.full((64, 64, 3), 90, np.uint8), truth=[instance], found=[dict(instance, score=0.9)])
    classes = [str(i) for i in range(10)]
    found = picture(draw_detections(dict(classes=classes, scenes=[scene]), tmp_path / 'found.png'))
    missed = picture(draw_detections(dict(classes=classes, scenes=[dict(scene, found=[])]), tmp_path / 'missed.png'))
    half = found.shape[0] // 2
    assert found.shape == missed.shape
    assert (found[:half] != missed[:half]).any() and (found[half:] == missed[half:]).all()
    with pytest.raises(ValueError, match='no scene'):
        draw_detections(dict(classes=classes, scenes=[]), tmp_path / 'none.png')


def test_curves_follow_the_logs(tmp_path):
    folder = write_demo_chain(tmp_path / 'chain')
    chain = collect(folder)
    drawn = draw_curves(chain, tmp_path / 'a')
    assert [path.name for path, _, _ in drawn] == ['curves_pretrain.png']
    # 1.5 / step for steps 1 to 39
    words = 'reconstruction error 1.5 to 0.0385 in 39 points, self-consistency 0.5 to 0.0128 in 39 points'
    assert drawn[0][2] == f'Curves. pretrain: {words}.'
    first = picture(drawn[0][0])
    scalars = folder / 'pretrain' / 'vis_data' / 'scalars.json'
    scalars.write_text(scalars.read_text().replace('"mse_patch_mean": 1.0', '"mse_patch_mean": 0.5'))
    second = picture(draw_curves(chain, tmp_path / 'b')[0][0])
    assert first.shape != second.shape or (first != second).any()
    scalars.unlink()
    assert draw_curves(chain, tmp_path / 'c') == []
