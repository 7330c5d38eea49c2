"""What a fit says about each parameter, and what the data left to the prior."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats import ess, rhat
from arviz_stats.base import array_stats
from scipy.special import logit
from scipy.stats import norm

from bayesicl.tree import label, law_label, study_of

MIN_CONTRACTION = 0.5
MAX_PRIOR_SHIFT = 0.5
MISSED = 0.01  # of any false alarm about a cell that the law misses, in one study
MAX_WIDTH = 0.5  # of the 90 % interval of a probability: wider ones locate nothing

MEANING = {
    "pi": "belief before the first demonstration, probability",
    "P": "probability of an example, by who generates it and who scores it",
    "gamma": "probability of an example under its own hypothesis",
    "beta": "probability of an example under another hypothesis",
    "K": "evidence of one demonstration, in examples",
    "rate": "evidence of one demonstration, nats",
    "ceiling": "probability with endless demonstrations",
    "p_zero": "probability at 0 shots",
    "p_last": "probability at the longest fitted shots",
    "alpha": "exponent of the power, no unit",
    "C": "how far -log p lies above its limit before the law's fall, nats",
    "A": "how far -log p lies above its limit before the law's fall, nats",
    "L": "-log p with endless demonstrations, nats",
    "n_0": "demonstrations and query at which half of A is gone",
    "n_c": "demonstrations before the fall begins",
    "k": "steepness, no unit",
    "scatter": "extra sd of a share, in units of sqrt(p(1 - p))",
    "dispersion": "variance at 10 shots, in units of binomial variance",
    "dispersion_slope": "of log dispersion, per unit of log(1 + shots)",
    "replicate_sd": "sd common to a replicate, in units of sqrt(p(1 - p))",
    "c": "variance of one prompt, in units of p(1 - p)",
}
_IDENTIFIED_FIRST = ("p_zero", "p_last", "ceiling", "rate")


@dataclass(frozen=True)
class Summary:
    """One fit, summed up. table: one row a parameter. text: the same for people, in words.

    Columns: parameter, meaning, hypothesis, believed, median, lower, upper, contraction (1 minus
    posterior over prior variance, unconstrained scale), prior_shift (posterior sds by which the
    median moves when the prior counts twice), identified, rhat, ess_bulk, ess_tail.
    """

    table: pd.DataFrame
    text: str


def summarise(tree: xr.DataTree, *, level: float = 0.9) -> Summary:
    """Medians and equal-tailed intervals of all that a fit reports, and what left its prior.

    A parameter is called not identified where the data took away less than half of its prior
    variance, where its 90 % interval, if it is a probability, is wider than one half, or where its
    median follows the prior (Kallioinen et al. 2023, "Detecting and
    diagnosing prior and likelihood sensitivity with power-scaling", arXiv 2107.14054).

    level: of the intervals, in (0, 1).
    """
    table = _table(tree, level)
    return Summary(table, _text(tree, table, level))


def _table(tree: xr.DataTree, level: float) -> pd.DataFrame:
    posterior, prior = tree["posterior"].to_dataset(), tree["prior"].to_dataset()
    stronger = _stronger_prior(tree)
    diagnostics = [rhat(posterior), ess(posterior, method="bulk")]
    diagnostics.append(ess(posterior, method="tail", prob=(0.05, 0.95)))
    curve = {*json.loads(tree.attrs["law_parameters"]), *_IDENTIFIED_FIRST}
    rows = []
    for name in ordered(tree):
        draws, before = posterior[name], prior[name]
        inner = [d for d in draws.dims if d not in ("chain", "draw")]
        for index in np.ndindex(*[draws.sizes[d] for d in inner]):
            at = dict(zip(inner, index, strict=True))
            x, prior_x = draws.isel(at).to_numpy().ravel(), before.isel(at).to_numpy().ravel()
            moved = _moved(x, prior_x, stronger)
            wide = name in curve and _wide(x, prior_x)
            rows.append(
                whose(name, draws, at)
                | _interval(x, level)
                | moved
                | {"identified": moved["identified"] and not wide}
                | {
                    key: float(d[name].isel(at))
                    for key, d in zip(("rhat", "ess_bulk", "ess_tail"), diagnostics, strict=True)
                }
            )
    return pd.DataFrame(rows)


def missed(tree: xr.DataTree) -> pd.DataFrame:
    """Fitted cells that the fit says should not have come out so: one row each.

    Columns: hypothesis, shots, measured, lower, upper (of the 99 % interval of such a measurement).
    A cell counts that lies further from the predictive mean, in its sds, than one study in a
    hundred would have of any cell.
    """
    study = study_of(tree)
    draws = tree["posterior_predictive"]["y"]
    cells = study.cells.iloc[draws["cell"].to_numpy()]
    draws = draws.to_numpy().reshape(-1, len(cells))
    y, z = cells["y"].to_numpy(), norm.isf(MISSED / 2 / max(len(cells), 1))
    lower, upper = np.quantile(draws, [0.005, 0.995], axis=0)
    far = (np.abs(y - draws.mean(0)) > z * draws.std(0)) & ((y < lower) | (y > upper))
    table = {
        "hypothesis": [study.hypotheses[h] for h in cells["hypothesis"]],
        "shots": cells["shots"].to_numpy(),
        "measured": y,
        "lower": lower,
        "upper": upper,
    }
    return pd.DataFrame(table)[far].reset_index(drop=True)


def ordered(tree: xr.DataTree) -> list[str]:
    """Names of what a fit reports: what data see, then the law's parameters, then the noise's."""
    own = json.loads(tree.attrs["law_parameters"])
    names = [str(name) for name in tree["posterior"].data_vars]
    tied = {"P"} if "gamma" in names else set()  # says nothing that gamma and beta do not
    first = [n for n in _IDENTIFIED_FIRST if n in names]
    law = [n for n in own if n not in first and n not in tied]
    return first + law + [n for n in names if n not in (*first, *law, *tied)]


def unconstrained(x: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """log-odds of what lives in (0, 1), log of what is positive: told by the prior's draws."""
    tiny = np.finfo(float).tiny
    if _within_unit(prior):
        return logit(np.clip(x, 1e-300, 1 - 1e-16))
    return np.log(np.maximum(x, tiny)) if prior.min() >= 0 else x


def _within_unit(prior: np.ndarray) -> bool:
    return bool(prior.min() >= 0 and prior.max() <= 1)


def identified(tree: xr.DataTree) -> dict[tuple[str, str, str], bool]:
    """Of each element in a fit's summary, by parameter, hypothesis and believed."""
    rows = _table(tree, 0.9).to_dict("records")
    return {(r["parameter"], r["hypothesis"], r["believed"]): r["identified"] for r in rows}


def whose(name: str, draws: xr.DataArray, at: Mapping[Any, int]) -> dict[str, str]:
    """What the element of a parameter at these indices is called in a summary's table."""
    where = {d: str(draws[d].to_numpy()[i]) for d, i in at.items() if d in draws.coords}
    believed = where.get("believed", "background" if "background" in at else "")
    return {
        "parameter": name,
        "meaning": MEANING.get(name, ""),
        "hypothesis": where.get("hypothesis", ""),
        "believed": believed,
    }


def _interval(x: np.ndarray, level: float) -> dict[str, float]:
    lower, median, upper = np.quantile(x, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return {"median": median, "lower": lower, "upper": upper}


def _moved(x: np.ndarray, prior: np.ndarray, stronger: "_Stronger | None") -> dict[str, Any]:
    """How far the data moved a parameter from its prior."""
    u, before = unconstrained(x, prior), unconstrained(prior, prior)
    sd = u.std()
    contraction = 1.0 - sd**2 / before.var() if before.var() > 0 else 0.0
    shift = float("nan") if stronger is None else 0.0
    if stronger is not None and sd > 0:
        order = np.argsort(u)
        again = u[order][np.searchsorted(np.cumsum(stronger.weights[order]), 0.5)]
        shift = abs(again - np.median(u)) / sd / np.log2(stronger.power)
    return {
        "contraction": contraction,
        "prior_shift": shift,
        "identified": bool(contraction >= MIN_CONTRACTION and shift <= MAX_PRIOR_SHIFT),
    }


class _Stronger(NamedTuple):
    """Weights (draws,) of the posterior in which the prior is raised to `power`."""

    power: float
    weights: np.ndarray


def _wide(x: np.ndarray, prior: np.ndarray) -> bool:
    """A probability of which little is known but that it is not small, or not large.

    So it is with the ceiling of an unfinished curve: the last cell cuts off what lies below.
    """
    lower, upper = np.quantile(x, [0.05, 0.95])
    return _within_unit(prior) and bool(upper - lower > MAX_WIDTH)


def _stronger_prior(tree: xr.DataTree) -> _Stronger | None:
    """The prior doubled, or as near to it as importance weights can be trusted (Pareto k <= 0.7).

    Shifts at a smaller power are scaled up to a doubling: medians move about linearly in its log.
    None where no power can be trusted.
    """
    log_prior = np.asarray(sum(v for v in tree["log_prior"].data_vars.values())).ravel()
    for power in (2.0, 1.5, 1.25, 1.1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # PSIS expects log likelihoods of left-out data, hence the sign.
            log_weights, k = array_stats.psislw(-(power - 1) * log_prior, r_eff=1)
        weights = np.exp(log_weights - log_weights.max())
        if k <= 0.7:
            return _Stronger(power, weights / weights.sum())
    return None


def _text(tree: xr.DataTree, table: pd.DataFrame, level: float) -> str:
    lines = [f"{label(tree)}, law {law_label(tree)}, noise {tree.attrs['noise']}"]
    cells = study_of(tree).cells
    fitted = cells[cells["fitted"]]
    lines.append(
        f"fitted to {len(fitted)} of {len(cells)} cells, "
        f"{fitted['shots'].min():g} to {fitted['shots'].max():g} shots"
    )
    if not tree.attrs["passed"]:
        failures = json.loads(tree.attrs["diagnostics"])["failures"]
        lines.append(f"NOT CONVERGED, do not rely on it: {'; '.join(failures)}")
    for remark in json.loads(tree.attrs["warnings"]):
        lines.append(f"warning: {remark}")
    wrong = missed(tree)
    if len(wrong):
        middle = (wrong["lower"] + wrong["upper"]) / 2
        cell = wrong.to_dict("records")[int(np.argmax(np.abs(wrong["measured"] - middle)))]
        lines.append(
            f"warning: the law misses {len(wrong)} of {len(fitted)} cells; at {cell['shots']:g} "
            f"shots it expects {cell['lower']:.3g} to {cell['upper']:.3g} and "
            f"{cell['measured']:.3g} was measured. Intervals below trust the law."
        )
    names = [element(row["parameter"], row) for row in table.to_dict("records")]
    width = max(map(len, names))
    starts = _first_shots(tree)
    lines.append(f"{'':{width}}   median   {100 * level:g}% interval       moved")
    for name, row in zip(names, table.to_dict("records"), strict=True):
        word = "" if row["identified"] else f"  not identified: {_why(row)}"
        if row["parameter"] == "p_zero" and starts.get(row["hypothesis"]):
            word += f"  extrapolated: measured from {starts[row['hypothesis']]:g} shots on"
        span = f"[{row['lower']:.3g}, {row['upper']:.3g}]"
        lines.append(
            f"{name:{width}} {row['median']:8.3g}   {span:20} "
            f"{max(row['contraction'], 0):5.0%}{word}"
        )
    lines.append(
        '"moved": share of the prior variance that the data took away (log or log-odds scale).'
    )
    lost = [n for n, ok in zip(names, table["identified"], strict=True) if not ok]
    if lost:
        lines.append(
            f"These data do not identify {', '.join(lost)}: report none of them as a finding."
        )
    return "\n".join(lines)


def _first_shots(tree: xr.DataTree) -> dict[str, float]:
    """Shots at which the fitted part of each hypothesis's curve begins."""
    study = study_of(tree)
    fitted = study.cells[study.cells["fitted"]].groupby("hypothesis")["shots"].min()
    return {study.hypotheses[int(h)]: float(n) for h, n in fitted.items()}  # pyright: ignore


def _why(row: dict) -> str:
    if row["contraction"] < MIN_CONTRACTION:
        return "largely the prior"
    if row["prior_shift"] <= MAX_PRIOR_SHIFT:
        return "anywhere in a wide interval"
    if np.isnan(row["prior_shift"]):
        return "how it follows the prior cannot be told"
    return "its median moves with the prior"


def element(name: str, row: dict) -> str:
    """One element of a parameter in a row of a table: its name, and hypotheses in brackets."""
    inside = ", ".join(v for v in (row["hypothesis"], row["believed"]) if v)
    return f"{name}[{inside}]" if inside else name
