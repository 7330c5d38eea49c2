"""Scores of forecasts: how well held-out cells were predicted, and whether intervals hold."""

from pathlib import Path

import jax
import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from bayesicl.device import precision
from bayesicl.errors import InputError
from bayesicl.forecast import LEVELS
from bayesicl.law import Law
from bayesicl.program import arrays, study_key
from bayesicl.restore import engine_of, natural_values
from bayesicl.tree import label, law_label, owners, study_of

TOLERANCE = {0.5: 0.05, 0.9: 0.03}  # of coverage that counts as reached
MANY_CURVES = 30  # fewer are not independent enough: cells cluster by model
MIN_CLUSTERS = 5  # of which a standard error can be taken


def score_cells(
    tree: xr.DataTree, *, law: str | Path | Law | None = None, seed: int = 0
) -> pd.DataFrame:
    """Score each held-out cell's mean, on its own number of replicates and items.

    Replicates that were seen in the fitted cells are the same ones: what the fit learned of their
    common shift is used. Columns: study, law, model, hypothesis, shots, y, median, pit
    (randomised), inside 50%, inside 90%, crps, log_score (log predictive density; probability for
    counts), fitted (share of the shots). Draws are clipped to [0, 1]; the density of normal noise
    is not.

    Raises InputError where nothing was held out.
    """
    study = study_of(tree)
    held = np.flatnonzero(~study.cells["fitted"])
    if not held.size:
        raise InputError(
            f"{label(tree)}: nothing was held out; fit with --fit-shots or --fit-points"
        )
    with precision():
        design, data = arrays(study, backgrounds=int(tree.attrs["backgrounds"]))
        engine = engine_of(tree, law)
        key = study_key(seed, study)
        out = engine.describe(key, natural_values(tree), design, data)
    draws = out["y"].reshape(-1, out["y"].shape[2])[:, held]
    density = out["log_likelihood"].reshape(draws.shape[0], -1)[:, held]
    cells = study.cells.iloc[held]
    y = cells["y"].to_numpy()
    # Counts are compared as counts: a mean of ten items is never nearer than a tenth by rounding.
    below, same = (draws < y - 1e-9).mean(0), (np.abs(draws - y) <= 1e-9).mean(0)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    pit = below + same * rng.uniform(size=y.size)
    return pd.DataFrame(
        {
            "study": label(tree),
            "law": law_label(tree),
            "model": study.key.get("model", ""),
            "hypothesis": [study.hypotheses[h] for h in cells["hypothesis"]],
            "shots": cells["shots"].to_numpy(),
            "y": y,
            "median": np.median(draws, axis=0),
            "pit": pit,
            **{f"inside {100 * v:g}%": np.abs(pit - 0.5) <= v / 2 for v in LEVELS},
            "crps": crps(draws, y),
            "log_score": logsumexp(density, axis=0) - np.log(draws.shape[0]),
            "fitted": study.fraction,
        }
    )


def crps(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score: E|X - y| - E|X - X'| / 2, from draws (n, cells).

    Gneiting & Raftery 2007, "Strictly proper scoring rules"; in the unit of y, smaller is better.
    """
    n = draws.shape[0]
    ordered = np.sort(draws, axis=0)
    weight = (2 * np.arange(1, n + 1) - n - 1)[:, None]
    spread = np.sum(weight * ordered, axis=0) / (n * (n - 1))
    return np.abs(draws - y).mean(axis=0) - spread


def score(cells: pd.DataFrame) -> pd.DataFrame:
    """Sum up scored cells (from one or many fits): one row a law.

    coverage: share of held-out cells inside the 50 % and 90 % intervals; se: its standard error,
    which counts curves as independent, not cells, and models below 30 curves; verdict: "reached"
    where coverage lies within 2 se of the level and within .05 (50 %) or .03 (90 %) of it, "not
    decided" where the se is too wide to tell. crps, mae (of the median): in probability. nrmse:
    root mean square error of the median over the mean of y, averaged over curves (those with a
    mean of 0 left out). log_score: mean over cells, in nats. fitted: share of the shots that was
    fitted, averaged over cells.
    """
    rows = []
    pairs = list(zip(cells["study"], cells["law"], strict=True))
    for law, own in owners(pairs).items():
        group = cells[[pair in own for pair in pairs]]
        curves = [curve for _, curve in group.groupby(["study", "hypothesis"])]
        by = ["study", "hypothesis"] if len(curves) >= MANY_CURVES else "model"
        clusters = [cluster for _, cluster in group.groupby(by)]
        error = group["median"] - group["y"]
        row = {"law": law, "curves": len(curves), "cells": len(group)}
        for level in LEVELS:
            name = f"{100 * level:g}%"
            inside = f"inside {name}"
            se = _clustered_se([c[inside].to_numpy() for c in clusters], level)
            row[f"coverage {name}"] = group[inside].mean()
            row[f"se {name}"] = se
            row[f"verdict {name}"] = _reached(group[inside].mean(), se, level)
        means = [(c["median"] - c["y"], c["y"].mean()) for c in curves]
        nrmse = [np.sqrt((e**2).mean()) / mean for e, mean in means if mean > 0]
        rows.append(
            row
            | {
                "crps": group["crps"].mean(),
                "log_score": group["log_score"].mean(),
                "nrmse": float(np.mean(nrmse)) if nrmse else float("nan"),
                "mae": float(error.abs().mean()),
                "fitted": group["fitted"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _clustered_se(clusters: list[np.ndarray], level: float) -> float:
    """Standard error of a share of cells whose clusters are independent; NaN of too few.

    Never below that of independent cells at the nominal level: all inside is no certainty.
    """
    n, g = sum(c.size for c in clusters), len(clusters)
    if g < MIN_CLUSTERS:
        return float("nan")
    mean = sum(c.sum() for c in clusters) / n
    sums = np.array([np.sum(c - mean) for c in clusters])
    return float(max(np.sqrt(g / (g - 1) * np.sum(sums**2)) / n, np.sqrt(level * (1 - level) / n)))


def _reached(coverage: float, se: float, level: float) -> str:
    """Whether an interval keeps its promise, where the standard error lets one tell."""
    miss, near = abs(coverage - level), TOLERANCE[level]
    if miss > 2 * se:
        return "not reached"
    return "reached" if miss <= near and se <= near else "not decided"
