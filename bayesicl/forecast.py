"""Curves at unseen shots with their uncertainty, and scores of what was held out."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from bayesicl.curves import Study
from bayesicl.engine import Engine, Settings, precision
from bayesicl.errors import InputError
from bayesicl.law import Design, Law
from bayesicl.noise import NOISES
from bayesicl.program import arrays, padded_size, study_key
from bayesicl.tree import believed, label, law_label, law_of, owners, study_of

LEVELS = (0.5, 0.9)
TOLERANCE = {0.5: 0.05, 0.9: 0.03}  # of coverage that counts as reached
MANY_CURVES = 30  # fewer are not independent enough: cells cluster by model
MIN_CLUSTERS = 5  # of which a standard error can be taken
MAX_SHOTS = 10_000_000


def predict(
    tree: xr.DataTree,
    shots: Sequence[int] | None = None,
    *,
    law: str | Path | Law | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The posterior's curves at any shots, from a fit alone.

    Args:
        tree: a fit, fresh or from a file.
        shots: whole numbers >= 0; None for those measured.
        law: where to find a user's law that has moved since the fit.
        seed: of the noise of new measurements.

    Returns:
        A Dataset over (chain, draw, hypothesis, shots). `mean`: the mean curve, a probability.
        `replicate`: a new measurement as large as the typical fitted one. `items`: the same on new
        test items, where replicates shared theirs. `belief`, with a last axis `believed`: what a
        Bayesian law says is believed before the query. The coordinate `within` (hypothesis, shots)
        tells what lies between the shortest and the longest fitted shots: all else extrapolates
        by the law. attrs["bands"]: JSON, what each band stands for.

    Example:
        >>> import pandas as pd
        >>> from bayesicl import Settings, fit, predict, read_curves
        >>> correct = [2, 5, 7, 8, 8]
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4, 8], "correct": correct, "total": 10})
        >>> [tree] = fit(read_curves(table), "power", settings=Settings(warmup=100, draws=100))
        >>> curve = predict(tree, [0, 16, 32])
        >>> dict(curve["mean"].sizes)
        {'chain': 4, 'draw': 100, 'hypothesis': 1, 'shots': 3}
    """
    study = study_of(tree)
    grid = np.unique(study.cells["shots"]) if shots is None else _checked(shots)
    H, n = len(study.hypotheses), len(grid)
    if n == 0:
        raise InputError("no shots to predict at: give at least one number")
    design = Design(
        shots=np.resize(np.repeat(grid.astype(float)[None], H, 0).ravel(), padded_size(H * n)),
        hypothesis=np.resize(np.repeat(np.arange(H), n), padded_size(H * n)),
        n_hypotheses=H,
        backgrounds=int(tree.attrs["backgrounds"]),
    )
    with precision():
        _, data = arrays(study, backgrounds=design.backgrounds)
        data = {k: v for k, v in data.items() if k not in _CELLWISE} | _typical(study, design)
        engine = engine_of(tree, law)
        key = jax.random.key(seed)
        out = engine.describe(key, natural_values(tree), design, data, seen=False)
    dims, shape = ("chain", "draw", "hypothesis", "shots"), np.shape(out["logp"])[:2]
    grid_of = lambda x: x[:, :, : H * n].reshape(*shape, H, n, *x.shape[3:])  # noqa: E731
    mean, replicate = np.exp(grid_of(out["logp"])), grid_of(out["y"])
    curves = {"mean": mean, "replicate": replicate}
    if study.items == "shared":
        # Items are drawn once for a curve; p(1 - p)/items bounds what that adds.
        z = np.random.default_rng(seed).standard_normal((*shape, H, 1))
        items = replicate + z * np.sqrt(mean * (1 - mean) / data["total"][0])
        curves["items"] = np.clip(items, 0.0, 1.0)
    result = xr.Dataset(
        {name: (dims, value) for name, value in curves.items()},
        coords={"hypothesis": list(study.hypotheses), "shots": grid},
        attrs={"bands": json.dumps(band_names(study))},
    ).assign_coords(chain=np.arange(shape[0]), draw=np.arange(shape[1]))
    fitted = study.cells[study.cells["fitted"]].groupby("hypothesis")["shots"]
    first, last = fitted.min().to_numpy()[:, None], fitted.max().to_numpy()[:, None]
    within = (grid >= first) & (grid <= last)
    result = result.assign_coords(within=(("hypothesis", "shots"), within))
    if "belief" in out["by_cell"]:
        names = believed(study.hypotheses, design.backgrounds)
        result["belief"] = ((*dims, "believed"), grid_of(out["by_cell"]["belief"]))
        result = result.assign_coords(believed=names)
    return result


_CELLWISE = ("y", "total", "replicates", "se", "fitted", "in_sight")


def _typical(study: Study, design: Design) -> dict[str, np.ndarray]:
    """Data of unmeasured cells: one replicate, as large as the fitted ones are at the median."""
    size = np.shape(design.shots)
    fitted = study.cells[study.cells["fitted"]]
    middle = lambda name: float(np.nan_to_num(fitted[name].median(), nan=1.0))  # noqa: E731
    return {
        "y": np.full(size, 0.5),
        "total": np.full(size, np.round(middle("total"))),
        "replicates": np.ones(size),
        "se": np.full(size, middle("se")),
        "fitted": np.zeros(size, bool),
        "in_sight": np.zeros(size, bool),
    }


def band_names(study: Study) -> dict[str, str]:
    """What the bands of a prediction stand for, in words."""
    fitted = study.cells[study.cells["fitted"]]
    size = fitted["total"].median()
    if study.kind == "replicated counts":
        replicate = "one new replicate"
        if study.items == "shared":
            return {
                "mean": "mean curve",
                "replicate": f"{replicate}, same {size:.0f} items",
                "items": f"{replicate}, {size:.0f} new items",
            }
        return {"mean": "mean curve", "replicate": f"{replicate}, {size:.0f} new items"}
    replicate = {
        "counts": f"one new run of {size:.0f} new items",
        "given se": f"a new measurement with se {fitted['se'].median():.2g}",
    }.get(study.kind, f"a new mean over {size:.0f} prompts")
    return {"mean": "mean curve", "replicate": replicate}


def _checked(shots: Sequence[int]) -> np.ndarray:
    try:
        grid = np.asarray(list(shots), dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"shots must be whole numbers, got {shots!r}") from error
    bad = grid[(grid < 0) | (grid != np.round(grid)) | ~(grid <= MAX_SHOTS)]
    if bad.size:
        raise InputError(
            f"shots must be whole numbers from 0 to {MAX_SHOTS}, got {bad.ravel()[0]:g}"
        )
    return np.unique(grid.astype(int))


def default_shots(tree: xr.DataTree, *, log: bool = False, n: int = 80) -> np.ndarray:
    """Whole numbers from 0 to the longest measured, evenly spaced (on log(1 + shots) if `log`)."""
    longest = int(study_of(tree).cells["shots"].max())
    if log:
        return np.unique(np.round(np.expm1(np.linspace(0, np.log1p(longest), n))).astype(int))
    return np.unique(np.round(np.linspace(0, longest, n)).astype(int))


def engine_of(tree: xr.DataTree, law: str | Path | Law | None = None) -> Engine:
    """An engine with the law, noise and settings of a fit."""
    settings = Settings(**json.loads(tree.attrs["settings"]))
    return Engine(law_of(tree, law), NOISES[tree.attrs["noise"]], settings)


def natural_values(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Draws of all sites of a fit, unreported building blocks included."""
    groups = [name for name in ("posterior", "internals") if name in tree.children]
    return {
        str(name): value.to_numpy()
        for group in groups
        for name, value in tree[group].data_vars.items()
    }


def bands(prediction: xr.Dataset, *, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Median and central intervals: one row a hypothesis, shots and band.

    Columns: hypothesis, shots, within (the fitted shots; all else extrapolates), band (its name in
    `prediction`), median, and lower and upper of each level, such as "lower 90%".
    """
    tails = {
        f"{end} {100 * level:g}%": (1 - level) / 2 if end == "lower" else (1 + level) / 2
        for level in sorted(levels)
        for end in ("lower", "upper")
    }
    quantiles = np.array([0.5, *tails.values()])
    tables = []
    for name in json.loads(prediction.attrs["bands"]):
        q = prediction[name].quantile(quantiles, dim=("chain", "draw"))
        q = q.assign_coords(quantile=["median", *tails])
        table = q.to_series().unstack("quantile")[["median", *tails]].reset_index()
        table.insert(2, "within", prediction["within"].to_series().to_numpy())
        table.insert(3, "band", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True).rename_axis(columns=None)


def reach(prediction: xr.Dataset, threshold: float) -> pd.DataFrame:
    """Probability that the mean curve has reached `threshold` by each number of shots.

    Columns: hypothesis, shots, within (as in `bands`), probability. A probability that stays below
    1 is the mass of later, or never; it is not a number of shots.
    """
    if not 0 < threshold < 1:
        raise InputError(f"--threshold must lie between 0 and 1, got {threshold}")
    share = (prediction["mean"] >= threshold).mean(("chain", "draw"))
    table = share.to_series().rename("probability").reset_index()
    table.insert(2, "within", prediction["within"].to_series().to_numpy())
    return table


# -- scores of what was held out ------------------------------------------------------------------


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
