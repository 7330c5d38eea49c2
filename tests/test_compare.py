"""Leave-one-cell-out against a grid, against arviz_stats, and sums over studies by hand."""

import importlib
import json
import warnings

import arviz_stats
import numpy as np
import pandas as pd
import pytest
import simulate
import xarray as xr
from scipy import optimize

from bayesicl import InputError, Settings, compare, fit, read_curves, save
from bayesicl.compare import _decide, _tabulate, _verdict
from bayesicl.leave_out import Leaving, leave_out, raw_loo
from bayesicl.stack import stacking
from bayesicl.tree import label

module = importlib.import_module("bayesicl.compare")  # `bayesicl.compare` itself is the function
leaving = importlib.import_module("bayesicl.leave_out")

LEVEL = '''"""No learning: p(n) = a."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Law
from bayesicl.priors import hypotheses


def curve(shots, a):
    return jnp.log(a) + 0.0 * shots


def model(design):
    with hypotheses(design):
        a = numpyro.sample("a", dist.Beta(2.0, 2.0))
    return curve(design.shots, a[design.hypothesis])


law = Law("level", curve, model, reference="made for the tests")
'''
reuse_engines = simulate.reuse_engines  # a fixture
SHOTS = np.array([0, 1, 2, 4, 8, 16, 32, 64])
Y = np.array([0.31, 0.33, 0.42, 0.5, 0.52, 0.66, 0.62, 0.71])
SE = 0.05


@pytest.fixture(scope="module")
def laws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("laws")
    (folder / "straight.py").write_text(simulate.STRAIGHT)
    (folder / "level.py").write_text(LEVEL)
    return [folder / "straight.py", folder / "level.py"]


@pytest.fixture(scope="module")
def pair(laws):
    """One study under two laws."""
    table = pd.DataFrame({"shots": SHOTS, "prob": Y, "se": SE, "model": "lm", "task": "t"})
    return fit(read_curves(table), laws, settings=Settings(warmup=300, draws=1000))


@pytest.fixture(scope="module")
def left(pair):
    return [leave_out(tree) for tree in pair]


@pytest.fixture(scope="module")
def grid():
    return simulate.Grid(SHOTS, Y, SE)


def altered(tree, key=None, **attrs):
    """A copy of a fit that claims something else of itself."""
    new = tree.copy()
    new.attrs = tree.attrs | attrs
    if key is not None:
        new["study"].attrs = tree["study"].attrs | {"key": json.dumps(key)}
    return new


# Leaving out


def test_raw_figure_is_that_of_arviz_on_the_saved_file(pair, tmp_path):
    path = save(pair[0], tmp_path / "fit.nc")
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        by_hand = arviz_stats.loo(opened.load(), pointwise=True)
    ours = raw_loo(pair[0])
    assert ours.elpd == by_hand.elpd
    assert ours.p == by_hand.p
    np.testing.assert_array_equal(ours.elpd_i, by_hand.elpd_i)
    np.testing.assert_array_equal(ours.pareto_k, by_hand.pareto_k)


def test_refits_leave_out_exactly(left, grid):
    exact = left[0]
    assert exact.refitted == len(Y)
    assert exact.unrepaired == 0
    np.testing.assert_allclose(exact.elpd, grid.left_out(), atol=0.05)
    # 8 cells at 4000 draws: the sum is good to a few hundredths.
    assert abs(exact.elpd.sum() - grid.left_out().sum()) < 0.1


def test_psis_is_near_the_exact_where_it_says_so(left, grid):
    raw = left[0].raw
    trusted = raw.pareto_k.to_numpy() < 0.5
    assert trusted.sum() >= 4
    np.testing.assert_allclose(raw.elpd_i.to_numpy()[trusted], grid.left_out()[trusted], atol=0.07)


def test_without_refits_psis_stands(pair, left, monkeypatch):
    monkeypatch.setattr(leaving, "EXACT_BELOW", 0)
    assert float(left[0].raw.pareto_k.max()) < left[0].raw.good_k, "the case must need no repair"
    again = leave_out(pair[0])
    assert again.refitted == again.unrepaired == 0
    np.testing.assert_array_equal(again.elpd, again.raw.elpd_i)


def test_table_of_one_study(pair, left, monkeypatch):
    given = dict(zip((t.attrs["law"] for t in pair), left, strict=True))
    monkeypatch.setattr(module, "leave_out", lambda t, law, progress: given[t.attrs["law"]])
    result = compare(pair[::-1])
    table = result.table.set_index("law")
    assert result.table["law"].tolist() == ["straight", "level"]
    difference = left[1].elpd - left[0].elpd
    assert table["elpd"]["straight"] == left[0].elpd.sum()
    assert table["elpd_diff"].tolist() == [0.0, difference.sum()]
    assert table["elpd_diff_se"]["straight"] == 0.0
    se = np.sqrt(len(Y) * difference.var())
    np.testing.assert_allclose(table["elpd_diff_se"]["level"], se, rtol=1e-12)
    assert table["raw_elpd"]["level"] == float(left[1].raw.elpd)
    assert (table["cells"] == len(Y)).all()
    assert (table["refitted"] == len(Y)).all()
    assert table["verdict"]["straight"] == "best"
    assert result.verdict.startswith(f"Over {len(Y)} cells left out one at a time, straight has")
    assert result.studies[["study", "law"]].to_numpy().tolist() == [
        ["lm | t", "level"],
        ["lm | t", "straight"],
    ]


# Stacking


def test_stacking_is_that_of_arviz_where_nothing_was_refitted(pair, monkeypatch):
    monkeypatch.setattr(leaving, "EXACT_BELOW", 0)
    own = compare(pair).table.set_index("law")["weight"]
    with warnings.catch_warnings():  # arviz-stats 0.8 on pandas 3
        warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
        theirs = arviz_stats.compare({t.attrs["law"]: raw_loo(t) for t in pair}, method="stacking")
    for law in ("straight", "level"):
        # Some versions of arviz-stats round their weights to two digits.
        assert own[law] == pytest.approx(theirs["weight"][law], abs=5.1e-3)
    assert own.sum() == pytest.approx(1, abs=1e-9)


def leavings(left, *shifts):
    """Two laws, several studies: made-up scores in the place of the real ones."""
    rng = np.random.default_rng(7)
    first = [Leaving(rng.normal(-1, 0.5, 6 + i), left[0].raw, 6, 0) for i in range(len(shifts))]
    second = [
        Leaving(x.elpd + d + rng.normal(0, 0.3, x.elpd.size), left[1].raw, 0, i)
        for i, (x, d) in enumerate(zip(first, shifts, strict=True))
    ]
    return {"straight": first, "level": second}


def test_stacking_is_the_maximum(rng):
    scores = rng.normal(size=(60, 3))
    weights = stacking(scores)

    def loss(x):
        w = np.exp(x - np.logaddexp.reduce(x))
        return -np.log(np.exp(scores) @ w).sum()

    x = optimize.minimize(loss, np.zeros(3), tol=1e-10).x
    np.testing.assert_allclose(weights, np.exp(x - np.logaddexp.reduce(x)), atol=1e-4)
    assert weights.sum() == pytest.approx(1)


def test_stacking_of_cells_that_all_laws_predict_badly(rng):
    """Weights depend on differences between laws alone: a common loss of 2000 nats is nothing."""
    scores = rng.normal(size=(30, 2))
    np.testing.assert_allclose(stacking(scores - 2000.0), stacking(scores), atol=1e-9)


# Several studies


def test_sums_and_errors_over_studies(pair, left):
    made = leavings(left, -1.0, -0.3, -0.8)
    result = _tabulate(["one", "two", "three"], made, pair)
    table = result.table.set_index("law")
    sums = np.array(
        [(b.elpd - a.elpd).sum() for a, b in zip(made["straight"], made["level"], strict=True)]
    )
    assert table["elpd_diff"]["level"] == pytest.approx(sums.sum())
    se = np.sqrt(3 * ((sums - sums.mean()) ** 2).sum() / 2)
    assert table["elpd_diff_se"]["level"] == pytest.approx(se)
    assert table["studies"].tolist() == [3, 3]
    assert table["cells"].tolist() == [21, 21]
    assert table["refitted"]["straight"] == 18
    assert table["unrepaired"]["level"] == 0 + 1 + 2
    assert table["p_loo"]["level"] == pytest.approx(3 * left[1].raw.p)
    per_study = result.studies[result.studies["law"] == "level"]
    np.testing.assert_allclose(per_study["elpd_diff"], sums)
    assert per_study["cells"].tolist() == [6, 7, 8]
    assert "Over 21 cells of 3 studies" in result.verdict
    assert "Some refits did not converge" in result.verdict


def test_fits_that_failed_are_named(pair, left):
    made = leavings(left, -1.0)
    failed = [pair[0], altered(pair[1], passed=0)]
    assert "Not converged, so not to be relied on: level." in _tabulate(["x"], made, failed).verdict
    assert "Not converged" not in _tabulate(["x"], made, pair).verdict


def test_one_fit_may_stand_for_several_laws(pair, left, monkeypatch):
    """Three laws that are one function in a study count for each of them beside another study."""
    first, second = pair
    both = json.dumps(["bent"])
    two = {"model": "lm", "variant": "", "task": "two"}
    fits = [
        altered(first, same_as=both), second,
        altered(first, key=two), altered(first, key=two, law="bent"), altered(second, key=two),
    ]  # fmt: skip

    def made(tree, law, progress):
        return left[0 if (label(tree), tree.attrs["law"]) == ("lm | t", "straight") else 1]

    monkeypatch.setattr(module, "leave_out", made)
    table = compare(fits).table.set_index("law")
    assert set(table.index) == {"straight", "bent", "level"}
    assert (table["studies"] == 2).all()
    both_studies = left[0].elpd.sum() + left[1].elpd.sum()
    assert table["elpd"]["bent"] == pytest.approx(both_studies)
    # Where only one of the names is asked of the other study, the others are not laws of the table.
    few = compare([*fits[:3], fits[4]]).table
    assert set(few["law"]) == {"straight", "level"}
    alone = compare(fits[:2]).table
    assert set(alone["law"]) == {"straight = bent", "level"}


# Verdicts


@pytest.mark.parametrize(
    ("difference", "se", "cells", "studies", "verdict"),
    [
        (0.0, 0.0, 50, 1, "best"),
        (3.9, 0.1, 500, 1, "not told apart"),  # below 4 nats nothing is decided
        (10.0, 5.1, 500, 1, "not told apart"),  # within two standard errors
        (10.0, 4.0, 500, 1, "worse"),
        (10.0, 4.0, 99, 1, "too few to decide"),
        (10.0, 4.0, 100, 1, "worse"),
        (10.0, 2.6, 99, 1, "too few to decide"),  # below four standard errors
        (10.0, 2.4, 99, 1, "worse"),  # overwhelming
        (10.0, 4.0, 500, 2, "too few to decide"),
        (10.0, 4.0, 500, 9, "too few to decide"),
        (10.0, 4.0, 50, 10, "worse"),  # studies are the unit
        (10.0, 2.4, 500, 2, "too few to decide"),  # Student's t of two studies
        (10.0, 1.4, 500, 9, "too few to decide"),
        (10.0, 1.2, 500, 9, "worse"),
        (3.0, 0.1, 50, 1, "not told apart"),
    ],
)
def test_verdict_of_a_law(difference, se, cells, studies, verdict):
    row = {"elpd_diff": -difference, "elpd_diff_se": se, "cells": cells, "studies": studies}
    assert _decide(row) == verdict


def test_verdict_says_no_more_than_was_decided():
    table = pd.DataFrame(
        {
            "law": ["a", "b", "c", "d"],
            "verdict": ["best", "worse", "not told apart", "too few to decide"],
            "cells": 60,
            "studies": 1,
            "unrepaired": 0,
        }
    )
    words = _verdict(table, [])
    assert "a has the highest score" in words
    assert "predicts better than b." in words
    assert "ahead of d, but too few" in words
    assert "cannot tell it from c." in words
    assert "neither how well it extrapolates" in words
    assert "converge" not in words


# Refusals


def test_refuses_what_cannot_be_compared(pair):
    first, second = pair
    other = {"model": "lm", "variant": "", "task": "other"}
    for fits, message in [
        ([], "nothing to compare"),
        ([first], r"one law \(straight\) is nothing to compare; fit another"),
        ([first, altered(second, data_hash="x")], "lm | t: .*different data; fit both"),
        ([first, altered(second, fitted_hash="x")], "different cells held out"),
        ([first, altered(second, noise="mean-probability")], "different noise"),
        ([first, second, first], r"lm | t: a law was given twice \(straight, level, straight\)"),
        ([first, second, altered(first, key=other)], "lm | other: not fitted under level, but lm"),
        (
            [*pair, *(altered(t, key=other, noise="mean-probability") for t in pair)],
            "studies differ in outcome or noise",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            compare(fits)
