"""Whether a posterior may be trusted: the gates that every study must pass."""

import warnings
from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats

from bayesicl.convergence import convergence

MAX_RHAT = 1.01
MIN_ESS = 400
MIN_BFMI = 0.3


@dataclass(frozen=True)
class Checks:
    """Worst values over the parameters and chains of one fit, and what failed, in words.

    rhat: rank-normalised. ess_bulk, ess_tail: draws. divergences, depth_hits: counts. bfmi: the
    smallest over chains. failures: empty where all gates are passed.
    """

    rhat: float
    ess_bulk: float
    ess_tail: float
    divergences: int
    bfmi: float
    depth_hits: int
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """All gates are passed."""
        return not self.failures


def diagnose(posterior: xr.Dataset, stats: xr.Dataset, *, max_tree_depth: int = 10) -> Checks:
    """Apply the gates to the posterior and sample_stats of a fit, both (chain, draw, ...).

    R-hat < 1.01, bulk and tail ESS >= 400, no divergence, BFMI >= 0.3, no tree-depth hit
    (Vehtari et al. 2021, "Rank-normalization, folding, and localization"; Betancourt 2016).
    """
    draws = np.concatenate([_flat(x) for x in posterior.data_vars.values()], axis=2)
    # An element that is constant by construction has no R-hat; one that is NaN fails every gate.
    found = convergence(draws[:, :, draws.std((0, 1)) != 0])
    with warnings.catch_warnings():  # a chain that never moved: its figures are NaN, and fail
        warnings.simplefilter("ignore", RuntimeWarning)
        bfmi = array_stats.bfmi(stats["energy"].transpose("chain", "draw").to_numpy())
    values = {
        "rhat": float(np.max(found.rhat)),
        "ess_bulk": float(np.min(found.ess_bulk)),
        "ess_tail": float(np.min(found.ess_tail)),
        "divergences": int(stats["diverging"].sum()),
        "bfmi": float(np.min(bfmi)),
        "depth_hits": int((_depth(stats) >= max_tree_depth).sum()),
    }
    failures = []
    if not values["rhat"] < MAX_RHAT:
        failures.append(f"R-hat {values['rhat']:.3f}, must be below {MAX_RHAT}")
    for name, words in (("ess_bulk", "bulk ESS"), ("ess_tail", "tail ESS")):
        if not values[name] >= MIN_ESS:
            failures.append(f"{words} {values[name]:.0f}, must be at least {MIN_ESS}")
    if values["divergences"]:
        failures.append(f"{values['divergences']} divergent transitions, must be 0")
    if not values["bfmi"] >= MIN_BFMI:
        failures.append(f"BFMI {values['bfmi']:.2f}, must be at least {MIN_BFMI}")
    if values["depth_hits"]:
        failures.append(f"{values['depth_hits']} transitions hit the tree-depth limit, must be 0")
    return Checks(**values, failures=tuple(failures))


def _depth(stats: xr.Dataset) -> xr.DataArray:
    """Doublings of every trajectory; where the sampler tells only leapfrogs, one a step."""
    if "tree_depth" in stats:
        return stats["tree_depth"]
    return xr.apply_ufunc(np.log2, stats["n_steps"] + 1)


def _flat(x: xr.DataArray) -> np.ndarray:
    """All numbers of a parameter on one axis: (chains, draws, numbers)."""
    values = x.transpose("chain", "draw", ...).to_numpy()
    return values.reshape(*values.shape[:2], -1)
