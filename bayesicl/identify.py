"""What the data moved, and what they left to the prior: number by number."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import logit

from bayesicl.importance import MAX_K, psis

MIN_CONTRACTION = 0.5
MAX_PRIOR_SHIFT = 0.5
MAX_WIDTH = 0.5  # of the 90 % interval of a probability: wider ones locate nothing
_NAMED = ("hypothesis", "believed", "background")  # axes whose labels say whose a number is
FIRST = ("p_zero", "p_last", "nll_zero", "nll_last", "ceiling", "rate")


class Element(NamedTuple):
    """One number of a parameter: its name (with the indices of axes that have no names), and whose.

    hypothesis, believed: labels, "" where the parameter has no such axis.
    """

    parameter: str
    hypothesis: str
    believed: str

    def __str__(self) -> str:
        """As text: the parameter, and hypotheses in brackets."""
        inside = ", ".join(v for v in (self.hypothesis, self.believed) if v)
        return f"{self.parameter}[{inside}]" if inside else self.parameter


def elements(x: xr.DataArray) -> dict[Element, xr.DataArray]:
    """The numbers of a parameter, each an array over what draws it has: (chain, draw) or ()."""
    axes = [d for d in x.dims if d not in ("chain", "draw")]
    labels = {d: x[d].to_numpy() for d in axes if d in x.coords}
    rest = [d for d in x.dims if d not in axes]
    values = x.variable.transpose(*axes, *rest).to_numpy()  # indexing xarray's takes far longer
    out = {}
    for index in np.ndindex(values.shape[: len(axes)]):
        at = dict(zip(axes, index, strict=True))
        own = {d: str(labels[d][i]) for d, i in at.items() if d in labels}
        believed = own.pop("believed", own.pop("background", ""))
        more = "".join(f" [{own.get(d, i)}]" for d, i in at.items() if d not in _NAMED)
        element = Element(f"{x.name}{more}", own.get("hypothesis", ""), believed)
        out[element] = xr.DataArray(values[index], dims=rest)
    return out


def identified(tree: xr.DataTree, names: Sequence[str]) -> dict[Element, bool]:
    """Of each number of these parameters, whether the data identify it, as `summarise` says."""
    return {element: bool(row["identified"]) for element, row in judged(tree, names).items()}


def judged(tree: xr.DataTree, names: Sequence[str]) -> dict[Element, dict[str, Any]]:
    """How far the data moved each number of these parameters, and whether they identify it."""
    stronger = _stronger_prior(tree)
    of_curve = {*json.loads(tree.attrs["law_parameters"]), *FIRST}
    after, before = tree["posterior"].to_dataset(), tree["prior"].to_dataset()
    out = {}
    for name in names:
        priors = elements(before[name])
        for element, draws in elements(after[name]).items():
            x, prior = draws.to_numpy().ravel(), priors[element].to_numpy().ravel()
            moved = _moved(x, prior, stronger)
            wide = name in of_curve and _wide(x, prior)
            out[element] = moved | {"identified": moved["identified"] and not wide}
    return out


def ordered(tree: xr.DataTree) -> list[str]:
    """Names of what a fit reports: what data see, then the law's parameters, then the noise's."""
    own = json.loads(tree.attrs["law_parameters"])
    names = [str(name) for name in tree["posterior"].data_vars]
    tied = {"P"} if "gamma" in names else set()  # says nothing that gamma and beta do not
    first = [n for n in FIRST if n in names]
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


class _Stronger(NamedTuple):
    """Weights (draws,) of the posterior in which the prior is raised to `power`."""

    power: float
    weights: np.ndarray


def _moved(x: np.ndarray, prior: np.ndarray, stronger: _Stronger | None) -> dict[str, Any]:
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
    log_prior = sum(x.to_numpy() for x in tree["log_prior"].data_vars.values())
    log_prior = np.asarray(log_prior).ravel()
    for power in (2.0, 1.5, 1.25, 1.1):
        log_weights, k = psis((power - 1) * log_prior)
        weights = np.exp(log_weights - log_weights.max())
        if k <= MAX_K:
            return _Stronger(power, weights / weights.sum())
    return None
