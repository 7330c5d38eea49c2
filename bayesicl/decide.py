"""Decisions from a prediction: shots to a threshold, useful shots, and what to measure next.

All of them look at draws of the curve on the shots of the prediction: give `predict` a fine grid
(`curve_shots`). Only what the grid reaches is spoken of.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.errors import InputError
from bayesicl.scale import Scale, scale_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def reach(prediction: xr.Dataset, threshold: float) -> pd.DataFrame:
    """Probability that the mean curve has reached `threshold` by each number of shots.

    A probability reaches it from below, a mean nll from above. That is P(n* <= shots), where n*,
    the shots to the threshold, is 0 if p(0) is there already:
    the share of curves that lie there at these shots, or the share at fewer where that is larger
    (for a curve that may fall). A path that only grazes the threshold between is not counted.
    Columns: hypothesis, shots, within (as in `bands`), probability. A probability that stays below
    1 is the mass of later, or never; it is not a number of shots.
    """
    table = _reached(prediction, threshold).to_series().rename("probability").reset_index()
    table.insert(2, "within", prediction["within"].to_series().to_numpy())
    return table


def shots_to(
    prediction: xr.Dataset, threshold: float, *, quantiles: Sequence[float] = QUANTILES
) -> pd.DataFrame:
    """Quantiles of n*, the shots to the threshold: one row a hypothesis.

    Columns: hypothesis, threshold, one for each quantile such as "n* 50%": the least shots of the
    grid by which so large a share of the curves has reached the threshold, infinite where that is
    never on the grid; and not_by_<shots>: the share that has not reached it on the grid at all.
    """
    shots = prediction["shots"].to_numpy()
    by = _reached(prediction, threshold)
    rows = []
    for name, share in zip(by["hypothesis"].to_numpy(), by.to_numpy(), strict=True):
        row = {"hypothesis": name, "threshold": threshold}
        for q in quantiles:
            there = np.flatnonzero(share >= q)
            row[f"n* {100 * q:g}%"] = float(shots[there[0]]) if there.size else np.inf
        rows.append(row | {f"not_by_{shots[-1]}": 1.0 - share[-1]})
    return pd.DataFrame(rows)


def _reached(prediction: xr.Dataset, threshold: float) -> xr.DataArray:
    scale = scale_of(prediction.attrs["outcome"])
    check_between("--threshold", threshold, scale)
    there = scale.better * (prediction["mean"] - threshold) >= 0
    there = there.mean(("chain", "draw"))
    there = there.transpose("hypothesis", "shots")
    return there.copy(data=np.maximum.accumulate(there.to_numpy(), axis=1))


def check_between(option: str, value: float, scale: Scale) -> None:
    """Raise InputError where a value does not lie between 0 and the top of a scale."""
    if not 0 < value < scale.top:
        most = f"lie between 0 and {scale.top:g}" if scale.top < np.inf else "be above 0 nats"
        raise InputError(f"{option} must {most}, got {value:g}")


def useful_shots(
    prediction: xr.Dataset, *, gain: float = 0.01, probability: float = 0.9
) -> pd.DataFrame:
    """The largest useful number of demonstrations: beyond it, doubling gains too little.

    From which shots on is the gain of doubling them, p(2 n) - p(n) or nll(n) - nll(2 n), below
    `gain` with at least `probability`, there and at all larger shots whose double the grid holds?
    One row a hypothesis: hypothesis, useful_shots (infinite where it is more than `last`), gain,
    probability, last (the largest shots whose double is on the grid), at_last (how probable it is
    that doubling `last` gains less than `gain`: where useful_shots is infinite, it tells a curve
    that still rises from one that is nearly there). The curve between the grid's shots is
    interpolated over log(1 + shots), and is the law's own: its misfit goes up and down and is
    nobody's gain.
    """
    scale = scale_of(prediction.attrs["outcome"])
    check_between("--gain", gain, scale)
    if not 0 < probability < 1:
        raise InputError(f"probability must lie between 0 and 1, got {probability}")
    shots = prediction["shots"].to_numpy()
    n = shots[(shots >= 1) & (2 * shots <= shots[-1])]
    if not n.size:
        raise InputError(f"predict at 1 shot and beyond 2 to judge doubling, not up to {shots[-1]}")
    at = np.log1p(shots)
    mean = prediction["law"].transpose("hypothesis", "chain", "draw", "shots")
    rows = []
    for name, p in zip(mean["hypothesis"].to_numpy(), mean.to_numpy(), strict=True):
        p = p.reshape(-1, shots.size)
        ahead = np.stack([np.interp(np.log1p(2 * n), at, path) for path in p])
        gained = scale.better * (ahead - p[:, np.isin(shots, n)])
        small = (gained < gain).mean(axis=0)
        stays = np.logical_and.accumulate((small >= probability)[::-1])[::-1]
        found = float(n[np.argmax(stays)]) if stays.any() else np.inf
        row = {"hypothesis": name, "useful_shots": found, "gain": gain, "probability": probability}
        rows.append(row | {"last": int(n[-1]), "at_last": float(small[-1])})
    return pd.DataFrame(rows)


def next_shots(prediction: xr.Dataset, target: int) -> pd.DataFrame:
    """Which shots to measure next, to know the mean curve at `target` best.

    For each shots of the prediction: by what share one more measurement there, of the typical size,
    is expected to lower the variance of p(target), by linear regression over the draws; exact where
    all is normal. Columns: hypothesis, shots, within, reduction (in [0, 1]), per_prompt (reduction
    over shots + 1: what it gains for each example that is sent, the query counted). Best first.
    """
    if target not in prediction["shots"]:
        raise InputError(f"target {target} must be among the prediction's shots")
    dims = ("chain", "draw")
    goal = prediction["mean"].sel(shots=target)
    r = xr.corr(prediction["replicate"], goal, dim=dims).fillna(0.0)
    table = (r**2).transpose("hypothesis", "shots").to_series().rename("reduction").reset_index()
    table.insert(2, "within", prediction["within"].to_series().to_numpy())
    table["per_prompt"] = table["reduction"] / (table["shots"] + 1)
    return table.sort_values(
        ["hypothesis", "reduction"], ascending=[True, False], ignore_index=True
    )
