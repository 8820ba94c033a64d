"""Quick measurements: features by the long way, choices that never see the test set, a caller left as it was."""

import random

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from mim_mm.evaluation.frozen.features import FolderImages, Preprocess, encode
from mim_mm.evaluation.probes.probe_features import pool, read_blocks
from mim_mm.evaluation.quality import measure as room
from mim_mm.evaluation.quality.measure import (
    QualityData,
    QualitySettings,
    choose_head,
    choose_knn,
    drawn,
    measure_quality,
)
from mim_mm.evaluation.quality.quality_features import compact_tokens, extract_tokens
from mim_mm.evaluation.quality.random_state import preserved_random_state

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
VIT = dict(type='VisionTransformer', arch=ARCH, img_size=32, patch_size=8, out_type='raw', drop_rate=0.5)
PREPROCESS = Preprocess(resize=32, crop=32)
PROBE = dict(blocks=(1, 2), lrs=(0.1, 1.0), iters=12, batch_size=8)


@pytest.fixture
def labelled(tmp_path):
    """Three classes of one colour each, 8 training and 3 test images."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 3)):
        for label, name in enumerate(('ant', 'bee', 'cat')):
            for index in range(count):
                pixels = rng.integers(0, 80, (32, 32, 3), dtype=np.uint8)
                pixels[..., label] += 150
                file = tmp_path / 'labelled' / split / name / f'{index}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    return tmp_path / 'labelled'


def settings(folder, **options):
    return QualitySettings(str(folder), **{**dict(probe=PROBE, workers=0, batch_size=5, ks=(1, 3)), **options})


def encoder(**options):
    torch.manual_seed(1)
    backbone = MMPRETRAIN.build(dict(VIT, **options))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone


# ---------------------------------------------------------------- features


@pytest.mark.parametrize('pooling', ['cls', 'mean', 'cls_mean'])
@pytest.mark.parametrize('blocks', [1, 3])
def test_two_tokens_pool_to_what_all_tokens_pool_to(pooling, blocks):
    backbone, images = encoder(), torch.randn(4, 3, 32, 32)
    compact = compact_tokens(backbone, images, 3)
    assert compact.shape == (4, 3, 2, 32) and not compact.requires_grad
    backbone.eval()
    whole = read_blocks(backbone, images, 3)
    torch.testing.assert_close(pool(compact.unbind(1), blocks, pooling, 1), pool(whole, blocks, pooling, 1))


@pytest.mark.parametrize(
    ('backbone', 'shape'),
    [
        (dict(VIT, type='MAEViT'), (2, 3, 2, 32)),
        (dict(VIT, type='BEiTPretrainViT'), (2, 3, 2, 32)),
        (dict(type='HiViT', arch=dict(embed_dims=32, depths=[1, 1, 8], num_heads=2), img_size=32),
         (2, 4, 1, 32)),
        (dict(type='SwinTransformer', arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2]), img_size=32,
              patch_size=4, window_size=4, out_indices=(1,)), (2, 1, 1, 16)),
    ],
)  # fmt: skip
def test_every_family_and_none_masks(backbone, shape):
    torch.manual_seed(0)
    built, images = MMPRETRAIN.build(dict(backbone)), torch.randn(2, 3, 32, 32)
    first = compact_tokens(built, images, 4)
    assert first.shape == shape and torch.equal(first, compact_tokens(built, images, 4))
    torch.testing.assert_close(first[:, -1, -1], encode(built, images)['mean'])  # what tools/knn.py reads


def test_features_are_those_of_the_images_in_their_order(labelled):
    data = QualityData(settings(labelled), PREPROCESS)
    backbone = encoder()
    found = extract_tokens(backbone, data.train, data.settings, PREPROCESS, 'cpu')
    whole = FolderImages(labelled, 'train', PREPROCESS)
    images = torch.stack([whole[i][0] for i in range(24)])
    torch.testing.assert_close(found, compact_tokens(backbone, PREPROCESS.normalize(images), 2), rtol=1e-4, atol=1e-5)
    assert data.train_labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    with torch.no_grad():
        backbone.ln1.weight.fill_(float('nan'))
    with pytest.raises(RuntimeError, match='not finite'):
        extract_tokens(backbone, data.train, data.settings, PREPROCESS, 'cpu')


# ---------------------------------------------------------------- which images


def test_drawn_is_limited_by_class_and_stable():
    labels = [0] * 30 + [1] * 4 + [2] * 30
    few = drawn(labels, 6, seed=0)
    assert np.bincount([labels[i] for i in few]).tolist() == [6, 4, 6] and few == sorted(set(few))
    assert few == drawn(labels, 6, seed=0) != drawn(labels, 6, seed=1)
    assert drawn(labels, None, 0) == list(range(64))
    # A class more changes nothing for the others.
    assert few == [i for i in drawn([*labels, *[3] * 9], 6, seed=0) if i < 64]


@pytest.mark.slow
def test_limits_parts_and_protocol(labelled):
    data = QualityData(settings(labelled, max_train_per_class=5, max_val_per_class=2, fraction=0.4), PREPROCESS)
    assert (len(data.train), len(data.val), int(data.choose.sum())) == (15, 6, 6)
    assert data.train_labels[data.choose].tolist() == [0, 0, 1, 1, 2, 2]
    assert [data.train[i][1] for i in range(15)] == data.train_labels.tolist()
    faster = QualityData(settings(labelled, max_train_per_class=5, max_val_per_class=2, fraction=0.4,
                                  batch_size=9, workers=1), PREPROCESS)  # fmt: skip
    assert faster.digest == data.digest, 'speed is no part of the protocol'
    others = [dict(max_train_per_class=6), dict(seed=1), dict(ks=(1,)), dict(probe=dict(PROBE, iters=13))]
    digests = {QualityData(settings(labelled, **other), PREPROCESS).digest for other in others}
    assert len(digests | {data.digest}) == 5


@pytest.mark.parametrize('options, words', [
    (dict(max_train_per_class=1), 'at least 2'), (dict(max_val_per_class=0), 'at least 1'), (dict(amp='bf8'), 'bf16'),
    (dict(fraction=1.0), 'between 0 and 1'), (dict(probe=dict(lr=1)), r"\['lr'\].*lrs"), (dict(ks=(0,)), 'ks='),
])  # fmt: skip
def test_wrong_settings_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        QualitySettings('x', **options)


# ---------------------------------------------------------------- choices


def made_up(data, separable):
    """Tokens (N, L, T, D) for train and val: class in the token called ``separable``, noise in the other."""
    generator = torch.Generator().manual_seed(2)
    out = []
    for labels in (data.train_labels, data.val_labels):
        tokens = torch.randn(len(labels), 2, 2, 32, generator=generator)
        tokens[:, :, dict(cls=0, mean=1)[separable], :3] += 12 * torch.eye(3)[labels][:, None]
        out.append(tokens)
    return out


@pytest.mark.parametrize('separable', ['cls', 'mean'])
def test_choices_find_the_token_that_knows(labelled, separable):
    data = QualityData(settings(labelled), PREPROCESS)
    train, val = made_up(data, separable)
    knn = choose_knn(train, val, data, 'cpu')
    head = choose_head(train, val, data, 'cpu')
    assert knn['pooling'] == separable and knn['top1'] == 100 == head['top1']
    assert separable in head['head'] and head['heads'] == 2 * 3 * 2 * 2


def test_the_test_images_have_no_say(labelled):
    """Whatever the test labels are, the same things are chosen; only the accuracy follows."""
    data = QualityData(settings(labelled), PREPROCESS)
    train, val = made_up(data, 'mean')
    noise = torch.randn(train.shape, generator=torch.Generator().manual_seed(4))
    train = torch.where(torch.rand(len(train), 1, 1, 1, generator=torch.Generator().manual_seed(5)) < 0.5, noise, train)
    first = choose_knn(train, val, data, 'cpu'), choose_head(train, val, data, 'cpu')
    data.val_labels = (data.val_labels + 1) % 3
    second = choose_knn(train, val, data, 'cpu'), choose_head(train, val, data, 'cpu')
    for before, after in zip(first, second):
        assert {**before, 'top1': 0} == {**after, 'top1': 0} and before['top1'] != after['top1']


def test_knn_is_sklearns_for_one_neighbour(labelled):
    data = QualityData(settings(labelled, ks=(1,)), PREPROCESS)
    train, val = (torch.randn(n, 1, 1, 8, generator=torch.Generator().manual_seed(n)) for n in (24, 9))
    found = choose_knn(train, val, data, 'cpu')
    judge = KNeighborsClassifier(1, metric='cosine').fit(train[:, 0, 0].numpy(), data.train_labels.numpy())
    assert found['top1'] == pytest.approx(100 * judge.score(val[:, 0, 0].numpy(), data.val_labels.numpy()))
    fit, held = ~data.choose, data.choose
    judge.fit(train[fit, 0, 0].numpy(), data.train_labels[fit].numpy())
    wanted = 100 * judge.score(train[held, 0, 0].numpy(), data.train_labels[held].numpy())
    assert found['held_out_top1'] == pytest.approx(wanted)


# ---------------------------------------------------------------- the caller


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), torch.initial_seed()


def test_random_states_come_back_even_after_an_error():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model[0].mask_generator = torch.Generator().manual_seed(7)
    before, own = states(), model[0].mask_generator.get_state()
    with pytest.raises(KeyError), preserved_random_state(model):
        random.seed(1), np.random.seed(1), torch.manual_seed(1), torch.rand(3, generator=model[0].mask_generator)
        assert states()[3] == 1
        raise KeyError
    after = states()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2]) and before[3] == after[3]
    assert torch.equal(own, model[0].mask_generator.get_state())


def test_measuring_leaves_no_trace_and_repeats(labelled):
    data, backbone = QualityData(settings(labelled), PREPROCESS), encoder()
    backbone.layers[1].training = False
    modes, weights = [m.training for m in backbone.modules()], [p.clone() for p in backbone.parameters()]
    before = states()
    found = measure_quality(backbone, data)
    after = states()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2]) and before[3] == after[3]
    torch.rand(5)
    again = measure_quality(backbone, data)
    assert [m.training for m in backbone.modules()] == modes
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(weights, backbone.parameters()))
    assert not any(m._forward_hooks for m in backbone.modules())
    assert {**found, 'seconds': 0} == {**again, 'seconds': 0}
    assert found['images'] == dict(train=24, held_out=6, test=9) and found['classes'] == 3
    assert found['knn_top1'] == found['knn']['top1'] and found['probe_top1'] == found['probe']['top1']


def test_an_error_of_the_heads_reaches_every_caller_as_one_kind(labelled, monkeypatch):
    data = QualityData(settings(labelled), PREPROCESS)
    monkeypatch.setattr(room, 'choose_head', lambda *args: 1 / 0)
    with pytest.raises(RuntimeError, match='ZeroDivisionError'):
        measure_quality(encoder(), data)


# ---------------------------------------------------------------- two processes


def _rank(rank, store, labelled, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    data, backbone = QualityData(settings(labelled), PREPROCESS), encoder()
    results[rank, 'tokens'] = extract_tokens(backbone, data.val, data.settings, PREPROCESS, 'cpu')
    results[rank, 'found'] = {**measure_quality(backbone, data), 'seconds': 0}
    if rank == 1:
        data.preprocess = None  # stands for whatever fails in this process alone
    try:
        measure_quality(backbone, data)
    except RuntimeError as error:
        results[rank, 'error'] = str(error)
    torch.distributed.destroy_process_group()


def test_two_processes_share_an_odd_number_and_fail_together(labelled, tmp_path):
    context = torch.multiprocessing.get_context('forkserver')
    with context.Manager() as manager:
        results = manager.dict()
        workers = [context.Process(target=_rank, args=(r, tmp_path / 'store', labelled, results)) for r in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(300)
        assert [worker.exitcode for worker in workers] == [0, 0]
        results = dict(results)
    data = QualityData(settings(labelled), PREPROCESS)
    whole = extract_tokens(encoder(), data.val, data.settings, PREPROCESS, 'cpu')
    assert len(whole) == 9 and len(results[1, 'tokens']) == 0
    torch.testing.assert_close(results[0, 'tokens'], whole, rtol=1e-4, atol=1e-5)
    assert results[0, 'found'] == results[1, 'found'] and results[0, 'found']['images']['test'] == 9
    assert 'another process' in results[0, 'error'] and 'AttributeError' in results[1, 'error']
