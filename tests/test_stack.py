"""Weights of laws by leave-future-out, and mixtures of what laws say."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize
from test_decide import prediction

from bayesicl import read_curves
from bayesicl.alarm import Heard
from bayesicl.combine import combine
from bayesicl.score import HeldOut
from bayesicl.stack import (
    Ahead,
    ahead,
    at_origin,
    foretold,
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


def guesses(rng, better="b", by=0.0, origins_=6, cells=4):
    """Log scores of each law at so many origins, `by` better under one of them."""
    return [
        Ahead(
            law, k, held(0.1, cells=cells, log_score=rng.normal(size=cells) + by * (law == better))
        )
        for k in range(3, 3 + origins_)
        for law in USUAL
    ]


def held(value, n=400, cells=2, log_score=None):
    """A forecast of cells at 3, 7, 15, ... shots, of which 1 was fitted."""
    shots = 2 ** np.arange(2, 2 + cells) - 1
    told_of = {"y": 0.5 + 0.1 * np.arange(cells), "shots": shots, "fitted_shots": 1}
    frame = pd.DataFrame(told_of, index=7 + np.arange(cells))
    draws = np.full((n, cells), value)
    density = np.log([0.1 + value, 0.2 + value]) if log_score is None else log_score
    return HeldOut(frame, draws, draws + 0.1, density)


def best(forecasts, prior):
    """The weights of largest penalised score, by a general optimiser."""
    log_score, share = foretold(forecasts, list(USUAL))

    def loss(x):
        log_w = x - np.logaddexp.reduce(x)
        return -(np.logaddexp.reduce(log_w + log_score, axis=1) @ share + prior @ log_w)

    x = optimize.minimize(loss, np.zeros(3), tol=1e-12).x
    return np.exp(x - np.logaddexp.reduce(x))


def test_an_origin_counts_as_one_and_far_cells_for_more(rng):
    found = foretold(guesses(rng, origins_=2, cells=3), list(USUAL))
    assert found.log_score.shape == (6, 3)
    np.testing.assert_allclose(found.share, np.tile([1, 2, 3], 2) / 6)  # 2, 4 and 8 times as far
    assert foretold([], list(USUAL)).log_score.shape == (0, 3)


def test_weights_maximise_the_penalised_score(rng):
    one = guesses(rng, cells=3)
    found = weigh(foretold(one, list(USUAL)), USUAL, strength=2.0)
    want = best(one, 2.0 * np.array(list(USUAL.values())))
    np.testing.assert_allclose(list(found.values()), want, atol=1e-4)
    assert sum(found.values()) == pytest.approx(1)


def test_the_other_studies_make_the_prior_of_a_study(rng):
    one, *others = (guesses(rng, better=law, by=1.0) for law in "acc")
    own, *beside = (foretold(x, list(USUAL)) for x in (one, *others))
    found = weigh(own, USUAL, beside, strength=2.0)
    prior = best(
        [x._replace(origin=x.origin + 9 * i) for i, o in enumerate(others) for x in o],
        2.0 * np.array(list(USUAL.values())),
    )
    np.testing.assert_allclose(list(found.values()), best(one, 2.0 * prior), atol=1e-4)
    nothing = foretold([], list(USUAL))
    np.testing.assert_allclose(
        list(weigh(nothing, USUAL, beside, strength=2.0).values()), prior, atol=1e-4
    )
    assert weigh(own, USUAL, [nothing]) == weigh(own, USUAL)


def test_many_other_studies_do_not_drown_a_study(rng):
    """What a study tells counts against STRENGTH origins, however many the others are."""
    own = foretold(guesses(rng, better="a", by=3.0), list(USUAL))
    others = [foretold(guesses(rng, better="c", by=3.0), list(USUAL)) for _ in range(100)]
    assert weigh(own, USUAL, others)["a"] > 0.5 > weigh(own, USUAL, others)["c"]


def test_without_scores_weights_are_as_usual(rng):
    nothing, some = (foretold(x, list(USUAL)) for x in ([], guesses(rng)))
    assert weigh(nothing, USUAL) == pytest.approx(USUAL)
    assert weigh(some, USUAL, strength=1e9) == pytest.approx(USUAL, abs=1e-4)
    clear = guesses(rng, by=50.0, origins_=20)
    assert weigh(foretold(clear, list(USUAL)), USUAL, strength=1.0)["b"] > 0.9


def test_origins_and_cells_where_a_law_broke_down_do_not_count(rng):
    whole = guesses(rng)
    lost = [one for one in whole if one.law != "a" or one.origin > 4]
    late = [one for one in whole if one.origin > 4]
    np.testing.assert_array_equal(
        foretold(lost, list(USUAL)).log_score, foretold(late, list(USUAL)).log_score
    )
    assert not len(foretold([one for one in whole if one.law != "a"], list(USUAL)).share)
    broken = [Ahead(law, 3, held(0.1, log_score=np.array([np.nan, -1.0]))) for law in USUAL]
    assert foretold(broken, list(USUAL)).share.tolist() == [1.0]
    beyond = [Ahead(law, 3, held(0.1, log_score=np.array([-np.inf, -1.0]))) for law in "bc"]
    kept = foretold([*beyond, Ahead("a", 3, held(0.1))], list(USUAL))
    assert len(kept.share) == 2  # one law held it possible
    assert weigh(kept, USUAL)["a"] > USUAL["a"]


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
    assert found[0].found.log_score.tolist() == [0, 1, 2]


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


def test_a_law_that_broke_down_is_left_out(rng, monkeypatch):
    """Origins count that the laws which are there have passed."""
    monkeypatch.setattr("bayesicl.combine.judge", lambda *args, **kwargs: Heard([], []))
    kept = ["a", "c"]
    one = [x for x in guesses(rng, better="a", by=1.0) if x.law != "b" or x.origin < 5]
    others = [foretold(guesses(rng, better="c", by=1.0), kept)]
    trees = {law: xr.DataTree.from_dict({"study": study_dataset(study(8))}) for law in kept}
    found = combine(trees, one, USUAL, others)
    own = foretold([x for x in one if x.law != "b"], kept)
    assert len(own.share) == 6 * 4
    assert found.weights == weigh(own, {law: USUAL[law] for law in kept}, others)
    assert found.factor == 1.0
