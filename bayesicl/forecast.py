"""Curves at unseen shots, with their uncertainty."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.checks import MAX_SHOTS
from bayesicl.curves import Study
from bayesicl.device import precision
from bayesicl.errors import InputError
from bayesicl.law import Design, Law
from bayesicl.program import arrays
from bayesicl.restore import engine_of, natural_values
from bayesicl.tree import believed, study_of

LEVELS = (0.5, 0.9)


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
        A Dataset over (chain, draw, hypothesis, shots). `mean`: the mean curve, a probability
        or a mean nll, with the law's misfit if the noise has it. `law`: the law's own part of it.
        `replicate`: a new measurement as large as the typical fitted one. `items`: the same on new
        test items, where replicates shared theirs. `belief`, with a last axis `believed`: what a
        Bayesian law says is believed before the query. The coordinate `within` (hypothesis, shots)
        tells what lies between the shortest and the longest fitted shots: all else extrapolates
        by the law. attrs["bands"]: JSON, what each band stands for. attrs["outcome"]: as of the
        study.

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
    with precision():
        design, data, ahead = _ahead(study, grid, int(tree.attrs["backgrounds"]))
        engine = engine_of(tree, law)
        key = jax.random.key(seed)
        out = engine.describe(key, natural_values(tree), design, data, seen=False)
    dims, shape = ("chain", "draw", "hypothesis", "shots"), np.shape(out["logp"])[:2]
    grid_of = lambda x: x[:, :, ahead].reshape(*shape, H, n, *x.shape[3:])  # noqa: E731
    mean, replicate = grid_of(out["mean"]), grid_of(out["y"])
    curves = {"mean": mean, "replicate": replicate, "law": np.exp(grid_of(out["logp"]))}
    if study.items == "shared":
        # Items are drawn once for a curve; p(1 - p)/items bounds what that adds.
        z = np.random.default_rng(seed).standard_normal((*shape, H, 1))
        items = replicate + z * np.sqrt(mean * (1 - mean) / data["total"][ahead[0]])
        curves["items"] = np.clip(items, 0.0, 1.0)
    result = xr.Dataset(
        {name: (dims, value) for name, value in curves.items()},
        coords={"hypothesis": list(study.hypotheses), "shots": grid},
        attrs={"bands": json.dumps(band_names(study)), "outcome": study.outcome},
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


def _ahead(
    study: Study, grid: np.ndarray, backgrounds: int
) -> tuple[Design, dict[str, np.ndarray], np.ndarray]:
    """Arrays of the fitted cells together with unmeasured ones at every shots of the grid.

    The third value tells where the unmeasured ones are, by curve and shots. They are as large as
    the fitted ones at the median, and one replicate.
    """
    fitted = study.cells[study.cells["fitted"]]
    middle = lambda name: float(np.nan_to_num(fitted[name].median(), nan=1.0))  # noqa: E731
    new = pd.DataFrame(
        {
            "hypothesis": np.repeat(np.arange(len(study.hypotheses)), len(grid)),
            "shots": np.tile(grid, len(study.hypotheses)),
            "y": 0.5,
            "total": np.round(middle("total")),
            "replicates": 1,
            "se": middle("se"),
            "fitted": False,
        }
    )
    both = pd.concat([fitted, new], ignore_index=True, join="inner")
    both = both.sort_values(["hypothesis", "shots"], kind="stable", ignore_index=True)
    # Rows tell of the noise's sizes, which are drawn already: cells alone are looked at.
    design, data = arrays(
        replace(study, cells=both, rows=study.rows.iloc[:0]), backgrounds=backgrounds
    )
    return design, data, np.flatnonzero(~both["fitted"])


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
    }.get(study.kind.removeprefix(study.scale.prefix), f"a new mean over {size:.0f} prompts")
    if np.isnan(size) and study.kind.endswith("aggregated"):
        replicate = "a new measurement of the same size"
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


def curve_shots(longest: int) -> np.ndarray:
    """Whole numbers from 0 to `longest` at which a curve looks smooth, on either scale of shots."""
    even, logs = np.linspace(0, longest, 80), np.expm1(np.linspace(0, np.log1p(longest), 80))
    return np.unique(np.round([*even, *logs]).astype(int))


def bands(prediction: xr.Dataset, *, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Median and central intervals: one row a hypothesis, shots and band.

    Columns: hypothesis, shots, within (the fitted shots; all else extrapolates), band (its name in
    `prediction`), median, and lower and upper of each level, such as "lower 90%"; and widened, by
    what factor, where an alarm has widened bands (`widen.widened`).
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
        if "widened" in prediction.coords:
            table["widened"] = prediction["widened"].to_series().to_numpy()
        tables.append(table)
    return pd.concat(tables, ignore_index=True).rename_axis(columns=None)
