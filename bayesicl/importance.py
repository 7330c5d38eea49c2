"""Importance weights of draws, Pareto-smoothed, and whether they can be relied on."""

import warnings

import numpy as np
from arviz_stats.base import array_stats

MAX_K = 0.7  # of Vehtari et al. (2024), beyond which weights are not to be relied on


def psis(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Smoothed log weights (draws,), and their Pareto k.

    k is infinite where the tail alone is one value, as where a chain stood still, and minus that
    where all weights are the same. Source: Vehtari, Simpson, Gelman, Yao & Gabry (2024), "Pareto
    smoothed importance sampling", JMLR 25.

    >>> psis(np.zeros(1000))[1], psis(np.repeat([0.0, 1.0], 500))[1]
    (-inf, inf)
    """
    if np.ptp(log_weights) == 0:
        return log_weights, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a large k, which is told
        try:  # psislw takes minus the logarithm
            smoothed, k = array_stats.psislw(-log_weights, r_eff=1)
        except ValueError:
            return log_weights, np.inf
    return smoothed, float(k)
