"""Views: boxes and flips say where each was cut, one decoding, order and collation, colours as torchvision's."""

import numpy as np
import pytest
import torch
from built_recipes import CONFIGS, load
from jpegs import encoded, photo, psnr
from mmengine.dataset import Compose, default_collate
from PIL import Image
from torchvision import transforms

from mim_mm.data import colours as colours_module
from mim_mm.data import views as views_module
from mim_mm.data.colours import Colours, on_pillow
from mim_mm.data.decode import UnreadableImage
from mim_mm.data.fast_crop import resize
from mim_mm.registry import MODELS

LOAD = dict(type='mim_mm.LazyLoadImageFromFile')
PACK = dict(type='mim_mm.PackViews')
KINDS = [dict(scale=48, crop_ratio_range=(0.25, 1.0), num=2), dict(scale=24, crop_ratio_range=(0.05, 0.25), num=3)]


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp('views') / 'a.jpg'
    path.write_bytes(encoded(photo(150, 211), mode='RGB', quality=95, subsampling='4:4:4'))
    return path


def multi_crop(path, seed=0, **options):
    np.random.seed(seed)
    crop = dict(type='mim_mm.MultiCrop', **{'views': KINDS, **options})
    return Compose([LOAD, crop, PACK])(dict(img_path=str(path)))


@pytest.mark.parametrize('decoder', ['opencv', 'simplejpeg'])
def test_a_view_is_what_its_box_and_flip_say(picture, decoder):
    if decoder == 'simplejpeg':
        pytest.importorskip('simplejpeg')
    whole = np.asarray(Image.open(picture))
    flips = []
    for seed in range(5):
        sample = multi_crop(picture, seed, decoder=decoder)
        sides = [tuple(view.shape) for view in sample['inputs']]
        assert sides == [(3, 48, 48)] * 2 + [(3, 24, 24)] * 3
        for view, (top, left, height, width), flip in zip(sample['inputs'], *sample['data_samples'].values()):
            wanted = resize(whole[top : top + height, left : left + width], view.shape[1:])
            assert psnr(wanted.flip(2) if flip else wanted, view) > 40 and view.dtype == torch.uint8
            flips.append(bool(flip))
        share = sample['data_samples']['boxes'][:, 2:].prod(dim=1) / (150 * 211)
        assert (share[:2] > 0.24).all() and (share[2:] < 0.26).all()
    assert 5 < sum(flips) < 20


def test_one_decoding_an_image(picture, monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return np.zeros((150, 211, 3), np.uint8)

    monkeypatch.setattr(views_module, 'decode', counted)
    multi_crop(picture, decoder='opencv')
    assert len(calls) == 1


def test_damage_is_refused_or_passed_over_and_grey_has_three_channels(tmp_path):
    (tmp_path / 'bad.jpg').write_bytes(b'no picture')
    with pytest.raises(UnreadableImage, match='bad.jpg'):
        multi_crop(tmp_path / 'bad.jpg')
    assert multi_crop(tmp_path / 'bad.jpg', skip_unreadable=True) is None
    (tmp_path / 'grey.jpg').write_bytes(encoded(photo(60, 60), mode='L'))
    view = multi_crop(tmp_path / 'grey.jpg')['inputs'][0]
    assert view.shape == (3, 48, 48) and torch.equal(view[0], view[2])


def test_batches_are_lists_that_mmpretrain_normalises(picture):
    batch = default_collate([multi_crop(picture, seed) for seed in range(2)])
    assert [tuple(view.shape) for view in batch['inputs']] == [(2, 3, 48, 48)] * 2 + [(2, 3, 24, 24)] * 3
    assert batch['data_samples']['boxes'].shape == (2, 5, 4) and batch['data_samples']['flips'].shape == (2, 5)
    kept = batch['inputs'][4].clone()
    data = MODELS.build(dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[10, 20, 30], std=[2, 4, 5]))(batch, True)
    assert isinstance(data['inputs'], list) and set(data['data_samples']) == {'boxes', 'flips'}
    channels = torch.tensor([10.0, 20, 30]).view(3, 1, 1), torch.tensor([2.0, 4, 5]).view(3, 1, 1)
    torch.testing.assert_close(data['inputs'][4], (kept.float() - channels[0]) / channels[1])


def test_shifted_windows_lie_where_they_say(picture):
    crop = dict(type='mim_mm.FastRandomResizedCrop', scale=40)
    flip = dict(type='mim_mm.FastRandomFlip', prob=0.5)
    shifted = dict(type='mim_mm.ShiftedViews', size=32, views=[dict(), dict(shift=7)])
    load_and_cut = Compose([LOAD, crop, flip])
    seen = set()
    for seed in range(60):
        np.random.seed(seed)
        whole = load_and_cut(dict(img_path=str(picture)))['img'][..., ::-1]
        np.random.seed(seed)
        sample = Compose([LOAD, crop, flip, shifted, PACK])(dict(img_path=str(picture)))
        for view, (top, left, *size) in zip(sample['inputs'], sample['data_samples']['boxes'].tolist()):
            assert size == [32, 32]
            assert np.array_equal(view.permute(1, 2, 0).numpy(), whole[top : top + 32, left : left + 32])
        first, second = sample['data_samples']['boxes'].tolist()
        assert first[:2] == [0, 0]
        seen |= {('row', second[0]), ('column', second[1])}
    assert seen == {(axis, offset) for axis in ('row', 'column') for offset in range(8)}
    with pytest.raises(ValueError, match='does not fit'):
        Compose([LOAD, dict(crop, scale=38), shifted])(dict(img_path=str(picture)))


@pytest.mark.parametrize('options, says', [
    (dict(blur_prob=1.5), 'probability'), (dict(jitter=(0.4, 0.4, 0.2, 0.6)), 'hue'),
    (dict(blur_sigma=(2.0, 0.1)), 'blur_sigma'),
])  # fmt: skip
def test_colours_without_a_meaning_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Colours(**options)


def fields(image):
    """Per image: mean, contrast, saturation (mean spread of channels), sharpness; where each is far from the rest."""
    x = np.asarray(image, float)
    return x.mean(), x.std(), (x.max(-1) - x.min(-1)).mean(), np.abs(np.diff(x, axis=0)).mean()


def reference(blur, solarise):
    """The transforms of DINO's and iBOT's releases, in torchvision's words."""
    jitter = transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8)
    smooth = transforms.RandomApply([transforms.GaussianBlur(13, (0.1, 2.0))], p=blur)
    return transforms.Compose(
        [jitter, transforms.RandomGrayscale(0.2), smooth, transforms.RandomSolarize(128, solarise)]
    )


@pytest.mark.parametrize('blur, solarise', [(1.0, 0.0), (0.1, 0.2), (0.5, 0.0)])
def test_colours_have_the_statistics_of_torchvision(blur, solarise):
    image = Image.fromarray(photo(32, 32))
    ours = on_pillow(Colours(jitter_prob=0.8, grey_prob=0.2, blur_prob=blur, solarise_prob=solarise))
    theirs = reference(blur, solarise)
    count = 600
    torch.manual_seed(0), views_module.random.seed(0)
    mine = np.array([fields(ours(image)) for _ in range(count)])
    torch.manual_seed(1)
    wanted = np.array([fields(theirs(image)) for _ in range(count)])
    for column in range(4):
        a, b = mine[:, column], wanted[:, column]
        error = np.sqrt((a.var() + b.var()) / count)
        assert abs(a.mean() - b.mean()) < 4 * error + 0.02 * abs(b.mean())
        assert a.std() == pytest.approx(b.std(), rel=0.2)
    grey = (mine[:, 2] == 0).mean()
    assert grey == pytest.approx(0.2, abs=0.06)


def test_the_recipes_have_the_values_of_the_releases():
    multi = load(CONFIGS / '_base_/datasets/imagenet_multi_crop.py').train_pipeline[1]
    first, second, local = multi['views']
    for view in multi['views']:
        own = view['colours']
        assert (tuple(own['jitter']), own['jitter_prob'], own['grey_prob']) == ((0.4, 0.4, 0.2, 0.1), 0.8, 0.2)
    assert [view['colours']['blur_prob'] for view in multi['views']] == [1.0, 0.1, 0.5]
    assert second['colours']['solarise_prob'] == 0.2 and 'solarise_prob' not in first['colours']
    assert (first['scale'], local['scale'], local['num']) == (224, 96, 8)
    shifted = load(CONFIGS / '_base_/datasets/imagenet_shifted_views.py').train_pipeline[3]
    plain, changed = shifted['views']
    assert plain == {} and changed['shift'] == 31 and changed['colours']['jitter'] == (0.4, 0.4, 0.4, 0.1)
    assert changed['colours']['blur_prob'] == 0.5 and 'solarise_prob' not in changed['colours']


def test_colours_on_the_device_have_the_same_statistics(picture):
    pytest.importorskip('kornia')
    options = dict(jitter_prob=0.8, grey_prob=0.2, blur_prob=0.5, solarise_prob=0.2)
    image = Image.fromarray(photo(32, 32))
    batch = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None].repeat(400, 1, 1, 1)
    views = MODELS.build(dict(type='ColourViews', colours=[None, options], mean=[0, 0, 0], std=[1, 1, 1]))
    torch.manual_seed(0)
    parts = [views(dict(inputs=[batch, batch], data_samples=None), True)['inputs'] for _ in range(3)]
    assert torch.equal(parts[0][0], batch.float())
    mine = np.array([fields(x) for part in parts for x in part[1].permute(0, 2, 3, 1).numpy()])
    wanted = np.array([fields(on_pillow(Colours(**options))(image)) for _ in range(600)])
    for column in range(4):
        a, b = mine[:, column], wanted[:, column]
        # the order of the jitter is one for a batch, hence the wider bounds
        assert abs(a.mean() - b.mean()) < 0.06 * abs(b.mean()) and a.std() == pytest.approx(b.std(), rel=0.25)
    with pytest.raises(ValueError, match='one entry for each'):
        views(dict(inputs=[batch], data_samples=None), True)


def test_without_kornia_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'kornia.augmentation', None)
    with pytest.raises(ImportError, match=r'mim_mm\[colour\]'):
        colours_module.on_device(Colours(grey_prob=0.2))
