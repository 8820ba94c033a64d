"""Encoders from Python: the features are those of the backbone, images of any kind give the same, and what is no
encoder is refused."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_run import ROOT

import mim_mm
from mim_mm.api.feature_table import extract_folder, writer_of
from mim_mm.checkpoint.read import LoadError
from mim_mm.evaluation.pictures.feature_maps import pca_colours
from mim_mm.registry import MODELS

CONFIG = """
default_scope = 'mim_mm'
data_preprocessor = dict(type='ImgDataPreprocessor', mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0],
                         bgr_to_rgb=True)
model = dict(
    type='EMAE', data_preprocessor=data_preprocessor,
    backbone=dict(type='mmpretrain.VisionTransformer', img_size=32, patch_size=8, out_type='raw',
                  arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)),
    masker=dict(type='ParallelMasking', num_parts=4),
    decoder=dict(type='MAEDecoder', embed_dims=16, depth=1, num_heads=2))
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A checkpoint that carries its config as mmengine writes it, one without, and images."""
    folder = tmp_path_factory.mktemp('api')
    (folder / 'config').mkdir()
    (folder / 'config' / 'emae.py').write_text(CONFIG)
    config = Config.fromfile(folder / 'config' / 'emae.py')
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry('mim_mm') as registry:
        model = registry.build(config.model)
    model.init_weights()
    state = model.state_dict()
    torch.save(dict(state_dict=state, meta=dict(cfg=config.pretty_text)), folder / 'whole.pth')
    torch.save(dict(state_dict=state), folder / 'bare.pth')
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + 8 * i, 48, 3), np.uint8)
        (folder / 'images' / 'inner').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / 'images' / 'inner' / f'{i}.png'), pixels)
    return folder


def paths(place):
    return sorted((place / 'images').rglob('*.png'))


def test_importing_the_package_imports_no_torch():
    code = "import sys, mim_mm; assert not {'torch', 'mmengine', 'mmpretrain', 'numpy'} & set(sys.modules); mim_mm.api"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'apo'"):
        getattr(mim_mm, 'apo')  # noqa: B009


def test_features_are_those_of_the_backbone(place):
    encoder = mim_mm.api.load_encoder(place / 'whole.pth')
    assert encoder.report.fraction == 1 and not encoder.backbone.training
    cls, patches = encoder.features(paths(place), batch_size=2)
    assert cls.shape == (3, 32) and patches.shape == (3, 16, 32) and not patches.requires_grad
    # plain Pillow, restated: short edge to 37, centre crop of 32, mean and std of R, G, B
    image = Image.open(paths(place)[0])  # 48 x 40
    image = image.resize((round(48 * 37 / 40), 37), Image.BICUBIC)
    left, top = round((image.width - 32) / 2), round((37 - 32) / 2)
    pixels = np.asarray(image.crop((left, top, left + 32, top + 32)), np.float32)
    plain = (pixels - [120, 110, 100]) / [60, 50, 40]
    seen = encoder.transform(paths(place)[0]).permute(1, 2, 0).numpy()
    assert np.abs(seen - plain).max() < 0.05  # a step of rounding of one colour is 1 / 40
    backbone = encoder.backbone
    with torch.no_grad():
        x = backbone.patch_embed(encoder.transform(paths(place)[0])[None])[0]
        x = torch.cat([backbone.cls_token, x], dim=1) + backbone.pos_embed
        for layer in backbone.layers:
            x = layer(x)
        x = backbone.ln1(x)[0]
    assert torch.allclose(cls[0], x[0], atol=1e-5) and torch.allclose(patches[0], x[1:], atol=1e-5)


def test_paths_arrays_and_pillow_images_are_the_same_image(place):
    encoder = mim_mm.api.load_encoder(place / 'whole.pth')
    path = paths(place)[0]
    array = cv2.imread(str(path))[..., ::-1]
    wanted = encoder.pixels(path)
    for image in (str(path), array, Image.open(path), array.copy()):
        assert torch.equal(encoder.pixels(image), wanted)
    assert mim_mm.api.features(place / 'whole.pth', np.stack([array, array]))[1].shape == (2, 16, 32)
    grey = encoder.pixels(array[..., 0])
    assert torch.equal(grey[0], grey[2])
    for wrong, said in ((array / 255, 'float64'), (array[..., :2], r'\(40, 48, 2\)'), (3, 'int'), ([], 'no image')):
        with pytest.raises((ValueError, TypeError), match=said):
            encoder.features(wrong)


def test_where_the_config_comes_from(place, tmp_path):
    wanted = mim_mm.api.features(place / 'whole.pth', paths(place))[1]
    encoder = mim_mm.api.load_encoder(place / 'bare.pth', place / 'config' / 'emae.py')
    assert torch.equal(encoder.features(paths(place))[1], wanted)
    with pytest.raises(LoadError, match='carries no config, and there is none beside it'):
        mim_mm.api.load_encoder(place / 'bare.pth')
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'emae.py').write_text(CONFIG)
    (run / 'last_checkpoint').write_text(str(run / 'bare.pth'))
    (run / 'bare.pth').write_bytes((place / 'bare.pth').read_bytes())
    assert torch.equal(mim_mm.api.features(run, paths(place))[1], wanted)
    evil = dict(torch.load(place / 'whole.pth'), meta=dict(cfg=f'import os\nos.mkdir({str(tmp_path / "ran")!r})'))
    torch.save(evil, tmp_path / 'evil.pth')
    with pytest.raises(LoadError, match='carries no config'):
        mim_mm.api.load_encoder(tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()
    with pytest.raises(LoadError, match='does not exist'):
        mim_mm.api.load_encoder(tmp_path / 'absent.pth')
    with pytest.raises(FileNotFoundError, match='near it: .*emae_vits_300e'):
        mim_mm.api.load_encoder('emae/emae_vits_30e')


def test_a_recipe_is_its_encoder_with_random_weights():
    one, other = (mim_mm.api.load_encoder('emae/emae_vits_300e', seed=seed) for seed in (0, 1))
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert one.report is None and one.preprocess.crop == 224
    features = [encoder.features(image)[1] for encoder in (one, other)]
    assert features[0].shape == (1, 196, 384) and not torch.equal(*features)


def test_attention_is_a_row_of_the_last_block(place):
    encoder = mim_mm.api.load_encoder(place / 'whole.pth')
    found, grid = encoder.attention(paths(place)[:1])
    backbone, last = encoder.backbone, encoder.backbone.layers[-1]
    with torch.no_grad():
        x = backbone.patch_embed(encoder.transform(paths(place)[0])[None])[0]
        x = torch.cat([backbone.cls_token, x], dim=1) + backbone.pos_embed
        x = last.ln1(backbone.layers[0](x))
        q, k, _ = last.attn.qkv(x).view(1, 17, 3, 2, 16).permute(2, 0, 3, 1, 4)
        rows = (q[:, :, :1] @ k.transpose(-1, -2) / 4).softmax(-1)[:, :, 0, 1:].mean(1)
    assert grid == (4, 4) and torch.allclose(found, rows, atol=1e-5)


def test_colours_are_principal_components():
    from sklearn.decomposition import PCA

    patches = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 9.0)
    colours, shares = pca_colours(patches, 0.0, 1.0)
    pca = PCA(3).fit(patches.flatten(0, 1).double())
    assert np.allclose(shares, pca.explained_variance_ratio_, atol=1e-6)
    values = pca.transform(patches.flatten(0, 1).double())
    for mine, theirs in zip(colours.flatten(0, 1).T.numpy(), values.T):
        assert abs(np.corrcoef(mine, theirs)[0, 1]) > 1 - 1e-6 and mine.min() == 0 and mine.max() == 1
    with pytest.raises(ValueError, match='the same'):
        pca_colours(torch.ones(1, 9, 4))
    with pytest.raises(ValueError, match='no three components'):
        pca_colours(torch.rand(1, 3, 4))


def test_pictures_differ_where_features_do(place, tmp_path):
    one = cv2.imread(str(mim_mm.api.draw_features(place / 'whole.pth', paths(place), tmp_path / 'a.png')))
    encoder = mim_mm.api.load_encoder(None, place / 'config' / 'emae.py', seed=5)
    two = cv2.imread(str(mim_mm.api.draw_features(encoder, paths(place), tmp_path / 'b.png')))
    third = one.shape[0] // 3
    assert one.shape == two.shape and (one[:third] == two[:third]).mean() > 0.98 and (one != two).mean() > 0.1


def tool(name, *words):
    return subprocess.run([sys.executable, ROOT / 'tools' / name, *map(str, words)], capture_output=True, text=True)


def test_a_folder_becomes_a_table(place, tmp_path):
    call = ['--encoder', place / 'whole.pth', '--workers', 0, '--batch-size', 2]
    done = tool('features.py', place / 'images', *call, '--out', tmp_path / 'f.npy', '--draw', tmp_path / 'f.png')
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / 'f.npy')
    wanted = mim_mm.api.features(place / 'whole.pth', paths(place))[0].numpy()
    assert found.dtype == np.float32 and np.allclose(found, wanted, atol=1e-5) and (tmp_path / 'f.png').is_file()
    assert (tmp_path / 'f.txt').read_text().splitlines() == ['inner/0.png', 'inner/1.png', 'inner/2.png']
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad' / 'text.png').write_text('no image')
    before = found.tobytes()
    refused = tool('features.py', tmp_path / 'bad', *call, '--out', tmp_path / 'f.npy')
    assert refused.returncode == 2 and "text.png' cannot be read" in refused.stderr
    assert refused.stderr.count('\n') == 1 and np.load(tmp_path / 'f.npy').tobytes() == before
    with pytest.raises(ValueError, match='must end in .npy or .parquet'):
        writer_of(tmp_path / 'f.csv')


def test_a_table_as_parquet(place, tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet', reason='pyarrow is not installed')
    names, features = extract_folder(mim_mm.api.load_encoder(place / 'whole.pth'), place / 'images', pooling='cls_mean')
    writer_of(tmp_path / 'f.parquet')(names, features)
    table = parquet.read_table(tmp_path / 'f.parquet').to_pydict()
    assert table['name'] == names and np.array_equal(np.array(table['feature'], np.float32), features)
    assert features.shape == (3, 64)
