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

    def seconds(self, curves: list[int]) -> np.ndarray:
        """Of these curves."""
        return np.array([self.times["seconds"][i - 1] for i in curves])


def read(folder: Path, settings: problem.Settings) -> Result:
    """All that a side's worker left."""
    times = json.loads((folder / "times.json").read_text())
    checks, leapfrogs, estimates = {}, {}, {}
    for i in range(1, len(times["seconds"]) + 1):
        with np.load(folder / f"{i}.npz") as found:
            draws = {name: (("chain", "draw"), found[name]) for name in found}
        posterior = xr.Dataset({name: draws[name] for name in problem.NAMES})
        sampling = xr.Dataset({n: x for n, x in draws.items() if n not in problem.NAMES})
        chains, kept = posterior["pi"].shape
        assert chains == settings.chains, f"{folder.name}: {chains} chains"
        assert kept >= settings.draws, f"{folder.name}: {kept} draws"  # more after a retry
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


def speed(result: Result, base: Result | None) -> dict[str, float]:
    """Seconds and effective draws a second, and how many times faster `base` is.

    Ratios are over the curves of both; "passed": over those that passed their gates, in ratios on
    both sides. With build: over all curves of a side, its build is shared out among them.
    """
    every = list(result.checks)
    seconds = result.seconds(every)
    passed = [i for i in every if result.checks[i].passed]
    found = {
        "curves": len(every),
        "build s": result.build,
        "s/curve": float(np.median(seconds)),
        "total s": float(result.build + seconds.sum()),
        "bulk ESS/s": _median_rate(result, every),
        "tail ESS/s": _median_rate(result, every, "ess_tail"),
        "bulk ESS/s, passed": _median_rate(result, passed),
        "bulk ESS/s with build": _rate_with_build(result, every),
    }
    if base is not None:
        both = [i for i in every if i in base.checks]
        good = [i for i in passed if i in base.checks and base.checks[i].passed]
        for title, rate, curves in (
            ("x faster", _median_rate, both),
            ("x faster, passed", _median_rate, good),
            ("x with build", _rate_with_build, both),
        ):
            found[title] = rate(base, curves) / rate(result, curves) if curves else math.nan
    return found


def quality(result: Result) -> dict[str, float]:
    """Gates, ESS of the worst parameter (medians over curves) and work."""
    passed = sum(checks.passed for checks in result.checks.values())
    total = result.build + result.seconds(list(result.checks)).sum()
    return {
        "passed": passed / len(result.checks),
        "s a passed curve, with build": total / passed if passed else math.nan,
        "bulk ESS": float(np.median([c.ess_bulk for c in result.checks.values()])),
        "tail ESS": float(np.median([c.ess_tail for c in result.checks.values()])),
        "leapfrogs a draw": float(np.mean(list(result.leapfrogs.values()))),
    }


def _ess(result: Result, curves: list[int], which: str = "ess_bulk") -> np.ndarray:
    return np.array([getattr(result.checks[i], which) for i in curves])


def _median_rate(result: Result, curves: list[int], which: str = "ess_bulk") -> float:
    if not curves:
        return math.nan
    return float(np.median(_ess(result, curves, which) / result.seconds(curves)))


def _rate_with_build(result: Result, curves: list[int]) -> float:
    build = result.build * len(curves) / len(result.checks)
    return float(_ess(result, curves).sum() / (build + result.seconds(curves).sum()))
