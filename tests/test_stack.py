"""Weights of laws by leave-future-out, and mixtures of what laws say."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize
from test_decide import prediction

from bayesicl import read_curves
from bayesicl.score import HeldOut
from bayesicl.stack import (
    Ahead,
    ahead,
    at_origin,
    log_scores,
    mix,
    mix_predictions,
    mixtures,
    origins,
    shares,
    weigh,
)
from bayesicl.tree import study_dataset, study_of

USUAL = {"a": 0.5, "b": 0.3, "c": 0.2}


def study(cells=30, hypotheses=1):
    table = pd.DataFrame({"shots": np.tile(np.arange(cells), hypotheses), "total": 99})
    table["correct"] = table["shots"]
    table["hypothesis"] = np.repeat(np.arange(hypotheses), cells)
    return read_curves(table).studies[0]


def test_origins_grow_and_leave_something_ahead():
    assert origins(study(30)) == [3, 4, 5, 7, 9, 13, 17, 22]
    assert origins(study(4)) == [3]
    assert origins(study(3)) == []
    assert origins(study(30).hold_out(fit_points=6)) == [3, 4, 5]


def test_at_an_origin_the_first_cells_of_each_curve_are_fitted():
    held = study(10, hypotheses=2).hold_out(fit_points=6)
    early = at_origin(held, 4)
    fitted = early.cells[early.cells["fitted"]]
    assert fitted.groupby("hypothesis")["shots"].apply(list).tolist() == [[0, 1, 2, 3]] * 2
    assert at_origin(held, 9).cells["fitted"].equals(held.cells["fitted"])


def scores(rng, better="b", by=0.0, origins_=6, ahead=4):
    rows = [
        (law, k, cell, rng.normal() + by * (law == better))
        for k in range(3, 3 + origins_)
        for cell in range(k, k + ahead)
        for law in USUAL
    ]
    return pd.DataFrame(rows, columns=["law", "origin", "cell", "log_score"])


def test_weights_maximise_the_penalised_score(rng):
    table = scores(rng, ahead=3)
    found = weigh(table, USUAL, strength=2.0)
    wide = table.pivot_table(index=["origin", "cell"], columns="law", values="log_score")
    prior = np.array(list(USUAL.values()))

    def loss(x):
        w = np.exp(x - np.logaddexp.reduce(x))
        each = np.logaddexp.reduce(np.log(w) + wide.to_numpy(), axis=1)
        return -(each.sum() / 3 + 2.0 * prior @ np.log(w))

    x = optimize.minimize(loss, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(list(found.values()), np.exp(x - np.logaddexp.reduce(x)), atol=1e-4)
    assert sum(found.values()) == pytest.approx(1)


def test_without_scores_weights_are_as_usual(rng):
    assert weigh(scores(rng)[:0], USUAL) == pytest.approx(USUAL)
    assert weigh(scores(rng), USUAL, strength=1e9) == pytest.approx(USUAL, abs=1e-4)
    clear = weigh(scores(rng, by=50.0, origins_=20), USUAL, strength=1.0)
    assert clear["b"] > 0.9


def held(value, n=400):
    cells = pd.DataFrame({"y": [0.5, 0.6]}, index=[7, 8])
    draws = np.full((n, 2), value)
    return HeldOut(cells, draws, draws + 0.1, np.log([0.1 + value, 0.2 + value]))


def test_origins_where_a_law_broke_down_do_not_count(rng):
    table = scores(rng)
    lost = table[(table["law"] != "a") | (table["origin"] > 4)]
    whole = table[table["origin"] > 4]
    assert weigh(lost, USUAL) == pytest.approx(weigh(whole, USUAL))
    assert weigh(table[table["law"] != "a"], USUAL) == pytest.approx(USUAL)


def test_fits_that_failed_their_gates_are_left_out(monkeypatch):
    """Of the others, the cells that were fitted in the end are looked at."""
    whole = study(8).hold_out(fit_points=6)

    def tree(k, passed):
        one = xr.DataTree.from_dict({"study": study_dataset(at_origin(whole, k))})
        one.attrs = {"law": "a", "passed": passed}
        return one

    def said(tree, *, seed):
        later = study_of(tree).cells.query("not fitted")
        draws = np.zeros((5, len(later)))
        return HeldOut(later, draws, draws, np.arange(float(len(later))))

    monkeypatch.setattr("bayesicl.stack.held_out", said)
    trees = [tree(3, 1), tree(4, 0), tree(5, 1)]
    found = ahead(trees, whole)
    assert [(one.origin, list(one.found.cells.index)) for one in found] == [
        (3, [3, 4, 5]),
        (5, [5]),
    ]
    assert found[0].found.measured.shape == (5, 3)
    assert log_scores(found)["log_score"].tolist() == [0, 1, 2, 0]


def test_mixtures_are_of_origins_that_all_laws_have():
    some = [Ahead("a", 4, held(0.1)), Ahead("b", 4, held(0.2)), Ahead("a", 3, held(0.1))]
    [(k, one)] = mixtures(some, {"a": 0.5, "b": 0.5}).items()
    assert k == 4
    assert np.unique(one.measured).tolist() == [0.1, 0.2]
    two = mixtures([*some, Ahead("b", 3, held(0.9))], {"a": 0.0, "b": 1.0})
    assert {k: np.unique(one.measured).tolist() for k, one in two.items()} == {3: [0.9], 4: [0.2]}


def test_mixture_of_held_out_forecasts():
    parts, weights = [held(0.1), held(0.2), held(0.3, n=500)], [0.25, 0.0, 0.75]
    whole = mix(parts, weights)
    values, counts = np.unique(whole.measured[:, 0], return_counts=True)
    assert values.tolist() == [0.1, 0.3]
    assert counts.tolist() == [100, 300]
    np.testing.assert_allclose(np.unique(whole.curve), [0.2, 0.4])
    np.testing.assert_allclose(
        np.exp(whole.log_score), [0.25 * 0.2 + 0.75 * 0.4, 0.25 * 0.3 + 0.75 * 0.5]
    )


def test_mixture_of_predictions_keeps_paths_whole():
    one, two = (prediction(np.full((200, 65), v) + np.arange(200)[:, None]) for v in (0.0, 0.5))
    whole = mix_predictions([one, two], [0.3, 0.7])
    assert dict(whole.sizes) == {"chain": 1, "draw": 200, "hypothesis": 1, "shots": 65}
    assert whole.attrs == one.attrs
    paths = whole["mean"].to_numpy()[0, :, 0]
    assert (paths == paths[:, :1]).all()
    assert (paths[:, 0] % 1 == 0).sum() == 60
    assert "within" in whole.coords


def test_shares_are_whole_and_sum_up():
    assert shares([1, 1, 1], 100).sum() == 100
    assert shares([0.5, 0.0, 0.5], 7).tolist() == [4, 0, 3]
