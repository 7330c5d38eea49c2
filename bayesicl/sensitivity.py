"""How much a forecast hangs on the prior: power-scaling of prior and likelihood."""

import warnings
from collections.abc import Sequence

import pandas as pd
import xarray as xr
from arviz_stats import psense

LIMIT = 0.05  # of Kallioinen et al. (2024), beyond which power-scaling matters
WEAK = "strong prior or weak data"
CONFLICT = "prior-data conflict"


def sensitivity(
    trees: Sequence[xr.DataTree],
    predictions: Sequence[xr.Dataset],
    weights: Sequence[float] = (1.0,),
) -> pd.DataFrame:
    """How far the mean curve at each shots moves when prior, or likelihood, are raised to a power.

    trees, predictions: a fit and its prediction, or those of a mixture with the weights of its
    laws, over which figures are averaged. One row a hypothesis and shots: hypothesis, shots, prior,
    likelihood (power-scaling sensitivities by arviz_stats.psense, no unit), diagnosis: "" where the
    prior matters little, else WEAK (the prior moves it, the data do not) or CONFLICT (both do).

    Source: Kallioinen, Paananen, Buerkner & Vehtari (2024), "Detecting and diagnosing prior and
    likelihood sensitivity with power-scaling", Statistics and Computing 34.
    """
    found = {}
    for group in ("prior", "likelihood"):
        parts = [
            share * _of_one(tree, prediction, group)
            for tree, prediction, share in zip(trees, predictions, weights, strict=True)
        ]
        found[group] = sum(parts[1:], parts[0]).to_series()
    table = pd.DataFrame(found).reset_index()
    table["diagnosis"] = ""
    strong = table["prior"] >= LIMIT
    table.loc[strong & (table["likelihood"] >= LIMIT), "diagnosis"] = CONFLICT
    table.loc[strong & ~(table["likelihood"] >= LIMIT), "diagnosis"] = WEAK
    return table


def _of_one(tree: xr.DataTree, prediction: xr.Dataset, group: str) -> xr.DataArray:
    data = xr.DataTree.from_dict(
        {
            "posterior": prediction[["mean"]],
            "log_prior": tree["log_prior"].to_dataset(),
            "log_likelihood": tree["log_likelihood"].to_dataset(),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pareto k: powers are as near 1 as .99
        found = psense(data, group=group)
    return found.get("posterior", found)["mean"]  # under a group or not, by the version
