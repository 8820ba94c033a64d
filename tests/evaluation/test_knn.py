"""Weighted k-NN against a plain double loop, its identities, its limits, and the tool from images to knn.json."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from knn_data import CONFIG, clouds, colour_images
from processes import in_process

from mim_mm.evaluation.frozen.features import Features
from mim_mm.evaluation.frozen.knn import evaluate, fitting_ks, knn_accuracy, nearest, vote

ROOT = Path(__file__).resolve().parents[2]


def double_loop(bank, bank_labels, queries, query_labels, k):
    """Written with Python numbers only: sort all, let the first k vote, count."""
    first = fifth = 0
    rows = [[float(v) for v in row] for row in bank]
    for query, truth in zip(queries.tolist(), query_labels.tolist()):
        cosines = []
        for row, label in zip(rows, bank_labels.tolist()):
            lengths = math.sqrt(sum(a * a for a in query)) * math.sqrt(sum(b * b for b in row))
            cosines.append((sum(a * b for a, b in zip(query, row)) / lengths, label))
        votes = {}
        for cosine, label in sorted(cosines, reverse=True)[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp(cosine / 0.07)
        ranked = sorted(votes, key=votes.get, reverse=True)
        first += ranked[0] == truth
        fifth += truth in ranked[:5]
    return dict(top1=100 * first / len(queries), top5=100 * fifth / len(queries))


def test_against_a_double_loop():
    (bank, labels), (queries, truth) = clouds(90), clouds(40, seed=1)
    found = knn_accuracy(bank, labels, queries, truth, 6, ks=(1, 3, 10, 90), query_chunk=7, bank_chunk=13)
    assert list(found) == [1, 3, 10, 90]
    for k, value in found.items():
        assert value == pytest.approx(double_loop(bank, labels, queries, truth, k)), k
    assert 25 < found[10]['top1'] < 100 and found[10]['top5'] > found[10]['top1']  # neither trivial nor chance


def test_identical_train_and_test_is_perfect_at_k_1():
    bank, labels = clouds(50)
    assert knn_accuracy(bank, labels, bank * 3.0, labels, 6, ks=(1,))[1] == dict(top1=100.0, top5=100.0)
    shuffled = labels.roll(1)  # every neighbour is itself, so wrong labels give exactly nothing
    assert knn_accuracy(bank, labels, bank, shuffled, 6, ks=(1,))[1]['top1'] == 0.0


@pytest.mark.parametrize(('query_chunk', 'bank_chunk'), [(1, 1), (7, 11), (40, 20), (1000, 89), (3, 1000)])
def test_chunked_equals_unchunked(query_chunk, bank_chunk):
    (bank, _), (queries, _) = clouds(90), clouds(40, seed=1)
    similarity, places = nearest(queries, bank, 25, query_chunk=query_chunk, bank_chunk=bank_chunk)
    whole = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=2).sort(dim=1, descending=True)
    assert torch.equal(places, whole.indices[:, :25])
    torch.testing.assert_close(similarity, whole.values[:, :25])


def test_no_shard_is_larger_than_asked(monkeypatch):
    """The largest matrix that exists is query_chunk x (bank_chunk + k)."""
    seen = []
    real = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, 'topk', lambda t, *a, **k: seen.append(tuple(t.shape)) or real(t, *a, **k))
    (bank, _), (queries, _) = clouds(90), clouds(40, seed=1)
    nearest(queries, bank, 5, query_chunk=8, bank_chunk=16)
    assert max(s[0] for s in seen) == 8 and max(s[1] for s in seen) == 16


def test_votes_by_hand():
    similarity = torch.tensor([[0.07, 0.0, -0.07]])
    votes = vote(similarity, torch.tensor([[2, 0, 2]]), num_classes=4)
    torch.testing.assert_close(votes, torch.tensor([[1.0, 0.0, math.e + 1 / math.e, 0.0]], dtype=torch.float64))


def test_two_far_neighbours_outvote_one_near():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.05], [1.0, -0.05]])
    labels = torch.tensor([0, 1, 1])
    found = knn_accuracy(bank, labels, torch.tensor([[1.0, 0.0]]), torch.tensor([1]), 2, ks=(1, 3))
    assert (found[1]['top1'], found[3]['top1']) == (0.0, 100.0)


def test_a_class_without_a_vote_is_no_top_5_hit():
    bank, labels = torch.eye(4), torch.tensor([3, 3, 3, 3])
    found = knn_accuracy(bank, labels, torch.eye(4), torch.tensor([0, 1, 3, 3]), 10, ks=(4,))
    assert found[4] == dict(top1=50.0, top5=50.0)


@pytest.mark.parametrize('count', [1, 2, 99, 101])
def test_any_number_of_test_images(count):
    (bank, labels), (queries, truth) = clouds(30), clouds(count, seed=2)
    found = knn_accuracy(bank, labels, queries, truth, 6, ks=(10,))
    assert found[10] == pytest.approx(double_loop(bank, labels, queries, truth, 10))


def test_k_above_the_bank_is_refused_and_left_out_of_the_default():
    bank, labels = clouds(30)
    with pytest.raises(ValueError, match='k = 31 must be 1 to 30'):
        knn_accuracy(bank, labels, bank, labels, 6, ks=(1, 31))
    with pytest.raises(ValueError, match='at least 1'):
        knn_accuracy(bank, labels, bank, labels, 6, ks=(0, 3))
    with pytest.raises(ValueError, match='0 queries'):
        knn_accuracy(bank, labels, bank[:0], labels[:0], 6, ks=(1,))
    with pytest.raises(ValueError, match='3 wide, the bank 5'):
        nearest(bank[:, :3], bank, 1)
    assert fitting_ks(30) == [10, 20] and fitting_ks(7) == [7] and fitting_ks(200) == [10, 20, 100, 200]


def test_evaluate_takes_each_pooling_from_its_features():
    (bank, labels), (queries, truth) = clouds(60), clouds(20, seed=1)
    noise = torch.randn(80, 5)
    train = Features(dict(cls=noise[:60], mean=bank), labels, [''] * 60, tuple('abcdef'), {})
    val = Features(dict(cls=noise[60:], mean=queries), truth, [''] * 20, tuple('abcdef'), {})
    found = evaluate(train, val)
    assert found['ks'] == [10, 20] and found['left_out'] == [100, 200]
    assert (found['bank'], found['queries'], found['classes']) == (60, 20, 6)
    for pooling, (a, b) in dict(
        cls=(noise[:60], noise[60:]),
        mean=(bank, queries),
        cls_mean=(torch.cat([noise[:60], bank], 1), torch.cat([noise[60:], queries], 1)),
    ).items():
        assert found['accuracy'][pooling][20] == pytest.approx(double_loop(a, labels, b, truth, 20)), pooling
    with pytest.raises(ValueError, match='k = 61'):
        evaluate(train, val, ks=[61])


def run(tool, folder, *options):
    command = [sys.executable, ROOT / 'tools' / tool, 'tiny.py', 'random', '--data-root', 'data', '--workers', '0']
    return subprocess.run([*map(str, command), *options], cwd=folder, capture_output=True, text=True)


def test_tools_from_images_to_results(tmp_path):
    colour_images(tmp_path / 'data')
    (tmp_path / 'tiny.py').write_text(CONFIG)
    first = run('knn.py', tmp_path, '--k', '1', '5', '--device', 'cpu')
    assert first.returncode == 0, first.stderr
    written = json.loads((tmp_path / 'work_dirs/frozen/tiny/random_0/knn.json').read_text())
    assert (written['bank'], written['queries'], written['classes'], written['ks']) == (15, 6, 3, [1, 5])
    assert written['accuracy']['mean']['5']['top1'] == 100.0 and set(written['accuracy']) == {'cls', 'mean', 'cls_mean'}
    assert written['features']['train']['reused'] is False
    assert written['features']['val']['identity']['checkpoint'] == 'random, seed 0'
    assert 'mean' in first.stdout and '100.00' in first.stdout

    (tmp_path / 'few.txt').write_text('train0_1.png\ntrain1_0.png\ntrain1_3.png\nclass2/train2_4.png\n')
    second = run('lowshot.py', tmp_path, '--list', 'few.txt', '--fraction', '0.4', '--device', 'cpu')
    assert second.returncode == 0, second.stderr
    written = json.loads((tmp_path / 'work_dirs/frozen/tiny/random_0/lowshot.json').read_text())
    assert [(s['split'], s['images']) for s in written['splits']] == [('few', 4), ('40%-seed0', 6)]
    assert written['splits'][1]['results']['mean']['top1'] == 100.0
    assert written['features']['train']['reused'] is True  # extracted once, by the other tool

    words = ['tiny.py', 'random', '--data-root', 'data', '--workers', '0', '--k', '16', '--device', 'cpu']
    third = in_process('knn.py', *words, cwd=tmp_path)
    assert third.returncode != 0 and 'error: k = 16 must be 1 to 15' in third.stderr
