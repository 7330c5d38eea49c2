"""Alarms: silent where the model holds, heard where it does not; bands as wide as errors ask."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from test_decide import prediction

from bayesicl import Settings, alarm, fit
from bayesicl.alarm import Heard, conflict, falling, falls, in_words, judge, oddness, stretches
from bayesicl.curves import read_curves
from bayesicl.decide import shots_to, useful_shots
from bayesicl.errors import CurveWarning
from bayesicl.fall import fall, steepest
from bayesicl.forecast import bands
from bayesicl.scale import PROBABILITY
from bayesicl.score import HeldOut
from bayesicl.tree import study_dataset
from bayesicl.widen import growth, needed, widened, widened_cells

CELLS = 6


def paths(rng, n, cells=CELLS):
    """Curves whose neighbouring cells go together, as draws of a forecast do."""
    return 0.5 + 0.05 * np.cumsum(rng.standard_normal((n, cells)), axis=1)


def forecast(y, draws, first=0):
    cells = pd.DataFrame({"y": y, "shots": np.arange(first, first + len(y)) ** 2})
    cells.index = np.arange(first, first + len(y))
    return HeldOut(cells, draws, draws, np.zeros(len(y)))


def forecasts(rng, y):
    """From 3, 4 and 5 cells, by one who knows how `paths` go on."""
    whole = []
    for k in (3, 4, 5):
        ahead = y[k - 1] + paths(rng, 800, len(y) - k) - 0.5
        whole.append([forecast(y[k:], ahead, first=k)])
    return whole


def tree(y, drawn, again=None, warnings=(), kinds=(), curves=1):
    """A fit. drawn: measurements of curves from the prior; again: `anew`, from the posterior."""
    again = drawn if again is None else again
    shots = np.tile(np.arange(len(y) // curves), curves)
    names = np.repeat(np.arange(curves), len(y) // curves)
    table = pd.DataFrame({"task": "t", "shots": shots, "prob": 0.01 * shots, "total": 9})
    table = table.assign(hypothesis=names) if curves > 1 else table
    one = xr.DataTree.from_dict(
        {
            "prior_predictive": xr.Dataset({"y": (("chain", "draw", "cell"), drawn[None])}),
            "again": xr.Dataset({"y": (("draw", "cell"), again)}),
            "observed_data": xr.Dataset({"y": ("cell", y)}, {"cell": np.arange(len(y))}),
            "study": study_dataset(read_curves(table).studies[0]),
        }
    )
    one.attrs = {"warnings": json.dumps(warnings), "warning_kinds": json.dumps(kinds)}
    return one


def rings(trees, *more):
    """What rings, of laws that weigh alike."""
    return judge(trees, [1 / len(trees)] * len(trees), *more).rung


@pytest.fixture(autouse=True)
def drawn_before(monkeypatch):
    """Fits of this file have no law to draw from: their draws are made already."""
    anew = alarm.anew

    def kept(tree, **how):
        return tree["again"]["y"].to_numpy() if "again" in tree else anew(tree, **how)

    monkeypatch.setattr(alarm, "anew", kept)


@pytest.fixture
def quiet(rng):
    """A curve of which nothing is to be said, with draws of the prior that it is from."""
    return tree(np.full(CELLS, 0.5), paths(rng, 1000))


def test_share_is_uniform_however_cells_go_together(rng):
    draws = [paths(rng, 201, 20) for _ in range(500)]
    shares = [oddness(some[0], some[1:]) for some in draws]
    assert stats.kstest(shares, "uniform").pvalue > 0.01


def test_what_each_cell_allows_but_not_all_together_is_odd(rng):
    draws = paths(rng, 2000)
    zigzag = draws.mean(0) + 1.5 * draws.std(0) * (-1.0) ** np.arange(CELLS)
    assert oddness(zigzag, draws) < 0.01
    assert oddness(draws.mean(0) + 0.5 * draws.std(0), draws) > 0.5


def test_cells_that_never_vary(rng):
    draws = np.ones((100, 2))
    assert oddness(np.ones(2), draws) == 1
    assert oddness(np.array([1.0, 0.9]), draws) == 1 / 101


def test_draws_that_are_not_finite_say_nothing(rng):
    draws = paths(rng, 500)
    broken = np.vstack([draws, np.full((3, CELLS), np.nan), np.full((1, CELLS), np.inf)])
    assert oddness(draws[0], broken) == oddness(draws[0], draws) > 0
    assert oddness(draws[0], broken[-4:]) == 1  # nothing is known


def test_beyond_all_draws_their_tail_tells_how_far(rng):
    draws = rng.standard_normal((999, 4))
    far = [oddness(np.full(4, x), draws) for x in (2.5, 3.0, 4.0, 6.0)]
    assert far == sorted(far, reverse=True)
    assert far[0] <= 1e-3
    exact = stats.chi2.sf(4 * 2.5**2, 4)
    assert exact / 10 < far[0] < 10 * exact
    few = sum(oddness(y, draws) < 1e-4 for y in rng.standard_normal((4000, 4)))
    assert few <= 5


def test_a_collapse_of_a_long_curve_is_heard(rng):
    """However many stretches there are: with 1000 draws no rank is rare enough for 11."""
    cells, ks = 60, (3, 4, 5, 7, 9, 13, 17, 22, 30, 40, 53)

    def seen(y):
        ahead = [y[k - 1] + paths(rng, 1000, cells - k) - 0.5 for k in ks]
        return [[forecast(y[k:], draws, first=k)] for k, draws in zip(ks, ahead, strict=True)]

    quiet = tree(np.full(cells, 0.5), paths(rng, 1000, cells))
    y = paths(rng, 1, cells)[0]
    y[45:] -= 0.5
    [reason] = rings([quiet], seen(y))
    assert "did not foresee those at 1600 to 2704 shots" in reason
    often = sum(bool(rings([quiet], seen(y))) for y in paths(rng, 60, cells))
    assert often <= 3  # 1 in 100


def test_one_law_that_finds_nothing_odd_is_enough(rng):
    low, high = (tree(np.full(CELLS, 0.9), paths(rng, n) + by) for n, by in ((500, 0), (900, 0.4)))
    assert conflict([low, low]) < 0.05
    assert conflict([low, high]) == conflict([high]) > 0.3
    y = np.full(CELLS, 0.9)
    one, two = (forecast(y, paths(rng, 500) + by) for by in (0, 0.4))
    [(cells, share)] = stretches([[one, two]])
    assert share == oddness(y, two.measured) > 0.3
    assert len(cells) == CELLS


def test_stretches_take_each_cell_once(rng):
    found = stretches(forecasts(rng, paths(rng, 1, 9)[0]))
    assert [list(part.index) for part, _ in found] == [[3], [4], [5, 6, 7, 8]]
    assert stretches([]) == []


def test_alarms_are_rare_where_the_model_holds(rng, quiet):
    often = sum(bool(rings([quiet], forecasts(rng, y))) for y in paths(rng, 300, 9))
    assert often < 10  # 1 in 100


def test_a_collapse_is_heard(rng, quiet):
    y = paths(rng, 1, 9)[0]
    y[7:] -= 0.4
    [reason] = rings([quiet], forecasts(rng, y))
    assert reason.startswith("the cells before did not foresee those at 25 to 64 shots (")
    far = tree(np.full(CELLS, 5.0), paths(rng, 1000))
    [reason] = rings([far])
    assert "conflict with the prior (" in reason


def told(warnings=("t: falls; law power cannot fall", "few"), kinds=("fall", "few cells")):
    return {"warnings": list(warnings), "kinds": list(kinds)}


def test_a_fall_rings_where_fitted_noise_does_not_reach_it(rng):
    y = np.array([0.8, 0.8, 0.8, 0.8, 0.7, 0.7])
    wide, narrow = (0.75 + sd * rng.standard_normal((1000, CELLS)) for sd in (0.1, 0.01))
    clear = tree(y, wide, narrow, **told())
    swallowed = tree(y, wide, wide, **told(["t: falls; law hill cannot fall"], ["fall"]))
    assert judge([clear], [1.0]) == Heard(["falls; law power cannot fall"], [])
    assert falls([swallowed], [1.0]) == {0: "falls; law hill cannot fall"}
    [caution] = judge([swallowed], [1.0]).cautions
    assert (
        caution
        == "falls; law hill cannot fall; yet noise and misfit as they were fitted may come out so"
    )
    assert falling([clear], [narrow], 0) < 0.002
    assert falling([clear, swallowed], [narrow, wide], 0) == falling([clear], [wide], 0) > 0.05
    assert rings([clear, swallowed]) == []


def test_a_fall_is_told_by_the_heaviest_law_whatever_their_order(rng):
    y = np.array([0.8, 0.8, 0.8, 0.8, 0.7, 0.7])
    narrow = 0.75 + 0.01 * rng.standard_normal((1000, CELLS))
    wide = 0.75 + 0.1 * rng.standard_normal((1000, CELLS))
    one = tree(y, wide, narrow, **told())
    two = tree(y, wide, narrow, **told(["t: falls; law hill cannot fall"], ["fall"]))
    assert judge([one, two], [0.2, 0.8]).rung == ["falls; law hill cannot fall"]
    assert judge([two, one], [0.8, 0.2]).rung == ["falls; law hill cannot fall"]
    may = tree(y, wide, narrow)
    assert judge([one, may], [0.8, 0.2]) == Heard([], [])


def test_each_curve_falls_on_its_own(rng):
    """A clear fall rings beside a noisy curve, whose own is a caution."""
    y = np.array([0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.7, 0.7, 0.7, 0.2, 0.2, 0.2])
    again = np.repeat([0.7, 0.5], 6) + np.repeat([0.02, 0.4], 6) * rng.standard_normal((1000, 12))
    words = [f"t, hypothesis {h}: falls; law power cannot fall" for h in (0, 1)]
    one = tree(y, again, **told(words, ["fall", "fall"]), curves=2)
    rung, [caution], _ = judge([one], [1.0])
    assert [text for text in rung if "falls" in text] == [
        "hypothesis 0 falls; law power cannot fall"
    ]
    assert caution.startswith("hypothesis 1 falls; ")
    assert steepest(y[:6], PROBABILITY) == pytest.approx(0.4)
    assert steepest(np.stack([y, y]), PROBABILITY) == pytest.approx([0.7, 0.7])
    assert steepest(y[:3], PROBABILITY) == -np.inf


def test_few_draws_judge_nothing(rng):
    far = tree(np.full(CELLS, 5.0), paths(rng, 99))
    few = "alarms are not judged by fewer than 100 draws"
    assert judge([far], [1.0]) == Heard([], [few], False)
    enough, ahead = tree(np.full(CELLS, 5.0), paths(rng, 100)), paths(rng, 100, CELLS - 3)
    assert judge([enough], [1.0]).judged
    said = lambda draws: judge([enough], [1.0], [[forecast(np.full(3, 5.0), draws, 3)]])  # noqa: E731
    assert said(ahead).rung
    ahead[0] = np.nan
    assert said(ahead) == Heard([], [few], False)
    y = np.array([0.8, 0.8, 0.8, 0.8, 0.7, 0.7])
    one = tree(y, 0.75 + 0.1 * rng.standard_normal((1000, CELLS)), paths(rng, 99), **told())
    [caution] = judge([one], [1.0]).cautions
    assert caution.endswith("; draws are too few to say whether noise may come out so")


def test_measurements_anew_know_sizes_but_no_path():
    """Of a flat curve that collapses, fitted with its law's misfit, which follows it."""
    p = np.array([0.5, 0.5, 0.5, 0.5, 0.1, 0.1])
    table = pd.DataFrame({"shots": 2 ** np.arange(6), "correct": 400 * p, "total": 400})
    short = Settings(warmup=200, draws=500)
    with pytest.warns(CurveWarning):
        [one] = fit(read_curves(table), "constant", noise="misfit", settings=short)
    drawn = alarm.anew(one)
    assert len(drawn) == one["posterior"].sizes["chain"] * one["posterior"].sizes["draw"]
    followed = one["posterior_predictive"]["y"].mean(("chain", "draw"))
    assert (np.abs(followed - p) < 0.1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), one["posterior"]["p"].mean(), atol=0.05)
    assert drawn.std() > 0.1


class Level:
    """A law of curves that are flat at N(0.5, tau^2), with cells that scatter by `noise`."""

    def __init__(self, tau, noise):
        self.tau, self.noise = tau, noise

    def given(self, y, rng, cells, n=1000):
        """Draws of so many more cells, once `y` is measured."""
        precision = self.tau**-2 + len(y) * self.noise**-2
        mean = (0.5 * self.tau**-2 + y.sum() * self.noise**-2) / precision
        level = mean + precision**-0.5 * rng.standard_normal((n, 1))
        return level + self.noise * rng.standard_normal((n, cells))


def rung_by(laws, truth, rng, runs, cells=12):
    """Share of studies under `truth` that ring, by the alarm; and that fall beyond c = 1 errors."""
    kinds = {"conflict": 0, "foresee": 0, "cannot fall": 0, "told": 0}
    for _ in range(runs):
        y = truth.given(np.zeros(0), rng, cells, n=1)[0]
        table = pd.DataFrame({"shots": np.arange(cells) ** 2, "y": y, "error": 0.02})
        fell = bool(fall(table, PROBABILITY))
        what = told(["t: falls; law level cannot fall"] * fell, ["fall"] * fell)
        trees = [
            tree(y, law.given(y[:0], rng, cells), law.given(y, rng, cells), **what) for law in laws
        ]
        ahead = [
            [forecast(y[k:], law.given(y[:k], rng, cells - k), first=k) for law in laws]
            for k in (3, 4, 5, 7, 9)
        ]
        weights = np.r_[0.95, np.full(len(laws) - 1, 0.05)][: len(laws)]
        reasons = " ".join(judge(trees, weights, ahead).rung)
        kinds["told"] += fell
        for kind in ("conflict", "foresee", "cannot fall"):
            kinds[kind] += kind in reasons
    return {kind: count / runs for kind, count in kinds.items()}


LIGHT, HEAVY = Level(0.2, 0.08), Level(0.05, 0.02)


@pytest.mark.parametrize("laws", [[LIGHT], [HEAVY, LIGHT]])
def test_each_alarm_is_rare_where_one_law_holds_however_light(laws, rng):
    """Measurements and draws are of one model; the cells' own errors are a quarter of its noise."""
    often = rung_by(laws, LIGHT, rng, 200)
    assert often.pop("told") > 0.1  # which would all have rung by their own errors
    assert max(often.values()) <= 7 / 200  # 1 in 100


def test_alarms_ring_where_no_law_holds(rng):
    often = rung_by([HEAVY, Level(0.05, 0.03)], Level(0.6, 0.3), rng, 50)
    assert min(often["conflict"], often["foresee"], often["cannot fall"]) > 0.3


def test_needed_factor_is_that_of_the_errors(rng):
    """Of cells a doubling ahead and farther, where bands have their full width."""
    study = curve(64)

    def errors(sd, n=2000, k=3):
        found = forecast(sd * rng.standard_normal(n), rng.standard_normal((500, n)))
        return {k: found._replace(cells=found.cells.assign(hypothesis="0", shots=40))}

    assert needed(errors(3.0), study) == pytest.approx(3.0, rel=0.1)
    assert needed(errors(0.5), study) == 1
    assert needed({}, study) == 1
    assert needed(errors(50.0), study) == pytest.approx(10)
    both = errors(1.0) | errors(5.0, n=500, k=4)  # each origin counts as one
    assert needed(both, study) == pytest.approx(np.sqrt((1 + 25) / 2), rel=0.1)
    point = forecast(np.array([0.5]), np.full((9, 1), 0.4))
    point = point._replace(cells=point.cells.assign(hypothesis="0"))
    assert needed({3: point}, study) == 1  # within the fit nothing is wider


def test_needed_factor_is_that_with_which_spreads_grow(rng):
    """Near the edge bands are hardly wider: to hold the same errors the factor must be larger."""
    found = forecast(3.0 * rng.standard_normal(2000), rng.standard_normal((500, 2000)))
    cells = found.cells.assign(hypothesis="0", shots=11)  # after 9 fitted cells, 0 to 8 shots
    by = np.log(12 / 9) / np.log(2)
    factor = needed({9: found._replace(cells=cells)}, curve(64))
    assert factor == pytest.approx(1 + (3.0 - 1) / by, rel=0.1)


def curve(fitted, first=0, outcome="prob"):
    """A study of one curve, fitted from `first` to `fitted` shots."""
    table = pd.DataFrame({"shots": np.arange(first, 65), "total": 50})
    table[outcome] = np.linspace(0.501, 0.5033, len(table))
    study = read_curves(table).studies[0]
    return replace(study, cells=study.cells.assign(fitted=study.cells["shots"] <= fitted))


def test_spreads_grow_from_where_the_fit_ends():
    shots = np.array([0, 1, 3, 7, 20, 31, 47, 63, 64])
    by = growth(curve(31, first=7), np.array(["0"]), shots, 3.0)
    np.testing.assert_allclose(by[[7, 8]], 3.0)  # from twice of 1 + shots on
    np.testing.assert_allclose(by[:6], 1.0)  # before the fit's beginning, too
    assert by[6] == pytest.approx(1 + 2 * np.log(48 / 32) / np.log(2))


def test_bands_widen_about_their_median_beyond_the_fit(rng):
    draws = 0.5 + 0.05 * rng.standard_normal((500, 65))
    one = prediction(draws)
    wide = widened(one, curve(8), 3.0)
    by = growth(curve(8), np.array(["0"]), one["shots"].to_numpy(), 3.0)
    for name in ("mean", "replicate"):
        before, after = (x[name].to_numpy()[0, :, 0] for x in (one, wide))
        np.testing.assert_array_equal(before[:, :9], after[:, :9])
        middle = np.median(before, axis=0)
        np.testing.assert_allclose(after, np.clip(middle + by * (before - middle), 0, 1))
    assert wide["mean"].dims == one["mean"].dims
    assert wide.attrs == one.attrs | {"widened": 3.0}
    np.testing.assert_array_equal(wide["widened"].to_numpy()[0], by)
    table = bands(wide)
    assert table.loc[table["band"] == "mean", "widened"].tolist() == by.tolist()
    assert "widened" not in bands(one)
    assert widened(one, curve(8), 1.0) is one


def test_bands_of_nats_are_not_cut_at_one(rng):
    draws = 2.0 + 0.5 * rng.standard_normal((500, 65))
    study = curve(8, outcome="mean_nll")
    wide = widened(prediction(draws, outcome="mean_nll"), study, 10.0)["mean"]
    assert wide.max() > 4
    assert wide.min() == 0


def test_widening_is_no_gain(rng):
    """Flat curves, each at its own height: nothing is gained by doubling, whatever the bands."""
    flat = np.repeat(rng.normal(0.5, 0.02, (400, 1)), 65, axis=1)
    one = prediction(flat)
    wide = widened(one, curve(8), 4.0)
    pd.testing.assert_frame_equal(useful_shots(wide), useful_shots(one))
    np.testing.assert_array_equal(wide["law"], one["law"])
    steps = np.abs(np.diff(wide["mean"].to_numpy()[0, :, 0], axis=1)).max(axis=0)
    assert 0 < steps[8] < 0.5 * np.abs(wide["mean"] - one["mean"]).max()  # no jump
    assert (shots_to(wide, 0.5)["not_by_64"] == shots_to(one, 0.5)["not_by_64"]).all()


def test_held_out_cells_widen_and_keep_their_density(rng):
    one = forecast(np.array([0.5, 0.6, 0.6]), 0.4 + 0.2 * paths(rng, 400, 3), first=3)
    one = one._replace(cells=one.cells.assign(hypothesis="0"))  # at 9, 16 and 25 shots
    wide = widened_cells(one, curve(9), 2.0)
    np.testing.assert_allclose(np.median(wide.curve, axis=0), np.median(one.curve, axis=0))
    ratio = np.ptp(wide.measured, axis=0) / np.ptp(one.measured, axis=0)
    np.testing.assert_allclose(ratio, [1.0, 1 + np.log(17 / 10) / np.log(2), 2.0])
    np.testing.assert_array_equal(wide.log_score, one.log_score)
    assert widened_cells(one, curve(9), 1.0) is one


def test_words():
    assert in_words([], 1.0) == ""
    assert in_words(["it falls"], 1.0) == (
        "ALARM: it falls. No law judged here is adequate under its prior: lean on no band."
    )
    assert "beyond the fit are up to 3.6 times as wide as the laws'." in in_words(["x"], 3.61)
