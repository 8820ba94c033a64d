"""RankMe and LiDAR on features whose rank is known, and against restatements of their formulas in numpy."""

import numpy as np
import pytest
import torch

from mim_mm.evaluation.frozen.ranks import effective_rank, lidar, rankme
from mim_mm.evaluation.quality.variety import variety


def orthogonal(size, seed=0):
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.double, generator=torch.Generator().manual_seed(seed)))[
        0
    ]


def separated(k, width=12, q=40, noise=0.1, seed=0):
    """2k surrogate classes at +-10 along k orthogonal directions, with isotropic noise: (2k, q, width)."""
    centres = torch.cat([10 * torch.eye(k, width), -10 * torch.eye(k, width)]).double()
    # Along each axis q / (2 width) views to either side: the covariance within classes is a multiple of the identity.
    away = noise * torch.cat([torch.eye(width), -torch.eye(width)]).double().repeat(q // (2 * width) + 1, 1)
    return (centres[:, None] + away) @ orthogonal(width, seed).T


@pytest.mark.parametrize('k', [1, 2, 5, 8])
def test_rankme_counts_orthogonal_directions_of_equal_energy(k):
    rows = torch.eye(k, 8, dtype=torch.double).repeat(7, 1) @ orthogonal(8).T
    assert float(rankme(rows)) == pytest.approx(k, abs=1e-4)
    assert float(rankme(rows.float())) == pytest.approx(k, abs=1e-3)


def test_rankme_is_the_formula_of_the_paper():
    rows = torch.randn(50, 12, generator=torch.Generator().manual_seed(1)).double()
    sigma = np.linalg.svd(rows.numpy(), compute_uv=False)
    p = sigma / np.abs(sigma).sum() + 1e-7
    assert float(rankme(rows)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-12)
    # Neither centred nor normalised: a common direction lowers it, and so does one long row.
    assert rankme(rows + 100) < 2 and rankme(torch.cat([rows, 1e4 * rows[:1]])) < 2


def test_two_unequal_directions_by_hand():
    """Shares 3/4 and 1/4: entropy 0.5623, its exponential 1.7548."""
    assert float(rankme(torch.diag(torch.tensor([3.0, 1.0])), epsilon=0.0)) == pytest.approx(1.7548, abs=1e-4)
    assert float(effective_rank(torch.zeros(5), epsilon=0.0)) == 1.0


def test_rankme_ignores_scale_and_rotation():
    rows = torch.randn(40, 10, generator=torch.Generator().manual_seed(2)).double()
    for other in (rows * 1e-3, rows * 1e5, rows @ orthogonal(10), rows[torch.randperm(40)]):
        assert float(rankme(other)) == pytest.approx(float(rankme(rows)), rel=1e-9)


def test_what_a_training_logs_is_the_same_function():
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(3))
    assert variety(rows)['feature_rank'] == float(rankme(rows, epsilon=0.0))
    assert variety(rows)['feature_rank'] == pytest.approx(float(rankme(rows)), rel=1e-4)


@pytest.mark.parametrize('k', [1, 3, 6])
def test_lidar_counts_separated_directions(k):
    found = lidar(separated(k))
    assert found.value == pytest.approx(k, abs=1e-3) and found.below_delta == 0


def test_lidar_weighs_directions_by_their_noise():
    """Two directions of equal spread between classes; in the second the views vary 100 times as much, so it is 1 : 100.

    Eigenvalues a and a / 100 (delta aside): shares 100/101 and 1/101, entropy 0.0555, rank 1.0571. RankMe sees two.
    """
    flat = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]).double() * 10
    away = torch.tensor([[1.0, 0], [-1, 0], [0, 10], [0, -10]]).double()
    views = flat[:, None] + away
    assert lidar(views, delta=0.0).value == pytest.approx(1.0571, abs=2e-4)
    assert float(rankme(views.flatten(0, 1))) > 1.9


def lidar_in_numpy(views, delta, epsilon=1e-7):
    """Thilak et al. 2024 with the inverse root by scipy and a loop over classes."""
    import scipy.linalg

    n, q, width = views.shape
    means = views.mean(1)
    between, within = np.zeros((width, width)), np.zeros((width, width))
    for mean, part in zip(means, views):
        between += np.outer(mean - means.mean(0), mean - means.mean(0)) / (n - 1)
        within += np.cov(part, rowvar=False) / n
    root = np.linalg.inv(scipy.linalg.sqrtm(within + delta * np.eye(width)).real)
    values = np.linalg.eigvals(root @ between @ root).real.clip(0)
    p = values / values.sum() + epsilon
    return np.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize('shape, delta', [((70, 6, 9), 1e-4), ((5, 4, 9), 1e-4), ((130, 3, 4), 0.5)])
def test_lidar_is_the_formula_of_the_paper(shape, delta):
    generator = torch.Generator().manual_seed(4)
    scale = torch.linspace(0.01, 2, shape[-1])
    views = torch.randn(shape[0], 1, shape[2], generator=generator) * scale + 0.3 * torch.randn(
        shape, generator=generator
    )
    assert lidar(views, delta).value == pytest.approx(lidar_in_numpy(views.double().numpy(), delta), rel=1e-6)
    assert lidar(views, delta).value <= min(shape[0] - 1, shape[2]) + 1e-4


def test_lidar_ignores_rotation_and_shift_and_without_delta_scale():
    generator = torch.Generator().manual_seed(5)
    views = (
        torch.randn(30, 1, 8, generator=generator).double() + 0.5 * torch.randn(30, 7, 8, generator=generator).double()
    )
    value = lidar(views).value
    assert lidar(views @ orthogonal(8)).value == pytest.approx(value, rel=1e-9)
    assert lidar(views + 1000).value == pytest.approx(value, rel=1e-6)
    mixed = views @ torch.diag(torch.linspace(0.1, 30, 8).double())  # any linear map: noise is measured along with it
    for other in (views * 1e-6, views * 1e6, mixed):
        assert lidar(other, delta=0.0).value == pytest.approx(lidar(views, delta=0.0).value, rel=1e-6)
    small = lidar(views * 1e-3)  # all noise below delta: the figure is that of the means alone, and this is said
    assert small.below_delta == 8 and small.value != pytest.approx(value, rel=1e-3)


def test_collapsed_features_have_rank_one():
    """What is left of features that are all the same is rounding, which is spread evenly."""
    same = torch.randn(16, generator=torch.Generator().manual_seed(6)).expand(40, 5, 16)
    rounding = same * (1 + 1e-7 * torch.randn(40, 5, 16, generator=torch.Generator().manual_seed(7)))
    for views in (same, rounding, torch.zeros(40, 5, 16)):
        assert lidar(views).value == pytest.approx(1, abs=1e-3)
        assert float(rankme(views.flatten(0, 1).double())) == pytest.approx(1, abs=1e-3)


def test_what_lidar_refuses():
    for shape in ((1, 5, 3), (5, 1, 3)):
        with pytest.raises(ValueError, match='at least two'):
            lidar(torch.randn(shape))
    views = torch.randn(6, 4, 3)
    views[..., 2] = 1.0  # one direction without noise
    with pytest.raises(ValueError, match='raise delta'):
        lidar(views, delta=0.0)
    assert lidar(views).below_delta == 1
