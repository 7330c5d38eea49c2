"""Predictions and scores: against known parameters, closed forms and dense normals."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import simulate
import xarray as xr
from scipy import stats

from bayesicl import (
    InputError,
    Settings,
    bands,
    fit,
    load,
    load_law,
    predict,
    read_curves,
    save,
    score,
    score_cells,
)
from bayesicl.decide import reach
from bayesicl.forecast import curve_shots
from bayesicl.score import (
    _clustered_se,
    _reached,
    clusters,
    crps,
    held_out,
    held_out_cells,
    score_draws,
)
from bayesicl.tree import study_dataset

reuse_engines = simulate.reuse_engines  # a fixture
SHOTS = np.array([0, 1, 2, 4, 8, 16, 32, 64])
SHORT = Settings(warmup=200, draws=250)


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    path = tmp_path_factory.mktemp("law") / "straight.py"
    path.write_text(simulate.STRAIGHT)
    return load_law(path)


def straight(a, b, shots):
    """The law in NumPy."""
    return a + (b - a) * shots / (shots + 5)


def tree_of(law, study, noise, values):
    """A fit whose draws, (chains, draws, H) each, are what we say."""
    posterior = {n: (("chain", "draw", "hypothesis"), x) for n, x in values.items()}
    posterior = xr.Dataset(posterior, coords={"hypothesis": list(study.hypotheses)})
    tree = xr.DataTree.from_dict({"posterior": posterior, "study": study_dataset(study)})
    tree.attrs = {
        "law": law.name, "law_path": str(law.path), "law_hash": law.source_hash, "noise": noise,
        "backgrounds": 1, "same_as": "[]", "settings": json.dumps(asdict(SHORT)), "seed": 0,
    }  # fmt: skip
    return tree


def known(law, study, noise, draws, **values):
    """A fit that knows the parameters: all draws are the truth, (H,) each."""
    one = {
        n: np.broadcast_to(np.atleast_1d(x), (2, draws // 2, np.size(x))) for n, x in values.items()
    }
    return tree_of(law, study, noise, one)


def given(y, se=0.05, **more):
    table = pd.DataFrame({"shots": SHOTS, "prob": y, "se": se, "model": "lm"})
    return read_curves(table.assign(**more))


Y = np.array([0.31, 0.33, 0.42, 0.5, 0.52, 0.66, 0.62, 0.71])


@pytest.fixture(scope="module")
def fitted(law):
    """A real fit of the first six cells."""
    return fit(given(Y).hold_out(fit_shots=16), law, settings=SHORT)[0]


@pytest.fixture(scope="module")
def spread(law):
    """A made-up posterior of two curves; given errors compile fastest."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "hypothesis": np.repeat(["x", "y"], len(SHOTS)),
            "shots": np.tile(SHOTS, 2),
            "prob": rng.uniform(0.3, 0.7, 2 * len(SHOTS)),
            "se": 0.05,
        }
    )
    study = read_curves(table).studies[0]
    draws = {
        "a": rng.beta(8, 20, (2, 250, 2)),
        "b": rng.beta(20, 8, (2, 250, 2)),
    }
    return tree_of(law, study, "given-se", draws)


@pytest.fixture(scope="module")
def prediction(spread):
    return predict(spread, [0, 5, 20, 500])


# Predictions


def test_saved_file_predicts_the_same(fitted, tmp_path):
    before = predict(fitted, [0, 3, 100], seed=4)
    after = predict(load(save(fitted, tmp_path / "fit.nc")), [0, 3, 100], seed=4)
    xr.testing.assert_identical(before, after)


def test_ends_of_the_fitted_curve(fitted):
    curve = predict(fitted, [0, 16])["mean"].isel(hypothesis=0)
    posterior = fitted["posterior"].isel(hypothesis=0)
    np.testing.assert_allclose(curve.sel(shots=0), posterior["p_zero"], rtol=1e-12)
    np.testing.assert_allclose(curve.sel(shots=16), posterior["p_last"], rtol=1e-12)


def test_mean_is_the_law_at_every_draw(spread, prediction):
    a, b = (spread["posterior"][n].to_numpy()[..., None] for n in "ab")
    assert prediction["mean"].dims == ("chain", "draw", "hypothesis", "shots")
    assert prediction["hypothesis"].to_numpy().tolist() == ["x", "y"]
    expected = straight(a, b, np.array([0, 5, 20, 500]))
    np.testing.assert_allclose(prediction["mean"], expected, rtol=1e-12)


def test_measured_shots_where_none_are_asked_for(spread):
    assert predict(spread)["shots"].to_numpy().tolist() == SHOTS.tolist()


def test_seed_moves_noise_alone(spread, prediction):
    other = predict(spread, [500, 5, 20, 0, 5], seed=1)  # sorted, and each named once
    xr.testing.assert_identical(other["mean"], prediction["mean"])
    assert (other["replicate"] != prediction["replicate"]).mean() > 0.5


def test_bands_are_nested_quantiles(prediction):
    table = bands(prediction, levels=(0.9, 0.5, 0.25))
    assert len(table) == 2 * 4 * 2
    ends = [f"lower {v}%" for v in (90, 50, 25)] + ["median"]
    ends += [f"upper {v}%" for v in (25, 50, 90)]
    assert (np.diff(table[ends].to_numpy(), axis=1) >= 0).all()
    row = table[(table["hypothesis"] == "y") & (table["shots"] == 20) & (table["band"] == "mean")]
    x = prediction["mean"].sel(hypothesis="y", shots=20).to_numpy().ravel()
    np.testing.assert_allclose(
        row[["lower 90%", "median", "upper 50%"]].to_numpy()[0], np.quantile(x, [0.05, 0.5, 0.75])
    )
    width = (table["upper 90%"] - table["lower 90%"]).groupby(table["band"]).mean()
    assert width["replicate"] > width["mean"]


def test_names_of_bands_say_what_they_stand_for(prediction):
    names = json.loads(prediction.attrs["bands"])
    assert names == {"mean": "mean curve", "replicate": "a new measurement with se 0.05"}


def test_reach_is_the_largest_share_of_curves_above_so_far(spread, prediction):
    table = reach(prediction, 0.6).set_index(["hypothesis", "shots"])["probability"]
    a, b = (spread["posterior"][n].to_numpy() for n in "ab")
    share = 0.0
    for n in (0, 5, 20, 500):
        share = np.maximum(share, (straight(a, b, n) >= 0.6).mean((0, 1)))
        np.testing.assert_allclose(table[:, n], share)
    assert table["x"][500] < 1  # the mass of later, or never


@pytest.mark.parametrize("longest", [1, 7, 64, 5000])
def test_shots_of_a_smooth_curve(longest):
    """From 0 to the last, in no longer steps than 80 shots evenly spaced."""
    grid = curve_shots(longest)
    assert grid.dtype.kind == "i"
    assert grid[0] == 0
    assert grid[-1] == longest
    assert (np.diff(grid) > 0).all()
    assert np.diff(grid).max() <= longest / 79 + 1


def test_shots_of_a_curve_that_is_smooth_on_a_log_scale_too():
    grid = curve_shots(5000)
    steps = np.diff(np.log1p(grid))[grid[1:] > 80]  # below, whole numbers are further apart
    assert steps.max() <= np.log1p(5000) / 79 + 0.02


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        ([], "no shots to predict at"),
        ([-1], "whole numbers from 0 to 10000000, got -1"),
        ([1.5], "got 1.5"),
        ([np.nan], "got nan"),
        ([10**7 + 1], "got 1e"),
        (["many"], "must be whole numbers"),
    ],
)
def test_bad_shots(spread, shots, message):
    with pytest.raises(InputError, match=message):
        predict(spread, shots)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, float("nan")])
def test_bad_threshold(prediction, threshold):
    with pytest.raises(InputError, match="between 0 and 1"):
        reach(prediction, threshold)


# Hold-outs


def test_scoring_needs_a_held_out_cell(spread):
    with pytest.raises(InputError, match="nothing was held out; fit with --fit-shots"):
        score_cells(spread)


def test_held_out_values_do_not_reach_the_fit(law, fitted):
    other = Y.copy()
    other[-2:] = 0.05, 0.95
    again = fit(given(other).hold_out(fit_shots=16), law, settings=SHORT)[0]
    for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive", "prior"):
        xr.testing.assert_identical(again[group].to_dataset(), fitted[group].to_dataset())


def test_real_fit_scores_what_it_did_not_see(fitted):
    cells = score_cells(fitted)
    assert cells["shots"].tolist() == [32, 64]
    assert cells["y"].tolist() == Y[-2:].tolist()
    assert (cells["study"] == "lm").all()
    assert (cells["law"] == "straight").all()
    np.testing.assert_allclose(cells["fitted"], 16 / 64)
    assert cells["inside 90%"].all()


H = 28
NOISES = {
    "beta-binomial": {"scatter": 0.15},
    "mean-probability": {"c": 0.2},
    "given-se": {},
}


@pytest.mark.parametrize("noise", NOISES)
def test_known_parameters_are_calibrated(law, noise):
    """Curves simulated in NumPy, scored with their true parameters: uniform PIT, full coverage."""
    rng = np.random.default_rng(11)
    a, b = rng.uniform(0.25, 0.45, H), rng.uniform(0.55, 0.75, H)
    p = straight(a[:, None], b[:, None], SHOTS)
    n = np.where(SHOTS < 5, 30, 12)[None].repeat(H, 0)
    h, shots = np.meshgrid(range(H), SHOTS, indexing="ij")
    table = {"hypothesis": h.ravel(), "shots": shots.ravel()}
    if noise == "beta-binomial":
        k = 1 / 0.15**2 - 1
        correct = stats.betabinom.rvs(n, p * k, (1 - p) * k, random_state=rng)
        table |= {"correct": correct.ravel(), "total": n.ravel()}
    elif noise == "mean-probability":
        y = p + np.sqrt(0.2 * p * (1 - p) / n) * rng.standard_normal(p.shape)
        table |= {"prob": y.ravel(), "total": n.ravel()}
    else:
        se = np.full(p.shape, 0.04)
        table |= {"prob": (p + se * rng.standard_normal(p.shape)).ravel(), "se": se.ravel()}
    study = read_curves(pd.DataFrame(table)).hold_out(fit_points=2).studies[0]
    sizes = {name: np.full(H, value) for name, value in NOISES[noise].items()}
    cells = score_cells(known(law, study, noise, 500, a=a, b=b, **sizes))
    size = len(cells)
    assert size == 6 * H
    assert stats.kstest(cells["pit"], "uniform").pvalue > 0.002
    for level in (0.5, 0.9):
        inside = int(cells[f"inside {100 * level:g}%"].sum())
        assert stats.binomtest(inside, size, level).pvalue > 0.002
    # The score is the true density, whatever the draws of the noise.
    held = ~study.cells["fitted"].to_numpy()
    own = p.ravel()[held]
    if noise == "beta-binomial":
        count = np.round(study.cells["y"] * study.cells["total"])[held]
        log = stats.betabinom.logpmf(count, n.ravel()[held], own * k, (1 - own) * k)
    else:
        extra = 0.25 / n**2
        shrunk = (p + extra) / (1 + 2 * extra)
        prompts = np.sqrt(0.2 * shrunk * (1 - shrunk) / n)
        sd = se.ravel() if noise == "given-se" else prompts.ravel()
        log = stats.norm.logpdf(study.cells["y"][held], own, sd[held])
    np.testing.assert_allclose(cells["log_score"], log, atol=1e-5)


# Replicates: what the seen ones share reaches the held-out cells

D, SLOPE, TAU, R, ITEMS = 1.5, -0.3, 0.25, 4, 50


@pytest.fixture(scope="module")
def replicated(law):
    """Four replicates that share a shift upwards; the last three cells are held out."""
    rng = np.random.default_rng(2)
    p = straight(0.3, 0.6, SHOTS)
    r, shots = np.meshgrid(range(R), SHOTS, indexing="ij")
    raised = p + 0.12 + 0.03 * rng.standard_normal((R, len(SHOTS)))
    table = {"replicate": r.ravel(), "shots": shots.ravel(), "total": ITEMS}
    table["correct"] = np.round(raised * ITEMS).astype(int).ravel()
    study = read_curves(pd.DataFrame(table)).hold_out(fit_points=5).studies[0]
    values = {"a": 0.3, "b": 0.6, "dispersion": D, "dispersion_slope": SLOPE, "replicate_sd": TAU}
    return study, known(law, study, "replicates", 4000, **values)


def covariance(shots, replicates):
    """Of the means of cells over replicates, by definition."""
    p = straight(0.3, 0.6, shots)
    shrunk = (p * replicates * ITEMS + 0.5) / (replicates * ITEMS + 1)
    root = np.sqrt(shrunk * (1 - shrunk))
    d = D * ((1 + shots) / 11) ** SLOPE
    own = np.diag(d * root**2 / (replicates * ITEMS))
    return p, own + TAU**2 / replicates * np.outer(root, root)


def test_seen_replicates_shift_and_narrow_what_is_held_out(replicated):
    study, tree = replicated
    y = study.cells["y"].to_numpy()
    mean, cov = covariance(SHOTS, R)
    i, j = np.arange(5), np.arange(5, 8)
    gain = cov[np.ix_(j, i)] @ np.linalg.inv(cov[np.ix_(i, i)])
    expected = mean[j] + gain @ (y[i] - mean[i])
    sd = np.sqrt(np.diag(cov[np.ix_(j, j)] - gain @ cov[np.ix_(i, j)]))
    assert (expected > mean[j] + 0.05).all(), "the case must shift"
    assert (sd < 0.7 * np.sqrt(np.diag(cov)[j])).all(), "the case must narrow"
    cells = score_cells(tree)
    np.testing.assert_allclose(cells["log_score"], stats.norm.logpdf(y[j], expected, sd), rtol=1e-6)
    np.testing.assert_allclose(cells["median"], expected, atol=4 * 1.26 * sd.max() / np.sqrt(4000))
    np.testing.assert_allclose(cells["pit"], stats.norm.cdf(y[j], expected, sd), atol=0.04)


def test_new_replicates_and_new_items_are_wider(replicated):
    _, tree = replicated
    shots = np.array([0, 16, 64])
    drawn = predict(tree, shots).isel(hypothesis=0)
    p, cov = covariance(shots, 1)
    sd = np.sqrt(np.diag(cov))
    np.testing.assert_allclose(drawn["mean"].std(("chain", "draw")), 0.0, atol=1e-12)
    np.testing.assert_allclose(drawn["replicate"].mean(("chain", "draw")), p, atol=0.015)
    np.testing.assert_allclose(drawn["replicate"].std(("chain", "draw")), sd, rtol=0.06)
    items = np.sqrt(sd**2 + p * (1 - p) / ITEMS)
    np.testing.assert_allclose(drawn["items"].std(("chain", "draw")), items, rtol=0.06)
    names = json.loads(drawn.attrs["bands"])
    assert names["replicate"] == "one new replicate, same 50 items"
    assert names["items"] == "one new replicate, 50 new items"


def test_fresh_items_have_no_band_of_their_own(replicated):
    study, tree = replicated
    fresh = tree.copy()
    fresh["study"].attrs = tree["study"].attrs | {"items": "fresh"}
    drawn = predict(fresh, [0, 64])
    assert "items" not in drawn
    assert json.loads(drawn.attrs["bands"])["replicate"] == "one new replicate, 50 new items"
    assert replace(study, items="fresh").items == "fresh"


# Scores


def test_crps_of_a_normal():
    rng = np.random.default_rng(1)
    mean, sd, y = np.array([0.0, 0.4]), np.array([1.0, 0.2]), np.array([0.7, 0.1])
    z = (y - mean) / sd
    exact = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    ours = crps(mean + sd * rng.standard_normal((200_000, 2)), y)
    np.testing.assert_allclose(ours, exact, atol=4 * sd.max() / np.sqrt(200_000))


def test_crps_is_the_double_sum():
    rng = np.random.default_rng(2)
    x, y = rng.gamma(2.0, size=(37, 3)), np.array([0.5, 2.0, 9.0])
    for j in range(3):
        pairs = np.abs(x[:, None, j] - x[None, :, j]).sum() / (37 * 36)
        expected = np.abs(x[:, j] - y[j]).mean() - pairs / 2
        assert crps(x, y)[j] == pytest.approx(expected, rel=1e-12)


def test_clustered_error_by_formula_and_bootstrap():
    rng = np.random.default_rng(3)
    curves = [
        (rng.standard_normal() + rng.standard_normal(rng.integers(3, 9)) > 0).astype(float)
        for _ in range(150)
    ]
    every = np.concatenate(curves)
    scores = [c.sum() - c.size * every.mean() for c in curves]
    expected = np.sqrt(150 / 149 * np.sum(np.square(scores)) / every.size**2)
    assert _clustered_se(curves, 0.5) == pytest.approx(expected, rel=1e-12)
    total, size = np.array([(c.sum(), c.size) for c in curves]).T
    picks = rng.integers(0, 150, (4000, 150))
    resampled = total[picks].sum(1) / size[picks].sum(1)
    assert _clustered_se(curves, 0.5) == pytest.approx(resampled.std(), rel=0.1)
    naive = every.std() / np.sqrt(every.size)
    assert _clustered_se(curves, 0.5) > 1.2 * naive
    # All inside: not more certain than independent cells would be at the level.
    inside = [np.ones(4)] * 5
    assert _clustered_se(inside, 0.9) == pytest.approx(np.sqrt(0.9 * 0.1 / 20))
    assert np.isnan(_clustered_se(curves[:4], 0.9))


def scored_cells():
    """Two laws; 6 models with 2 curves of 2 cells each, where all of a model go together."""
    curves = np.arange(12)
    return pd.concat(
        pd.DataFrame(
            {
                "law": law,
                "study": [f"s{c}" for c in curves for _ in range(2)],
                "model": [f"m{c // 2}" for c in curves for _ in range(2)],
                "hypothesis": "0",
                "y": np.tile([0.4, 0.6], 12),
                "median": np.tile(median, 12),
                "inside 50%": np.repeat([c // 2 % 2 == 0 for c in curves], 2),
                "inside 90%": True,
                "width 50%": 0.1,
                "width 90%": np.tile([0.2, 0.4], 12),
                "crps": np.tile([0.1, 0.3], 12),
                "log_score": np.tile([1.0, -2.0], 12),
                "fitted": 0.2,
            }
        )
        for law, median in (("p", [0.5, 0.5]), ("q", [0.4, 0.9]))
    )


def test_score_by_hand():
    p, q = score(scored_cells()).to_dict("records")
    assert (p["law"], p["curves"], p["cells"]) == ("p", 12, 24)
    assert p["coverage 50%"] == pytest.approx(0.5)
    # Six models, each with a sum of +2 or -2 about the mean.
    assert p["se 50%"] == pytest.approx(np.sqrt(6 / 5 * 6 * 2**2) / 24)
    assert p["verdict 50%"] == "not decided"
    assert p["coverage 90%"] == 1
    assert p["se 90%"] == pytest.approx(np.sqrt(0.9 * 0.1 / 24))
    assert p["verdict 90%"] == "not decided"
    assert p["width 50%"] == pytest.approx(0.1)
    assert p["width 90%"] == pytest.approx(0.3)
    assert p["crps"] == pytest.approx(0.2)
    assert p["log_score"] == pytest.approx(-0.5)
    assert p["mae"] == pytest.approx(0.1)
    assert p["nrmse"] == pytest.approx(0.1 / 0.5)
    assert q["nrmse"] == pytest.approx(np.sqrt(0.3**2 / 2) / 0.5)
    assert q["fitted"] == pytest.approx(0.2)


def test_many_curves_are_the_unit_themselves():
    cells = pd.concat(
        scored_cells().query("law == 'p'").assign(study=lambda t, i=i: t["study"] + f"-{i}")
        for i in range(3)
    )
    [row] = score(cells).to_dict("records")
    assert row["curves"] == 36
    assert row["se 50%"] == pytest.approx(np.sqrt(36 / 35 * 36 * 1**2) / 72)


def test_each_source_counts_its_own_curves():
    """36 curves are the unit themselves, 12 beside them go by model, whatever their names."""
    few = scored_cells().query("law == 'p'").assign(source="few")
    many = pd.concat(
        few.assign(source="many", study=lambda t, i=i: t["study"] + f"-{i}") for i in range(3)
    )
    both = pd.concat([few, many], ignore_index=True)
    named = clusters(both)
    assert named[both["source"] == "few"].nunique() == 6
    assert named[both["source"] == "many"].nunique() == 36
    [row] = score(both).to_dict("records")
    assert row["curves"] == 48
    sums = np.concatenate([np.full(6, 2.0), np.full(36, 1.0)])  # of clusters about the mean
    assert row["se 50%"] == pytest.approx(np.sqrt(42 / 41 * np.sum(sums**2)) / 96)


def test_scores_of_draws_at_any_levels():
    """Draws that are right: uniform PIT; ends of intervals and ties by hand."""
    rng = np.random.default_rng(5)
    draws = rng.binomial(4, 0.6, (4000, 300)) / 4
    y = rng.binomial(4, 0.6, 300) / 4
    cells = score_draws(y, draws, np.zeros(300), rng=rng, levels=(0.8, 0.95))
    assert stats.kstest(cells["pit"], "uniform").pvalue > 0.002
    assert stats.binomtest(int(cells["inside 80%"].sum()), 300, 0.8).pvalue > 0.002
    assert "inside 90%" not in cells
    np.testing.assert_allclose(cells["width 80%"], 0.75)  # P(0) = .03, P(0 or 1) = .18, P(4) = .13
    [row] = score(cells.assign(law="x", study=np.arange(300).astype(str), model="m", hypothesis="0",
                               fitted=0.1)).to_dict("records")  # fmt: skip
    assert row["coverage 95%"] == cells["inside 95%"].mean()
    assert row["verdict 80%"] in ("reached", "not decided")


def test_held_out_forecast_is_what_is_scored(fitted):
    found = held_out(fitted)
    assert found.cells["shots"].tolist() == [32, 64]
    assert found.measured.shape == found.curve.shape == (1000, 2)
    a, b = (fitted["posterior"][n].to_numpy().reshape(-1, 1) for n in "ab")
    np.testing.assert_allclose(found.curve, straight(a, b, np.array([32, 64])), rtol=1e-12)
    cells = score_cells(fitted)
    np.testing.assert_allclose(cells["median"], np.median(found.measured, axis=0))
    np.testing.assert_allclose(cells["log_score"], found.log_score)
    assert held_out_cells(given(Y).studies[0]).empty


def test_curves_at_zero_have_no_relative_error():
    cells = scored_cells().query("law == 'p'").assign(y=0.0)
    assert np.isnan(score(cells)["nrmse"][0])


def test_scores_of_laws_that_are_one_in_some_studies():
    cells = scored_cells()
    cells.loc[(cells["law"] == "q") & (cells["study"] == "s0"), "law"] = "q = r"
    assert score(cells)["law"].tolist() == ["p", "q"]
    assert score(cells)["cells"].tolist() == [24, 24]


@pytest.mark.parametrize(
    ("coverage", "se", "level", "verdict"),
    [
        (0.9, 0.01, 0.9, "reached"),
        (0.88, 0.02, 0.9, "reached"),
        (0.88, 0.005, 0.9, "not reached"),  # small, but surely there
        (0.86, 0.025, 0.9, "not decided"),  # too far, but not surely
        (0.9, 0.04, 0.9, "not decided"),  # the error is too wide to tell
        (0.46, 0.04, 0.5, "reached"),
        (0.41, 0.02, 0.5, "not reached"),
        (0.77, 0.02, 0.8, "reached"),
        (0.92, 0.016, 0.95, "not decided"),
        (0.9, np.nan, 0.9, "not decided"),
    ],
)
def test_verdict_of_coverage(coverage, se, level, verdict):
    assert _reached(coverage, se, level) == verdict
