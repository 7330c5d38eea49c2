"""Decisions from predictions whose answers are known."""

import json

import numpy as np
import pytest
import xarray as xr

from bayesicl.decide import next_shots, shots_to, useful_shots
from bayesicl.errors import InputError

SHOTS = np.arange(0, 65)


def prediction(mean, replicate=None, shots=SHOTS, outcome="prob"):
    """Of one hypothesis: mean (draws, shots)."""
    dims = ("chain", "draw", "hypothesis", "shots")
    one = np.asarray(mean, float)[None, :, None]
    again = one if replicate is None else np.asarray(replicate)[None, :, None]
    coords = {"chain": [0], "draw": np.arange(one.shape[1]), "hypothesis": ["0"], "shots": shots}
    data = xr.Dataset(
        {"mean": (dims, one), "law": (dims, one), "replicate": (dims, again)}, coords=coords
    )
    data = data.assign_coords(within=(("hypothesis", "shots"), (shots <= 8)[None]))
    bands = json.dumps({"mean": "mean curve", "replicate": "new"})
    return data.assign_attrs(bands=bands, outcome=outcome)


def test_shots_to_a_threshold_that_each_curve_reaches_at_its_own():
    first = np.arange(0, 100)  # n* of each draw; those above 64 are not on the grid
    steps = np.where(SHOTS[None] >= first[:, None], 0.8, 0.2)
    [row] = shots_to(prediction(steps), 0.5, quantiles=[0.05, 0.5, 0.9]).to_dict("records")
    assert row["n* 5%"] == 4
    assert row["n* 50%"] == 49
    assert row["n* 90%"] == np.inf
    assert row["not_by_64"] == pytest.approx(0.35)


def test_a_mean_nll_reaches_a_threshold_from_above():
    first = np.arange(0, 100)
    steps = np.where(SHOTS[None] >= first[:, None], 1.5, 4.0)
    there = prediction(steps, outcome="mean_nll")
    [row] = shots_to(there, 2.0, quantiles=[0.05, 0.5, 0.9]).to_dict("records")
    assert (row["n* 5%"], row["n* 50%"], row["n* 90%"]) == (4, 49, np.inf)
    [row] = shots_to(there, 4.0, quantiles=[0.5]).to_dict("records")
    assert (row["n* 50%"], row["not_by_64"]) == (0, 0)
    assert shots_to(there, 1.0)["not_by_64"][0] == 1
    assert useful_shots(there, gain=1.0)["useful_shots"][0] == np.inf
    for wrong in (0, -2.0, np.inf):
        with pytest.raises(InputError, match="--threshold must be above 0 nats, got"):
            shots_to(there, wrong)


def test_what_was_reached_stays_reached():
    falls = np.where(SHOTS == 3, 0.9, 0.1)[None]
    [row] = shots_to(prediction(falls), 0.5, quantiles=[0.5]).to_dict("records")
    assert row["n* 50%"] == 3
    assert row["not_by_64"] == 0


def test_shots_beyond_which_doubling_gains_little():
    rise = (0.5 - 0.4 / (1 + SHOTS))[None]  # p(2 n) - p(n) = .4 n / ((1 + n) (1 + 2 n))
    gain = 0.4 * SHOTS / ((1 + SHOTS) * (1 + 2 * SHOTS))
    for least in (0.05, 0.02):
        [row] = useful_shots(prediction(rise), gain=least).to_dict("records")
        assert row["useful_shots"] == max(SHOTS[(gain >= least) & (SHOTS >= 1)]) + 1
        fall = prediction(3 - 5 * rise, outcome="mean_nll")
        [same] = useful_shots(fall, gain=5 * least).to_dict("records")
        assert same["useful_shots"] == row["useful_shots"]
    assert row["last"] == 32
    [row] = useful_shots(prediction(rise), gain=0.001).to_dict("records")
    assert row["useful_shots"] == np.inf


def test_doubling_that_one_draw_in_five_still_gains_from():
    flat, risen = np.full(65, 0.5), 0.1 + 0.2 * np.log1p(SHOTS)
    four = prediction([flat, flat, flat, flat, risen])
    assert useful_shots(four, probability=0.75)["useful_shots"][0] == 1
    [row] = useful_shots(four, probability=0.9).to_dict("records")
    assert row["useful_shots"] == np.inf
    assert (row["last"], row["at_last"]) == (32, pytest.approx(0.8))


def test_what_to_measure_next_is_what_goes_with_the_target(rng):
    far, near = rng.standard_normal((2, 20_000, 1))
    mean = 0.5 + 0.05 * np.where(SHOTS >= 16, far, near)
    noise = 0.05 * rng.standard_normal(mean.shape)
    table = next_shots(prediction(mean, mean + noise), target=64).set_index("shots")
    assert table["reduction"].is_monotonic_decreasing
    # Half of what is measured at 16 shots or more is the target's own doubt, the rest is noise.
    np.testing.assert_allclose(table["reduction"][[16, 40, 64]], 0.5, atol=0.03)
    assert (table["reduction"][[0, 8, 15]] < 0.01).all()
    assert table["per_prompt"].idxmax() == 16
    np.testing.assert_allclose(table["per_prompt"][16], table["reduction"][16] / 17)


def test_bad_questions():
    whole = prediction(np.full((4, 65), 0.5))
    with pytest.raises(InputError, match="threshold must lie between 0 and 1, got 1"):
        shots_to(whole, 1.0)
    with pytest.raises(InputError, match="lie between 0 and 1, got 2"):
        useful_shots(whole, gain=2)
    with pytest.raises(InputError, match="predict at 1 shot and beyond 2"):
        useful_shots(whole.sel(shots=[0, 40, 64]))
    with pytest.raises(InputError, match="target 100 must be among the prediction's shots"):
        next_shots(whole, target=100)
