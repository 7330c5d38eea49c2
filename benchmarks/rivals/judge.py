"""What came out of each side: gates, effective draws, and whether sides agree."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats import mcse
from scipy import stats

from bayesicl.diagnose import Checks, diagnose
from rivals import problem

SAME = 1e-4  # nats: log densities that differ by no more (beyond a constant) are the same


class Result(NamedTuple):
    """Of one side. curves: by number, from 1. times: as the worker wrote them."""

    times: dict
    checks: dict[int, Checks]
    leapfrogs: dict[int, float]
    estimates: dict[int, pd.DataFrame]

    @property
    def build(self) -> float:
        """Seconds from the import of the library to the first draws, less those of a curve."""
        return max(0.0, self.times["first"] - float(np.median(self.times["seconds"])))

    def seconds(self, i: int) -> float:
        """Of curve i."""
        return self.times["seconds"][i - 1]


def read(folder: Path, settings: problem.Settings) -> Result:
    """All that a side's worker left."""
    times = json.loads((folder / "times.json").read_text())
    checks, leapfrogs, estimates = {}, {}, {}
    for i in range(1, len(times["seconds"]) + 1):
        with np.load(folder / f"{i}.npz") as found:
            draws = {name: (("chain", "draw"), found[name]) for name in found}
        posterior = xr.Dataset({name: draws[name] for name in problem.NAMES})
        sampling = xr.Dataset({name: draws[name] for name in problem.STATS})
        shape = (settings.chains, settings.draws)
        assert posterior["pi"].shape == shape, f"{folder.name}: not {shape} draws"
        checks[i] = diagnose(posterior, sampling)
        leapfrogs[i] = float(sampling["n_steps"].mean())
        estimates[i] = _estimates(posterior)
    return Result(times, checks, leapfrogs, estimates)


def _estimates(posterior: xr.Dataset) -> pd.DataFrame:
    """Means and 5 and 95 % quantiles with Monte Carlo errors, a row each.

    The mean is of log K: that of K itself hangs on a few draws, by its log-normal prior.
    """
    wanted = {"mean": {"method": "mean"}}
    wanted |= {f"q{q}": {"method": "quantile", "prob": q / 100} for q in (5, 95)}
    rows = []
    for name, x in posterior.items():
        for what, how in wanted.items():
            y = np.log(x.to_numpy()) if name == "K" and what == "mean" else x.to_numpy()
            value = y.mean() if what == "mean" else np.quantile(y, how["prob"])
            error = float(mcse(y, **how))
            rows.append({"parameter": name, "what": what, "value": value, "error": error})
    return pd.DataFrame(rows)


def disagreement(a: Result, b: Result) -> dict:
    """Standardised differences over the curves that passed on both sides."""
    parts = []
    for i in sorted(set(a.checks) & set(b.checks)):
        if a.checks[i].passed and b.checks[i].passed:
            x, y = a.estimates[i], b.estimates[i]
            z = (x["value"] - y["value"]) / np.hypot(x["error"], y["error"])
            parts.append(x[["parameter", "what"]].assign(z=z.abs(), curve=i))
    if not parts:
        return {"compared": 0}
    table = pd.concat(parts, ignore_index=True)
    worst = table.loc[table["z"].idxmax()]
    limit = float(stats.norm.isf(0.005 / len(table)))  # 1 in 100 sets of as many would exceed it
    return {
        "compared": len(table),
        "curves": len(parts),
        "largest": float(worst["z"]),
        "where": f"{worst['what']} of {worst['parameter']}, curve {worst['curve']}",
        "limit": limit,
        "typical": float(np.sqrt((table["z"] ** 2).mean())),
        "agrees": bool(worst["z"] <= limit),
    }


def same_density(result: Result, settings: problem.Settings) -> float | None:
    """Largest difference from the oracle's log density, up to a constant a curve, in nats."""
    found = result.times.get("log_density") or []
    if not found or found[0] is None:
        return None
    points = problem.points(len(found[0]), settings.seed)
    curves = problem.simulate(len(found), settings.seed)
    spread = 0.0
    for curve, values in zip(curves[1:], found, strict=True):
        gap = np.array(values) - [problem.log_density(curve, u) for u in points]
        spread = max(spread, float(np.max(np.abs(gap - np.median(gap)))))
    return spread if math.isfinite(spread) else math.inf


def row(result: Result) -> dict[str, float]:
    """One side's figures. ESS is of the worst parameter."""
    numbers = list(result.checks)
    seconds = np.array([result.seconds(i) for i in numbers])
    bulk = np.array([result.checks[i].ess_bulk for i in numbers])
    tail = np.array([result.checks[i].ess_tail for i in numbers])
    passed = np.array([result.checks[i].passed for i in numbers])
    total = result.build + seconds.sum()
    return {
        "curves": len(numbers),
        "build s": result.build,
        "s/curve": float(np.median(seconds)),
        "total s": float(total),
        "bulk ESS": float(np.median(bulk)),
        "tail ESS": float(np.median(tail)),
        "bulk ESS/s": float(np.median(bulk / seconds)),
        "tail ESS/s": float(np.median(tail / seconds)),
        "bulk ESS/s passed": float(np.median((bulk / seconds)[passed])) if passed.any() else 0.0,
        "bulk ESS/s with build": float(bulk.sum() / total),
        "passed": float(passed.mean()),
        "s a passed curve": float(total / passed.sum()) if passed.any() else math.inf,
        "leapfrogs": float(np.mean([result.leapfrogs[i] for i in numbers])),
    }
