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

from bayesicl.device import precision
from bayesicl.importance import MAX_K, psis
from bayesicl.law import Law
from bayesicl.program import arrays
from bayesicl.restore import engine_of, natural_values
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
    law: str | Path | Law | None = None,
) -> pd.DataFrame:
    """How far the mean curve at each shots moves when prior, or likelihood, are raised to a power.

    trees, predictions: a fit and its prediction, or those of a mixture with the weights of its
    laws, over which figures are averaged. law: where to find a user's law that has moved since the
    fit. One row a hypothesis and shots: hypothesis, shots, prior,
    likelihood (power-scaling sensitivities by arviz_stats.psense, no unit), pareto_k (the largest
    of the weights, over prior, likelihood and laws; no unit), diagnosis: UNKNOWN where that is
    above MAX_K, "" where the prior matters little, else WEAK (the prior moves it, the data do not)
    or BOTH (they may disagree, or the data are few).

    Source: Kallioinen, Paananen, Buerkner & Vehtari (2024), "Detecting and diagnosing prior and
    likelihood sensitivity with power-scaling", Statistics and Computing 34.
    """
    found = [
        _of_one(tree, prediction, law) for tree, prediction in zip(trees, predictions, strict=True)
    ]
    parts = [share * moved for (moved, _), share in zip(found, weights, strict=True)]
    table = sum(parts[1:], parts[0]).to_dataframe().reset_index()
    table = table[["hypothesis", "shots", "prior", "likelihood"]]
    table["pareto_k"] = max(k for _, k in found)
    table["diagnosis"] = ""
    strong = table["prior"] >= LIMIT
    table.loc[strong & (table["likelihood"] >= LIMIT), "diagnosis"] = BOTH
    table.loc[strong & ~(table["likelihood"] >= LIMIT), "diagnosis"] = WEAK
    table.loc[table["pareto_k"] > MAX_K, "diagnosis"] = UNKNOWN
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


def _of_one(
    tree: xr.DataTree, prediction: xr.Dataset, law: str | Path | Law | None
) -> tuple[xr.Dataset, float]:
    """Sensitivities of one fit, and the largest Pareto k of the weights behind them."""
    # Not the sum of the cells' log likelihoods: each is given the others, which may go together.
    joint = xr.Dataset({"study": (("chain", "draw"), joint_log_likelihood(tree, law))})
    data = xr.DataTree.from_dict(
        {
            "posterior": prediction[["mean"]],
            "log_prior": tree["log_prior"].to_dataset(),
            "log_likelihood": joint.assign_coords(prediction[["chain", "draw"]].coords),
        }
    )
    logs = {
        "prior": data["log_prior"].to_dataset().to_dataarray().sum("variable"),
        "likelihood": joint["study"],
    }
    found, ks = {}, []
    for group, log in logs.items():
        ks.append(max(psis((power - 1) * log.to_numpy().ravel())[1] for power in POWERS))
        if not np.isfinite(ks[-1]):  # flat: nothing moves; or chains that stood still
            moved = 0.0 if ks[-1] < 0 else np.nan
            found[group] = xr.full_like(
                prediction["mean"][0, 0].drop_vars(["chain", "draw"]), moved
            )
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pareto k: it is in the table
            moved = psense(data, group=group, alphas=POWERS)
        found[group] = moved.get("posterior", moved)["mean"]  # under a group or not, by the version
    return xr.Dataset(found), max(ks)
