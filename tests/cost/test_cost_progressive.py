"""The cost of growing images: the mean over the epochs against sums written out here."""

import copy

import pytest
from mmengine.config import Config

from mim_mm.compat.paths import configs_root
from mim_mm.cost import Assumptions, Conditions, estimate_stage, work_of
from mim_mm.cost.measured import Measurement

BARE = Assumptions(host_ms=0)


def recipe(name):
    return Config.fromfile(str(configs_root() / name))._cfg_dict.to_dict()


def forward(size, parts):
    """FLOPs of ViT-B/16 as MAE (parts 1) or EMAE, one image: all tokens of every part, the head on hidden patches."""
    n, d, dd, values = (size // 16) ** 2, 768, 512, 768
    seen = n // 4

    def block(tokens, width):
        return 24 * tokens * width**2 + 4 * tokens**2 * width

    decoder = 8 * block(n + 1, dd) + 2 * (seen + 1) * d * dd + 2 * (n - seen) * dd * values
    return 2 * n * values * d, parts * (12 * block(seen + 1, d) + decoder)


def train(size, parts):
    embedding, rest = forward(size, parts)
    return 2 * embedding + 3 * rest  # the image needs no gradient


@pytest.mark.parametrize('kind, parts', [('mae', 1), ('emae', 4)])
def test_the_mean_over_800_epochs_by_hand(kind, parts):
    cfg = recipe(f'{kind}/{kind}_vitb_800e_progressive.py')
    mean = (320 * train(160, parts) + 240 * train(192, parts) + 240 * train(224, parts)) / 800
    work, plain = work_of(cfg), work_of(recipe(f'{kind}/{kind}_vitb_800e.py'))
    assert work.train == pytest.approx(mean, rel=1e-9) and plain.train == pytest.approx(train(224, parts), rel=1e-9)
    embedding, rest = zip(*(forward(size, parts) for size in (160, 192, 224)))
    assert work.forward == pytest.approx(0.4 * (embedding[0] + rest[0]) + 0.3 * sum(embedding[1:] + rest[1:]), rel=1e-9)
    # The shares of 224 px that were known before any of this was written.
    for size, share in ((160, 0.507), (192, 0.731)):
        assert work_of(cfg, size).train / plain.train == pytest.approx(share, abs=1e-3)
    assert work.train / plain.train == pytest.approx(0.4 * 0.507 + 0.3 * 0.731 + 0.3, abs=1e-3)
    # What decides about memory and the checkpoint is the last size.
    assert (work.params, work.saved, work.pixels) == (plain.params, plain.saved, plain.pixels)
    assert work_of(cfg, 224) == plain, 'a size asked for is one size'


def test_the_plan_and_what_it_says():
    cfg, plain = recipe('mae/mae_vitb_800e_progressive.py'), recipe('mae/mae_vitb_800e.py')
    measured = Measurement(gpu='h100', gpus=8, model=work_of(plain).model, images_per_second=8000)
    conditions = Conditions(gpus=8, mfu=dict(pretrain=0.5), measurements=[measured], assumptions=BARE)
    estimate = estimate_stage('p', cfg, conditions)
    rate = 0.5 * 989e12 / (0.4 * train(160, 1) + 0.3 * train(192, 1) + 0.3 * train(224, 1))
    assert estimate.rate == pytest.approx(rate), 'a figure measured at 224 px is not one of this'
    assert estimate.hours == pytest.approx(estimate.images / (8 * rate) / 3600)
    assert dict(estimate.memory) == dict(estimate_stage('p', plain, conditions).memory)
    text = '\n'.join(estimate.notes)
    assert '160 px in 320 epochs, 192 px in 240 epochs, 224 px in 240 epochs' in text
    assert '0.722 of the last size (160 px 0.507, 192 px 0.731, 224 px 1.000)' in text
    assert '1.42 times the images/s' in text and 'published figures do not apply' in text
    assert estimate.work.model.endswith('progressive 160/192/224')


def test_whole_epochs_hivit_and_other_models():
    cfg = recipe('emae/emae_hivitb_300e.py')
    cfg['custom_hooks'].append(dict(type='ProgressiveResolutionHook'))
    cfg['train_cfg']['max_epochs'] = 7  # starts 0, 2.8 and 4.9: epochs 0-2, 3-4, 5-6
    sizes = [work_of(cfg, size).train for size in (160, 192, 224)]
    assert work_of(cfg).train == pytest.approx((3 * sizes[0] + 2 * sizes[1] + 2 * sizes[2]) / 7, rel=1e-9)
    cfg['train_cfg']['max_epochs'] = 2
    with pytest.raises(ValueError, match='2 epochs leave none for 224 px'):
        work_of(cfg)
    other = copy.deepcopy(recipe('linear/vitb_linear_90e.py'))
    plain = work_of(other).train
    other['custom_hooks'].append(dict(type='ProgressiveResolutionHook'))
    assert work_of(other).train == plain
