"""Few labels: split counts by hand, C chosen without val, the classifier against an optimum found another way."""

import numpy as np
import pytest
import torch

from mim_mm.evaluation.frozen.features import Features
from mim_mm.evaluation.frozen.lowshot import CS, draw_split, fit, hold_out, low_shot, read_split, scores, table

NAMES = ['a/x_0.png', 'a/x_1.png', 'b/x_0.png', 'b/y_1.png', 'c/z.png']


def features(labels, seed=0, spread=0.3, classes=3):
    """Directions that a linear classifier separates: class i along axis i, with noise and lengths that mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.eye(classes, 8)[labels] + spread * torch.randn(len(labels), 8, generator=generator)
    rows = rows * torch.empty(len(labels), 1).uniform_(0.1, 50, generator=generator)
    names = [f'c{int(v)}/{i}.png' for i, v in enumerate(labels)]
    return Features(dict(mean=rows), labels, names, tuple('abcdefgh'[:classes]), {})


def test_draw_counts_by_hand():
    labels = torch.tensor([0] * 130 + [1] * 20 + [2] * 149 + [3] * 150 + [4])
    split = draw_split(labels, 0.01)
    counts = np.bincount(labels[split.indices], minlength=5).tolist()
    assert counts == [1, 1, 1, 2, 1]  # 1.3 -> 1, 0.2 -> at least 1, 1.49 -> 1, 1.5 -> 2, 0.01 -> at least 1
    ten = draw_split(labels, 0.1)
    assert np.bincount(labels[ten.indices]).tolist() == [13, 2, 15, 15, 1]
    assert set(split.indices) < set(ten.indices) and (np.diff(ten.indices) > 0).all()
    assert 'own' in split.source and 'not the published list' in split.source
    assert np.array_equal(ten.indices, draw_split(labels, 0.1).indices)
    assert not np.array_equal(ten.indices, draw_split(labels, 0.1, seed=1).indices)
    assert draw_split(labels, 1.0).indices.tolist() == list(range(450))
    for wrong in (0, 1.5, 10):
        with pytest.raises(ValueError, match='0.01 means 1 %'):
            draw_split(labels, wrong)


def test_a_class_does_not_change_the_draw_of_another():
    alone = draw_split(torch.zeros(40, dtype=torch.long), 0.25).indices
    beside = draw_split(torch.tensor([0] * 40 + [1] * 9), 0.25).indices
    assert beside[beside < 40].tolist() == alone.tolist()


def test_published_lists(tmp_path):
    file = tmp_path / '1percent.txt'
    file.write_text('z.png\n\nb/x_0.png\nx_1.png\n')  # bare where unique, with the class where not
    split = read_split(file, NAMES)
    assert split.indices.tolist() == [1, 2, 4] and split.name == '1percent' and split.source == 'list 1percent.txt'
    for text, message in (
        ('x_0.png\n', 'in several classes: write class/file'),
        ('z.png\nnone.png\nb/z.png\n', "2 of 3 names.*'none.png', is not in the train folder"),
        ('z.png\nc/z.png\n', 'c/z.png twice'),
        ('\n', 'lists no image'),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_split(file, NAMES)


def test_hold_out_counts_by_hand():
    labels = np.array([0] * 10 + [1] * 2 + [2] + [3] * 13)
    held = hold_out(labels)
    assert np.bincount(labels[held], minlength=4).tolist() == [2, 1, 0, 3]  # 2, 0.4 -> 1, a single one stays, 2.6 -> 3
    assert np.array_equal(held, hold_out(labels)) and not np.array_equal(held, hold_out(labels, seed=1))
    assert np.bincount(labels[hold_out(labels, part=1.0)], minlength=4).tolist() == [9, 1, 0, 12]


def test_learns_what_can_be_separated():
    train, val = features(torch.arange(300) % 3, spread=0.1), features(torch.arange(60) % 3, 1, spread=0.1)
    split = draw_split(train.labels, 0.1)
    result = low_shot(train, val, split)
    assert (result['images'], result['classes'], result['classes_seen'], result['queries']) == (30, 3, 3, 60)
    found = result['results']['mean']
    assert found['top1'] == 100.0 and found['converged'] and found['chosen_on'] == 6
    assert set(found['held_out']) == {f'{c:g}' for c in CS}
    noise = Features(dict(mean=torch.randn(300, 8)), train.labels, train.names, train.classes, {})
    chance = low_shot(noise, Features(dict(mean=torch.randn(60, 8)), val.labels, [], val.classes, {}), split)
    assert 10 < chance['results']['mean']['top1'] < 60  # nothing to learn, nothing learnt
    assert '100.00' in table(result) and 'own stratified draw' in table(result)


def test_val_decides_nothing():
    """Other val images leave C and the held-out scores as they are, and only the final score moves."""
    train, labels = features(torch.arange(90) % 3, spread=0.6), torch.arange(30) % 3
    split = draw_split(train.labels, 0.5)
    one = low_shot(train, features(labels, 1), split)['results']['mean']
    other = low_shot(train, features(labels, 2, spread=5.0), split)['results']['mean']
    assert (one['C'], one['held_out']) == (other['C'], other['held_out']) and one['top1'] > other['top1']
    assert one['chosen_on'] == 9  # 15 of each class, 3 of them held out


def test_only_the_split_is_seen():
    train = features(torch.arange(90) % 3, spread=0.6)
    split = draw_split(train.labels, 0.2)
    spoilt = Features(dict(mean=train.pooled['mean'].clone()), train.labels.clone(), train.names, train.classes, {})
    others = np.setdiff1d(np.arange(90), split.indices)
    spoilt.pooled['mean'][others] = float('nan')
    spoilt.labels[others] = 2
    val = features(torch.arange(30) % 3, 1)
    assert low_shot(train, val, split) == low_shot(spoilt, val, split)


def test_c_is_the_best_on_the_held_out_part():
    """Each C judged by a fit of its own on the rest; the smallest of the best wins, then all images are used."""
    from sklearn.linear_model import LogisticRegression

    labels = torch.arange(60) % 3
    rows = features(labels, spread=0.8).get('mean')
    done = fit(rows, labels, cs=(100.0, 0.001, 1.0))
    unit = (rows / rows.norm(dim=1, keepdim=True)).double().numpy()
    held = hold_out(labels.numpy())
    by_hand = {}
    for c in (0.001, 1.0, 100.0):
        model = LogisticRegression(C=c, max_iter=1000).fit(unit[~held], labels[~held])
        by_hand[c] = 100 * float((model.predict(unit[held]) == labels[held].numpy()).mean())
    assert done.held_out == by_hand and len(set(by_hand.values())) > 1
    assert done.C == min(c for c in by_hand if by_hand[c] == max(by_hand.values()))
    final = LogisticRegression(C=done.C, max_iter=1000).fit(unit, labels)
    np.testing.assert_allclose(done.model.coef_, final.coef_, atol=1e-2)
    assert (done.fitted_on, done.chosen_on) == (60, 12)


def test_optimum_by_gradient_descent():
    """The loss is C * sum of cross-entropies + |W|^2 / 2 on rows of length 1: its minimum, found by torch."""
    labels = torch.arange(45) % 3
    rows = features(labels, spread=0.8).get('mean')
    done = fit(rows, labels, cs=(2.0,))
    assert done.C == 2.0 and done.held_out == {} and done.chosen_on == 0
    x = (rows / rows.norm(dim=1, keepdim=True)).double()
    weight, bias = torch.zeros(3, 8, dtype=torch.double), torch.zeros(3, dtype=torch.double)
    weight.requires_grad_(), bias.requires_grad_()
    descent = torch.optim.LBFGS([weight, bias], max_iter=300, tolerance_grad=1e-9, line_search_fn='strong_wolfe')

    def closure():
        descent.zero_grad()
        loss = 2.0 * torch.nn.functional.cross_entropy(x @ weight.T + bias, labels, reduction='sum')
        loss = loss + weight.square().sum() / 2
        loss.backward()
        return loss

    descent.step(closure)
    np.testing.assert_allclose(done.model.coef_, weight.detach().numpy(), atol=5e-3)
    assert weight.detach().abs().max() > 0.1


def test_scores_by_hand():
    class Fixed:
        classes_ = np.array([0, 2, 3, 4, 5, 6])  # class 1 was never seen

        def predict_proba(self, x):
            assert np.allclose(np.linalg.norm(x, axis=1), 1)
            return np.tile([0.05, 0.3, 0.25, 0.2, 0.15, 0.04], (len(x), 1))  # ranking: 2 3 4 5 0 6

    found = scores(Fixed(), torch.ones(5, 3), torch.tensor([2, 0, 6, 1, 3]))
    assert found == pytest.approx(dict(top1=20.0, top5=60.0))


def test_one_image_a_class_has_nothing_to_choose_on():
    labels = torch.arange(3)
    done = fit(features(labels, spread=0.05).get('mean'), labels)
    assert done.held_out == {} and done.chosen_on == 0 and done.C == CS[len(CS) // 2] == 10.0
    result = low_shot(features(labels), features(labels, 1), draw_split(labels, 0.01))
    assert 'nothing to hold out' in table(result) and not result['results']['mean']['C_at_edge']


def test_notes_and_refusals():
    train = features(torch.arange(60) % 3, spread=0.1)
    with pytest.raises(ValueError, match='1 classes'):
        fit(train.get('mean')[:1], train.labels[:1])
    with pytest.raises(ValueError, match='0 values of C'):
        fit(train.get('mean'), train.labels, cs=())
    result = low_shot(train, train, draw_split(train.labels, 0.5), cs=(10.0, 100.0))
    assert result['results']['mean']['C_at_edge'] and 'at the edge' in table(result)
    assert not fit(train.get('mean'), train.labels, cs=(1e4,), max_iter=2).converged
    tied = fit(train.get('mean'), train.labels, cs=(1000.0, 10.0, 100.0))
    assert set(tied.held_out.values()) == {100.0} and tied.C == 10.0  # the smallest among equals
    two = train.labels.clamp(max=1)
    assert scores(fit(train.get('mean'), two).model, train.get('mean'), two)['top5'] == 100.0  # two classes, top-5
