"""How much a mean curve hangs on the prior: power-scaling of prior and likelihood.

Draws are not made again but weighted. Where a few of them have most of the weight (Pareto k), the
figures are not known.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats import psense
from numpyro import handlers
from scipy.special import logsumexp

from bayesicl.device import precision
from bayesicl.importance import MAX_K, psis
from bayesicl.law import Law
from bayesicl.program import arrays
from bayesicl.restore import engine_of, natural_values
from bayesicl.scale import scale_of
from bayesicl.tree import study_of

LIMIT = 0.05  # of Kallioinen et al. (2024), beyond which power-scaling matters
WEAK = "prior alone"  # "potential strong prior or weak likelihood", in the words of the source
BOTH = "prior and data"  # "potential prior-data conflict"
POWERS = (0.99, 1.01)
UNKNOWN = "not known: Pareto k above 0.7"


def sensitivity(
    trees: Sequence[xr.DataTree],
    predictions: Sequence[xr.Dataset],
    weights: Sequence[float] = (1.0,),
    *,
    shots: Sequence[int] | None = None,
    threshold: float | None = None,
    law: str | Path | Law | None = None,
) -> pd.DataFrame:
    """How far the mean curve at each shots moves when prior, or likelihood, are raised to a power.

    trees, predictions: a fit and its prediction, or those of a mixture with the weights of its
    laws, over which figures are averaged. shots: of the rows, among the predictions'; None for
    all. law: where to find a user's law that has moved since the fit.

    One row a hypothesis and shots: hypothesis, shots, prior, likelihood (power-scaling
    sensitivities by arviz_stats.psense, no unit), pareto_k (the largest of the weights, over prior,
    likelihood and laws; no unit), diagnosis: UNKNOWN where that is above MAX_K, "" where the prior
    matters little, else WEAK (the prior moves it, the data do not) or BOTH (they may disagree, or
    the data are few).

    threshold: adds reached_prior and reached_likelihood, by how much P(n* <= shots), of `reach`,
    would change if prior, or likelihood, were raised to the power 2, at the rate at which it does
    near 1 (in probability); NaN where pareto_k is above MAX_K.

    Source: Kallioinen, Paananen, Buerkner & Vehtari (2024), "Detecting and diagnosing prior and
    likelihood sensitivity with power-scaling", Statistics and Computing 34.
    """
    logs = [_log_densities(tree, law) for tree in trees]
    ks = [{group: _pareto_k(log) for group, log in of_one.items()} for of_one in logs]
    asked = predictions[0]["shots"].to_numpy() if shots is None else np.array(shots)
    parts = [
        share * _of_one(of_one, k, prediction.sel(shots=asked))
        for of_one, k, prediction, share in zip(logs, ks, predictions, weights, strict=True)
    ]
    whole = sum(parts[1:], parts[0])
    if threshold is not None:
        whole = whole.assign(_reached(logs, predictions, weights, threshold)).sel(shots=asked)
    table = whole.to_dataframe().reset_index()
    table = table[["hypothesis", "shots", *map(str, whole)]]
    table["pareto_k"] = max(k for of_one in ks for k in of_one.values())
    table["diagnosis"] = ""
    strong = table["prior"] >= LIMIT
    table.loc[strong & (table["likelihood"] >= LIMIT), "diagnosis"] = BOTH
    table.loc[strong & ~(table["likelihood"] >= LIMIT), "diagnosis"] = WEAK
    table.loc[table["pareto_k"] > MAX_K, "diagnosis"] = UNKNOWN
    if threshold is not None:
        table.loc[table["pareto_k"] > MAX_K, ["reached_prior", "reached_likelihood"]] = np.nan
    return table


def joint_log_likelihood(tree: xr.DataTree, law: str | Path | Law | None = None) -> np.ndarray:
    """Log likelihood of all fitted cells together, at every draw of a fit: (chain, draw)."""
    engine, study = engine_of(tree, law), study_of(tree)

    def one(design, data, values, key):
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=values):
            logp, sizes = engine.posterior.program(design, data)
        return engine.noise.log_density(logp, sizes, design, data)

    with precision():
        design, data = arrays(study, backgrounds=int(tree.attrs["backgrounds"]))
        sampled = engine.outline(design, data).shapes
        values = {name: x for name, x in natural_values(tree).items() if name in sampled}
        key = jax.random.key(0)  # unused
        return engine.over_draws("joint likelihood", one, values, design, data, key)


def _log_densities(tree: xr.DataTree, law: str | Path | Law | None) -> dict[str, xr.DataArray]:
    """Log prior and log likelihood of the draws of a fit: (chain, draw) each."""
    # Not the sum of the cells' log likelihoods: each is given the others, which may go together.
    prior = tree["log_prior"].to_dataset().to_dataarray().sum("variable")
    return {"prior": prior, "likelihood": prior.copy(data=joint_log_likelihood(tree, law))}


def _pareto_k(log: xr.DataArray) -> float:
    """The largest of the weights that raise a density to `POWERS`."""
    return max(psis((power - 1) * log.to_numpy().ravel())[1] for power in POWERS)


def _of_one(
    logs: dict[str, xr.DataArray], k: dict[str, float], prediction: xr.Dataset
) -> xr.Dataset:
    """Sensitivities of the mean curve of one fit."""
    coords = prediction[["chain", "draw"]].coords
    data = xr.DataTree.from_dict(
        {
            "posterior": prediction[["mean"]],
            "log_prior": logs["prior"].rename("prior").to_dataset().assign_coords(coords),
            "log_likelihood": logs["likelihood"].rename("study").to_dataset().assign_coords(coords),
        }
    )
    found = {}
    for group in logs:
        if not np.isfinite(k[group]):  # flat: nothing moves; or chains that stood still
            moved = 0.0 if k[group] < 0 else np.nan
            found[group] = xr.full_like(
                prediction["mean"][0, 0].drop_vars(["chain", "draw"]), moved
            )
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pareto k: it is in the table
            moved = psense(data, group=group, alphas=POWERS)
        found[group] = moved.get("posterior", moved)["mean"]  # under a group or not, by the version
    return xr.Dataset(found)


def _reached(
    logs: Sequence[dict[str, xr.DataArray]],
    predictions: Sequence[xr.Dataset],
    weights: Sequence[float],
    threshold: float,
) -> dict[str, xr.DataArray]:
    """By how much P(n* <= shots) of a mixture changes for a doubling of a density's power."""
    better = scale_of(predictions[0].attrs["outcome"]).better
    found = {}
    for group in ("prior", "likelihood"):
        by_power = []
        for power in POWERS:
            parts = []
            for of_one, prediction, share in zip(logs, predictions, weights, strict=True):
                log = (power - 1) * of_one[group].to_numpy().ravel()
                smoothed, _ = psis(log)
                smoothed = np.exp(smoothed - logsumexp(smoothed))
                there = better * (prediction["mean"] - threshold) >= 0
                there = there.transpose("hypothesis", "shots", "chain", "draw")
                parts.append(share * (there.to_numpy().reshape(*there.shape[:2], -1) @ smoothed))
            by_power.append(np.maximum.accumulate(sum(parts), axis=1))
        rate = (by_power[1] - by_power[0]) / np.log2(POWERS[1] / POWERS[0])
        axes = {name: predictions[0][name].to_numpy() for name in ("hypothesis", "shots")}
        found[f"reached_{group}"] = xr.DataArray(np.abs(rate), coords=axes, dims=list(axes))
    return found
