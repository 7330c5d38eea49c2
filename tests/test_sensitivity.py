"""Sensitivity of forecasts to the prior, where it is known."""

import importlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from test_decide import prediction

from bayesicl import Settings, fit, read_curves
from bayesicl.sensitivity import BOTH, UNKNOWN, WEAK, joint_log_likelihood, sensitivity


def conjugate(rng, prior_sd, y, n):
    """Draws of a normal mean under Normal(0, prior_sd) with n measurements of sd 1 about y."""
    precision = 1 / prior_sd**2 + n
    x = n * y / precision + rng.standard_normal((1, 4000)) / np.sqrt(precision)
    draws = {"chain": [0], "draw": np.arange(4000)}
    log_prior = xr.Dataset({"x": (("chain", "draw"), -0.5 * (x / prior_sd) ** 2)}, coords=draws)
    likelihood = xr.Dataset({"y": (("chain", "draw"), -0.5 * (x - y) ** 2 * n)}, coords=draws)
    tree = xr.DataTree.from_dict({"log_prior": log_prior, "joint": likelihood})
    return tree, prediction(x[0, :, None] * [1.0, 1.0], shots=np.array([0, 1]))


@pytest.fixture(autouse=True)
def given_likelihood(monkeypatch):
    module = importlib.import_module("bayesicl.sensitivity")
    monkeypatch.setattr(
        module, "joint_log_likelihood", lambda tree, law: tree["joint"]["y"].to_numpy()
    )


@pytest.mark.parametrize(
    ("prior_sd", "y", "n", "diagnosis"),
    [(10.0, 0.5, 50, ""), (0.1, 0.1, 2, WEAK), (0.3, 3.0, 10, BOTH)],
)
def test_diagnoses_of_a_normal_mean(rng, prior_sd, y, n, diagnosis):
    tree, found = conjugate(rng, prior_sd, y, n)
    table = sensitivity([tree], [found])
    assert table["diagnosis"].tolist() == [diagnosis] * 2
    assert table["shots"].tolist() == [0, 1]


def test_figures_from_few_heavy_draws_are_not_known(rng):
    """Log densities so uneven that even a hundredth of them lets few draws count."""
    tree, found = conjugate(rng, 10.0, 0.5, 50)
    assert sensitivity([tree], [found])["pareto_k"].max() < 0.5
    uneven = 100 * rng.exponential(size=(1, 4000))  # to the power .01: tails of shape 1
    tree["log_prior"] = xr.Dataset({"x": (("chain", "draw"), uneven)})
    table = sensitivity([tree], [found])
    assert table["pareto_k"].min() == pytest.approx(1.0, abs=0.3)
    assert table["diagnosis"].tolist() == [UNKNOWN] * 2


def test_a_flat_prior_moves_nothing_and_chains_that_stood_still_tell_nothing(rng):
    tree, found = conjugate(rng, 10.0, 0.5, 50)
    for log_prior, moved, diagnosis in (
        (np.zeros((1, 4000)), 0.0, ""),
        (np.repeat([[0.0, 1.0]], 2000, axis=1), np.nan, UNKNOWN),
        (np.where(np.arange(4000) < 1000, 2.0, rng.standard_normal((1, 4000))), np.nan, UNKNOWN),
    ):
        tree["log_prior"] = xr.Dataset({"x": (("chain", "draw"), log_prior)})
        table = sensitivity([tree], [found])
        np.testing.assert_array_equal(table["prior"], moved)
        assert table["diagnosis"].tolist() == [diagnosis] * 2


def exact(prior_sd, y, n, threshold):
    """Change of the probability that the mean is above the threshold for a doubling of powers."""

    def above(prior, data):
        precision = prior / prior_sd**2 + data * n
        return stats.norm.sf((threshold - data * n * y / precision) * np.sqrt(precision))

    step = np.log2(1.01 / 0.99)
    return (
        abs(above(1.01, 1) - above(0.99, 1)) / step,
        abs(above(1, 1.01) - above(1, 0.99)) / step,
    )


@pytest.mark.parametrize(("prior_sd", "y", "n"), [(0.1, 0.3, 50), (0.3, 0.9, 10)])
def test_probability_to_reach_a_threshold_moves_as_it_does(rng, prior_sd, y, n):
    told = []
    for _ in range(20):
        tree, found = conjugate(rng, prior_sd, y, n)
        found.attrs["outcome"] = "prob"
        row = sensitivity([tree], [found], shots=[1], threshold=0.2).iloc[0]
        told.append((row["reached_prior"], row["reached_likelihood"]))
    expected = exact(prior_sd, y, n, 0.2)
    assert min(expected) > 0.02
    error = np.std(told, axis=0) / np.sqrt(len(told))
    assert (np.abs(np.mean(told, axis=0) - expected) < 4 * error + 0.002).all()


def test_a_mixture_is_averaged(rng):
    one, two = conjugate(rng, 10.0, 0.5, 50), conjugate(rng, 0.3, 3.0, 10)
    apart = [sensitivity([tree], [found]) for tree, found in (one, two)]
    whole = sensitivity([one[0], two[0]], [one[1], two[1]], [0.25, 0.75])
    for group in ("prior", "likelihood"):
        expected = 0.25 * apart[0][group] + 0.75 * apart[1][group]
        pd.testing.assert_series_equal(whole[group], expected)


def test_likelihood_of_all_cells_together():
    """Of independent counts it is the sum over cells; the misfit's is not."""
    table = pd.DataFrame({"shots": [0, 1, 2, 4, 8], "correct": [9, 15, 21, 24, 26], "total": 30})
    settings = Settings(warmup=100, draws=100)
    [tree] = fit(read_curves(table), "constant", settings=settings)
    total = tree["log_likelihood"]["y"].sum("cell").to_numpy()
    np.testing.assert_allclose(joint_log_likelihood(tree), total, rtol=1e-6)
