"""Bands for ranks hold as often as they say, and miss what they say they would miss."""

import numpy as np
import pytest

from bayesicl.uniformity import RANKED, band, least_narrowness, least_shift, p_value


def test_band_holds_for_uniform_ranks():
    rng = np.random.default_rng(3)
    strays = sum(p_value(rng.integers(0, RANKED + 1, 200)) < 0.01 for _ in range(1000))
    assert 2 <= strays <= 22  # 10 expected; a binomial leaves this in one of 3000 runs


def test_band_is_where_the_p_value_says():
    rng = np.random.default_rng(4)
    low, high = band(60)
    inside = []
    for shift in np.linspace(0, 0.3, 40):
        ranks = (rng.beta(1 + shift, 1, 60) * (RANKED + 1)).astype(int)
        ecdf = np.cumsum(np.bincount(ranks, minlength=RANKED + 1))[:-1] / 60
        inside.append(bool(np.all((low <= ecdf) & (ecdf <= high))))
        assert inside[-1] == (p_value(ranks) >= 0.01)
    assert np.all((low <= np.arange(1, 100) / 100) & (np.arange(1, 100) / 100 <= high))


def ranks_of_normals(n, bias, width, rng):
    """Ranks where a truth and the middle of its posterior differ by one posterior sd."""
    centre = rng.standard_normal(n)
    truths = centre + rng.standard_normal(n)
    draws = centre[:, None] + bias + width * rng.standard_normal((n, RANKED))
    return (draws < truths[:, None]).sum(1)


@pytest.mark.parametrize(
    ("wrong", "bias", "width"),
    [("shifted", 0.25, 1.0), ("too narrow", 0.0, 0.8), ("too wide", 0.0, 1.3)],
)
def test_a_thousand_studies_betray_a_wrong_posterior(wrong, bias, width):
    rng = np.random.default_rng(5)
    assert p_value(ranks_of_normals(1000, 0.0, 1.0, rng)) >= 0.01
    assert p_value(ranks_of_normals(1000, bias, width, rng)) < 1e-3, wrong


@pytest.mark.parametrize("n", [50, 300])
def test_faults_are_found_nine_times_in_ten_where_it_is_said(n):
    rng = np.random.default_rng(6)
    shift, narrow = least_shift(n, level=0.999), least_narrowness(n, level=0.999)
    for least in ((shift, 1.0), (0.0, 1 - narrow)):
        half = (least[0] / 2, (1 + least[1]) / 2)
        found = [
            np.mean([p_value(ranks_of_normals(n, *at, rng)) < 1e-3 for _ in range(300)])
            for at in (least, half)
        ]
        assert 0.84 < found[0] < 0.999  # the least of a grid that does
        assert found[1] < 0.5


def test_few_ranks_find_nothing():
    assert least_shift(1, level=0.999) == least_narrowness(1) == np.inf
