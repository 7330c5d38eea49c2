"""Scores of forecasts: how well held-out cells were predicted, and whether intervals hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from bayesicl.curves import Study
from bayesicl.device import precision
from bayesicl.errors import InputError
from bayesicl.forecast import LEVELS
from bayesicl.law import Law
from bayesicl.program import arrays, study_key
from bayesicl.restore import engine_of, natural_values
from bayesicl.tree import label, law_label, owners, study_of

TOLERANCE = {0.5: 0.05, 0.8: 0.04, 0.9: 0.03, 0.95: 0.02}  # of coverage that counts as reached
MANY_CURVES = 30  # fewer are not independent enough: cells cluster by model
MIN_CLUSTERS = 5  # of which a standard error can be taken


class HeldOut(NamedTuple):
    """What a fit says of the cells that were held out, in the order of the study's cells.

    cells: one row a cell: study, model, hypothesis, shots, y, fitted (share of the shots),
    fitted_shots (the last fitted ones of its curve).
    measured: draws of each cell's mean, (draws, cells). curve: the same of the mean curve.
    log_score: log predictive density of y, (cells,); NaN where only draws are known.
    """

    cells: pd.DataFrame
    measured: np.ndarray
    curve: np.ndarray
    log_score: np.ndarray

    def among(self, cells: pd.Index) -> "HeldOut":
        """Of those that are among these cells alone."""
        own = self.cells.index.isin(cells)
        drawn = self.measured[:, own], self.curve[:, own]
        return HeldOut(self.cells[own], *drawn, self.log_score[own])


def held_out(tree: xr.DataTree, *, law: str | Path | Law | None = None, seed: int = 0) -> HeldOut:
    """Forecast each held-out cell's mean, on its own number of replicates and items.

    Replicates that were seen in the fitted cells are the same ones: what the fit learned of their
    common shift is used. Draws are cut to what means can be; the density of normal noise is not.

    Raises InputError where nothing was held out.
    """
    study = study_of(tree)
    cells = held_out_cells(study)
    held = cells.index.to_numpy()
    if not held.size:
        raise InputError(
            f"{label(tree)}: nothing was held out; fit with --fit-shots or --fit-points"
        )
    with precision():
        design, data = arrays(study, backgrounds=int(tree.attrs["backgrounds"]))
        engine = engine_of(tree, law)
        out = engine.describe(study_key(seed, study), natural_values(tree), design, data)
    of_held = lambda x: x.reshape(-1, x.shape[2])[:, held]  # noqa: E731
    measured, density = of_held(out["y"]), of_held(out["log_likelihood"])
    log_score = logsumexp(density, axis=0) - np.log(len(density))
    return HeldOut(cells, measured, of_held(out["mean"]), log_score)


def held_out_cells(study: Study) -> pd.DataFrame:
    """The held-out cells of a study under its own index: see `HeldOut`."""
    fitted = study.cells["fitted"]
    cells, last = study.cells[~fitted], study.cells[fitted].groupby("hypothesis")["shots"].max()
    return pd.DataFrame(
        {
            "study": study.label,
            "model": study.key.get("model", ""),
            "hypothesis": [study.hypotheses[h] for h in cells["hypothesis"]],
            "shots": cells["shots"],
            "y": cells["y"],
            "fitted": study.fraction,
            "fitted_shots": cells["hypothesis"].map(last),
        }
    )


def score_cells(
    tree: xr.DataTree, *, law: str | Path | Law | None = None, seed: int = 0
) -> pd.DataFrame:
    """Score a fit's forecasts of its held-out cells (see `held_out`).

    Columns: study, law, model, hypothesis, shots, y, median, pit (randomised), inside 50%, inside
    90%, width 50%, width 90%, crps, log_score (log predictive density; probability for counts),
    fitted (share of the shots), fitted_shots (the last fitted ones).

    Raises InputError where nothing was held out.
    """
    rng = own_rng(study_of(tree), seed)
    return scored(held_out(tree, law=law, seed=seed), law_label(tree), rng)


def own_rng(study: Study, seed: int) -> np.random.Generator:
    """A study's own random numbers, for randomised PIT: studies are independent."""
    return np.random.default_rng(np.asarray(jax.random.key_data(study_key(seed, study))))


def scored(found: HeldOut, law: str, rng: np.random.Generator) -> pd.DataFrame:
    """The table of `score_cells` for a forecast under a name of its own, such as a mixture's."""
    cells = found.cells.reset_index(drop=True)
    cells.insert(1, "law", law)
    scores = score_draws(cells.pop("y").to_numpy(), found.measured, found.log_score, rng=rng)
    return cells.join(scores).assign(fitted=cells.pop("fitted"))


def score_draws(
    y: np.ndarray,
    draws: np.ndarray,
    log_score: np.ndarray,
    *,
    rng: np.random.Generator,
    levels: Sequence[float] = LEVELS,
) -> pd.DataFrame:
    """Score draws (n, cells) of what was then measured as `y`, whoever made them.

    rng: of the randomised PIT. Columns: y, median, pit, inside and width of the central interval of
    each level, crps, log_score as given.
    """
    # Counts are compared as counts: a mean of ten items is never nearer than a tenth by rounding.
    below, same = (draws < y - 1e-9).mean(0), (np.abs(draws - y) <= 1e-9).mean(0)
    pit = below + same * rng.uniform(size=y.size)
    ends = {v: np.quantile(draws, [(1 - v) / 2, (1 + v) / 2], axis=0) for v in levels}
    return pd.DataFrame(
        {
            "y": y,
            "median": np.median(draws, axis=0),
            "pit": pit,
            **{f"inside {100 * v:g}%": np.abs(pit - 0.5) <= v / 2 for v in levels},
            **{f"width {100 * v:g}%": high - low for v, (low, high) in ends.items()},
            "crps": crps(draws, y),
            "log_score": log_score,
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

    coverage: share of held-out cells inside the intervals of each level; se: its standard error,
    which counts curves as independent, not cells, and models below 30 curves (see `clusters`);
    verdict: "reached" where coverage lies within 2 se of the level and within TOLERANCE of it, .05
    (50 %) or .03 (90 %), "not decided" where the se is too wide to tell. width: of the intervals,
    mean over cells. crps, mae (of the median): in probability, or nats of mean nll. nrmse:
    root mean square error of the median over the mean of y, averaged over curves (those with a
    mean of 0 left out). log_score: mean over the cells that have one, in nats (of
    forecasts that an alarm widened, that of before). fitted: share of
    the shots that was fitted, averaged over cells.
    """
    levels = [float(c[7:-1]) / 100 for c in map(str, cells) if c.startswith("inside ")]
    rows = []
    pairs = list(zip(cells["study"], cells["law"], strict=True))
    for law, own in owners(pairs).items():
        group = cells[[pair in own for pair in pairs]]
        curves = [curve for _, curve in group.groupby(_curve(group))]
        independent = [cluster for _, cluster in group.groupby(clusters(group))]
        error = group["median"] - group["y"]
        row = {"law": law, "curves": len(curves), "cells": len(group)}
        for level in levels:
            name = f"{100 * level:g}%"
            inside = f"inside {name}"
            se = _clustered_se([c[inside].to_numpy() for c in independent], level)
            row[f"coverage {name}"] = group[inside].mean()
            row[f"se {name}"] = se
            row[f"verdict {name}"] = _reached(group[inside].mean(), se, level)
        for level in levels:
            row[f"width {100 * level:g}%"] = group[f"width {100 * level:g}%"].mean()
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


def _curve(cells: pd.DataFrame) -> list[str]:
    return [name for name in ("source", "study", "hypothesis") if name in cells]


def clusters(cells: pd.DataFrame) -> pd.Series:
    """Name what each cell stands or falls with: its curve, or its model below 30 curves.

    A column `source` tells cells from several tables apart: each has its own number of curves.
    """
    curve = cells[_curve(cells)].agg("\n".join, axis=1)
    source = cells["source"] if "source" in cells else pd.Series("", cells.index)
    many = curve.groupby(source).transform("nunique") >= MANY_CURVES
    return curve.where(many, source + "\n" + cells["model"])


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
