"""Importance weights of draws, Pareto-smoothed, and whether they can be relied on."""

import warnings

import numpy as np
from arviz_stats.base import array_stats

MAX_K = 0.7  # of Vehtari et al. (2024), beyond which weights are not to be relied on


def psis(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Smoothed log weights (draws,), and their Pareto k.

    k is infinite where so many weights are one value that a quarter of a tail may be (a chain stood
    still: such a tail has no shape), or one is no number, and minus that where all are the same.
    Source: Vehtari, Simpson, Gelman,
    Yao & Gabry (2024), "Pareto smoothed importance sampling", JMLR 25.

    >>> psis(np.zeros(1000))[1], psis(np.repeat([0.0, 1.0], 500))[1]
    (-inf, inf)
    """
    n = log_weights.size
    if np.isnan(log_weights).any():
        return log_weights, np.inf
    alike = np.unique(log_weights, return_counts=True)[1].max()
    if alike == n:
        return log_weights, -np.inf
    if alike > max(1.0, min(n / 5, 3 * n**0.5) / 4):
        return log_weights, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a large k, which is told
        smoothed, k = array_stats.psislw(-log_weights, r_eff=1)  # it takes minus the logarithm
    return smoothed, float(k) if np.isfinite(k) else np.inf
