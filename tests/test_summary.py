"""What is identified: by hand on made-up posteriors, and on simulated flat and risen curves."""

import importlib
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import simulate
import xarray as xr
from scipy.special import expit, logit

from bayesicl import fit, read_curves
from bayesicl.identify import (
    MAX_PRIOR_SHIFT,
    MIN_CONTRACTION,
    Element,
    elements,
    ordered,
    unconstrained,
)
from bayesicl.summary import missed, summarise
from bayesicl.tree import study_dataset

reuse_engines = simulate.reuse_engines  # a fixture


def test_elements_are_told_apart():
    """By labels where an axis has them, by index where it has none; every number once."""
    dims = ("chain", "draw", "hypothesis", "believed", "a_dim_0")
    x = xr.DataArray(
        np.arange(2 * 3 * 2 * 3 * 2.0).reshape(2, 3, 2, 3, 2),
        dims=dims,
        coords={"hypothesis": ["u", "v"], "believed": ["u", "v", "background"]},
        name="a",
    )
    found = elements(x)
    assert len(found) == 12
    one = found[Element("a [1]", "v", "background")]
    xr.testing.assert_equal(one, x[:, :, 1, 2, 1].drop_vars(["hypothesis", "believed"]))
    assert str(Element("a [1]", "v", "background")) == "a [1][v, background]"
    assert list(elements(xr.DataArray(1.0, name="K"))) == [Element("K", "", "")]
    two = xr.DataArray([0.1, 0.2], dims="background", name="beta")
    two = two.assign_coords(background=["background 0", "background 1"])
    assert [e.believed for e in elements(two)] == ["background 0", "background 1"]


# Made-up posteriors


def made(posterior, prior, log_prior):
    """A fit from draws (chains, draws): posterior, prior, and the density of the prior."""
    table = pd.DataFrame({"shots": [0, 1, 2], "correct": [1, 2, 3], "total": 5, "task": "made up"})

    def group(values):
        return xr.Dataset({name: (("chain", "draw"), x) for name, x in values.items()})

    near = 0.2 * np.arange(1, 4) + 0.05 * np.random.default_rng(0).normal(size=(4, 1000, 3))
    predictive = xr.Dataset({"y": (("chain", "draw", "cell"), near)}, coords={"cell": [0, 1, 2]})
    tree = xr.DataTree.from_dict(
        {
            "posterior": group(posterior),
            "prior": group(prior),
            "log_prior": group(log_prior),
            "posterior_predictive": predictive,
            "study": study_dataset(read_curves(table).studies[0]),
        }
    )
    tree.attrs = {
        "law": "mine", "same_as": "[]", "noise": "beta-binomial", "passed": 1, "warnings": "[]",
        "diagnostics": json.dumps({"failures": []}), "law_parameters": json.dumps(list(posterior)),
    }  # fmt: skip
    return tree


@pytest.fixture(scope="module")
def conjugate():
    """log K: prior N(0, 2), posterior N(1, 0.2); logit pi: N(0, 1) before and after."""
    rng = np.random.default_rng(0)
    k, u = rng.normal(1.0, 0.2, (4, 1000)), rng.normal(0.0, 1.0, (4, 1000))
    prior = {"K": np.exp(rng.normal(0, 2, (1, 5000))), "pi": expit(rng.normal(0, 1, (1, 5000)))}
    density = {"K": -0.5 * (k / 2) ** 2 - k, "pi": -0.5 * u**2 - np.log(expit(u) * expit(-u))}
    # log_prior is the density of K and pi themselves, hence the Jacobians.
    return made({"K": np.exp(k), "pi": expit(u)}, prior, density), k


def test_cells_that_the_law_misses_are_named(conjugate):
    tree = conjugate[0].copy()
    assert missed(tree).empty
    assert "misses" not in summarise(tree).text
    assert "fitted to 3 of 3 cells, 0 to 2 shots" in summarise(tree).text
    draws = tree["posterior_predictive"]["y"].to_numpy().copy()
    draws[..., 1] -= 0.35
    far = xr.Dataset({"y": (("chain", "draw", "cell"), draws)}, coords={"cell": [0, 1, 2]})
    tree["posterior_predictive"] = xr.DataTree(far)
    table = missed(tree)
    assert table["shots"].tolist() == [1]
    assert table["measured"].tolist() == [0.4]
    assert table["upper"][0] < 0.3
    assert "the law misses 1 of 3 cells; at 1 shots it expects" in summarise(tree).text


def test_false_alarms_of_a_missed_cell_are_few(conjugate):
    """One study in a hundred, where cells are drawn as predicted."""
    rng = np.random.default_rng(5)
    tree, alarms = conjugate[0].copy(), 0
    for _ in range(300):
        draws = 0.2 * np.arange(1, 4) + 0.05 * rng.normal(size=(4, 1000, 3))
        draws += (0.2 * np.arange(1, 4) - draws.mean((0, 1))) + 0.05 * rng.normal(size=3)
        new = xr.Dataset({"y": (("chain", "draw", "cell"), draws)}, coords={"cell": [0, 1, 2]})
        tree["posterior_predictive"] = xr.DataTree(new)
        alarms += not missed(tree).empty
    assert alarms <= 10  # 3 expected


def test_contraction_by_hand(conjugate):
    tree, k = conjugate
    table = summarise(tree).table.set_index("parameter")
    before = np.log(tree["prior"]["K"].to_numpy())
    assert table["contraction"]["K"] == pytest.approx(1 - k.var() / before.var(), rel=1e-9)
    assert table["contraction"]["K"] == pytest.approx(1 - 0.04 / 4, abs=0.01)
    assert abs(table["contraction"]["pi"]) < 0.15
    assert table["identified"].to_dict() == {"K": True, "pi": False}


def test_intervals_by_hand(conjugate):
    tree, k = conjugate
    table = summarise(tree, level=0.8).table.set_index("parameter")
    expected = np.exp(np.quantile(k, [0.5, 0.1, 0.9]))
    np.testing.assert_allclose(
        table.loc["K", ["median", "lower", "upper"]].tolist(), expected, 1e-3
    )
    assert table["rhat"]["K"] == pytest.approx(1, abs=0.01)
    assert table["ess_bulk"]["K"] > 3000


def test_shift_where_the_prior_counts_twice():
    """Normal prior N(0, 1) and likelihood N(3, s): doubled, the prior's precision is 2."""
    rng = np.random.default_rng(1)
    for s in (0.3, 1.0):
        precision = 1 + s**-2
        mean, sd = 3 * s**-2 / precision, precision**-0.5
        x = rng.normal(mean, sd, (4, 5000))
        prior = {"slope": rng.normal(0, 1, (1, 5000))}
        tree = made({"slope": x}, prior, {"slope": -0.5 * x**2})
        row = summarise(tree).table.iloc[0]
        expected = abs(3 * s**-2 / (2 + s**-2) - mean) / sd
        assert row["prior_shift"] == pytest.approx(expected, rel=0.15, abs=0.03)
        assert row["contraction"] == pytest.approx(1 - sd**2, abs=0.04)
        good = expected <= MAX_PRIOR_SHIFT and 1 - sd**2 >= MIN_CONTRACTION
        assert row["identified"] == good


def test_prior_that_pulls_is_said():
    rng = np.random.default_rng(2)
    x = rng.normal(3.0, 0.5, (4, 5000))
    tree = made({"slope": x}, {"slope": rng.normal(0, 1, (1, 5000))}, {"slope": -0.5 * x**2})
    summary = summarise(tree)
    assert summary.table["contraction"][0] > MIN_CONTRACTION
    assert not summary.table["identified"][0]
    assert "slope" in summary.text
    assert "not identified: its median moves with the prior" in summary.text
    assert "These data do not identify slope: report none of them as a finding." in summary.text


def test_text_says_what_is_wrong(conjugate):
    tree = conjugate[0].copy()
    summary = summarise(tree).text
    assert summary.startswith("made up, law mine, noise beta-binomial")
    assert "NOT CONVERGED" not in summary
    tree.attrs = tree.attrs | {
        "passed": 0,
        "diagnostics": json.dumps({"failures": ["R-hat 1.200, must be below 1.01"]}),
        "warnings": json.dumps(["curve falls"]),
        "same_as": json.dumps(["theirs"]),
    }
    summary = summarise(tree).text
    assert "NOT CONVERGED, do not rely on it: R-hat 1.200" in summary
    assert "warning: curve falls" in summary
    assert "law mine = theirs" in summary


def test_unconstrained_scales():
    rng = np.random.default_rng(3)
    x = np.array([0.2, 0.7])
    np.testing.assert_allclose(unconstrained(x, rng.uniform(0, 1, 99)), logit(x))
    np.testing.assert_allclose(unconstrained(x, rng.exponential(5, 99)), np.log(x))
    np.testing.assert_allclose(unconstrained(x, rng.normal(0, 1, 99)), x)
    assert np.isfinite(unconstrained(np.array([0.0, 1.0]), rng.uniform(0, 1, 99))).all()


# Simulated curves under the scoring law


def curve(pi, gamma, beta, K, shots):
    return beta + (gamma - beta) * expit(logit(pi) + K * shots * np.log(gamma / beta))


CURVES = {
    "flat": (0.5, 0.6, 0.5999, 1.0),
    "risen": (0.05, 0.85, 0.15, 0.2),
    "unfinished": (1e-4, 0.85, 0.1, 0.08),
}


@pytest.fixture(scope="module")
def summaries():
    """Eleven dense cells of each curve."""
    rng = np.random.default_rng(4)
    shots = np.array([0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48])
    tables = []
    for name, truth in CURVES.items():
        p = curve(*truth, shots)
        y = np.clip(p + 0.02 * rng.standard_normal(p.size), 0.001, 0.999)
        tables.append(pd.DataFrame({"task": name, "shots": shots, "prob": y, "se": 0.02}))
    # One run tells what is identified; retries for the last divergence are not the matter here.
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("bayesicl.fit")
        patch.setattr(module, "attempts", partial(module.attempts, targets=()))
        trees = fit(read_curves(pd.concat(tables)), "scoring", seed=2)
    for tree in trees:
        checks = json.loads(tree.attrs["diagnostics"])
        assert checks["rhat"] < 1.02, checks
        assert checks["ess_bulk"] > 300, checks
    return {name: (summarise(tree), tree) for name, tree in zip(CURVES, trees, strict=True)}


def identified(summary):
    table = summary.table
    rows = table[~table["believed"].isin(["background"])].set_index("parameter")
    return rows["identified"]


def test_flat_curve_says_nothing_of_belief(summaries):
    summary, _ = summaries["flat"]
    known = identified(summary)
    assert not known[["pi", "K", "beta"]].any()
    assert known[["p_zero", "p_last"]].all()
    last = summary.text.splitlines()[-1]
    assert last.startswith("These data do not identify ")
    assert all(f"{name}" in last for name in ("pi[", "K", "beta["))
    assert "largely the prior" in summary.text


def test_flat_curve_has_a_ceiling(summaries):
    assert identified(summaries["flat"][0])["ceiling"]


def test_risen_curve_is_known(summaries):
    summary, _ = summaries["risen"]
    known = identified(summary)
    assert known[["p_zero", "p_last", "ceiling", "rate"]].all(), summary.text
    table = summary.table.set_index("parameter")
    pi, gamma, beta, K = CURVES["risen"]
    truths = {
        "p_zero": curve(pi, gamma, beta, K, 0),
        "ceiling": gamma,
        "rate": K * np.log(gamma / beta),
    }
    for name, truth in truths.items():
        width = table["upper"][name] - table["lower"][name]
        assert table["lower"][name] - 0.5 * width < truth < table["upper"][name] + 0.5 * width


def test_unfinished_curve_has_no_known_ceiling(summaries):
    summary, _ = summaries["unfinished"]
    known = identified(summary)
    assert not known["ceiling"], summary.text
    assert known[["p_zero", "p_last"]].all(), summary.text
    assert "ceiling" in summary.text.splitlines()[-1]


def test_rows_and_order(summaries):
    summary, tree = summaries["risen"]
    table = summary.table
    assert ordered(tree)[:4] == ["p_zero", "p_last", "ceiling", "rate"]
    assert "P" not in table["parameter"].tolist(), "gamma and beta say it"
    assert table["parameter"].tolist().count("pi") == 2
    assert table.loc[table["parameter"] == "pi", "believed"].tolist() == ["0", "background"]
    assert (table["lower"] <= table["median"]).all()
    assert (table["median"] <= table["upper"]).all()
    assert table.loc[table["parameter"] == "K", "hypothesis"].tolist() == [""]
    assert (table["meaning"] != "").all()
