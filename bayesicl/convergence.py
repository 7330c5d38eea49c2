"""R-hat and effective sample sizes of many parameters at once.

The figures are those of arviz_stats (rank-normalised split R-hat; bulk and tail ESS; Vehtari,
Gelman, Simpson, Carpenter & Buerkner 2021, "Rank-normalization, folding, and localization",
Bayesian Analysis 16), to rounding: the tests compare them. They are computed here because
arviz_stats takes the parameters one by one, which after a fast sampler is a third of a small fit.
"""

from typing import NamedTuple

import numpy as np
from numpy.fft import irfft, rfft
from scipy.fft import next_fast_len
from scipy.special import ndtri
from scipy.stats import rankdata

TAILS = (0.05, 0.95)


class Convergence(NamedTuple):
    """Of each parameter, (parameters,): R-hat, bulk and tail ESS in draws; NaN where undefined."""

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def convergence(draws: np.ndarray) -> Convergence:
    """R-hat and effective sample sizes of draws, (chains, draws, parameters), 2 x 4 or more.

    A parameter with a NaN among its draws has NaN for all three.

    >>> x = np.random.default_rng(0).normal(size=(4, 1000, 2))
    >>> bool((convergence(x).rhat < 1.01).all())
    True
    """
    x = np.moveaxis(np.asarray(draws, float), -1, 0)
    lost = np.asarray(np.isnan(x).any((1, 2)))
    x = np.where(lost[:, None, None], 0.0, x)
    halves = _split(x)
    bulk = _normal_scores(halves)
    middle = np.median(halves, axis=(1, 2), keepdims=True)
    spread = _normal_scores(abs(halves - middle))
    tails = np.quantile(x, TAILS, axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # a chain that never moved
        worst = np.maximum(_rhat(bulk), _rhat(spread))
        sizes = _ess(np.concatenate([bulk, *(_split(x <= q).astype(float) for q in tails)]))
    ess_bulk, low, high = np.split(sizes, 3)
    found = worst, ess_bulk, np.minimum(low, high)
    return Convergence(*(np.where(lost, np.nan, values) for values in found))


def _split(x: np.ndarray) -> np.ndarray:
    """Each chain as two: (parameters, 2 chains, draws // 2)."""
    half = x.shape[2] // 2
    return np.concatenate([x[:, :, :half], x[:, :, -half:]], axis=1)


def _normal_scores(x: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks of each parameter's draws (Blom 1958)."""
    flat = x.reshape(len(x), -1)
    return ndtri((rankdata(flat, axis=1) - 0.375) / (flat.shape[1] + 0.25)).reshape(x.shape)


def _rhat(x: np.ndarray) -> np.ndarray:
    n = x.shape[2]
    within = x.var(axis=2, ddof=1).mean(axis=1)
    between = n * x.mean(axis=2).var(axis=1, ddof=1)
    return np.sqrt((between / within + n - 1) / n)


def _ess(x: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean of each row, by Geyer's initial monotone sequence."""
    _, chains, n = x.shape
    centred = x - x.mean(axis=2, keepdims=True)
    size = next_fast_len(2 * n)
    power = np.abs(rfft(centred, size, axis=2)) ** 2
    covariance = irfft(power.mean(axis=1), size, axis=1)[:, :n] / n  # of all chains of a row
    within = covariance[:, :1] * n / (n - 1.0)
    total = within * (n - 1.0) / n + x.mean(axis=2).var(axis=1, ddof=1)[:, None]
    rho = 1.0 - (within - covariance) / total
    rho[:, 0] = 1.0
    still = np.ptp(x, axis=(1, 2)) < np.finfo(float).resolution
    return np.array(
        [
            chains * n if constant else chains * n / max(_tau(row), 1 / np.log10(chains * n))
            for row, constant in zip(rho, still, strict=True)
        ]
    )


def _tau(rho: np.ndarray) -> float:
    """Integrated autocorrelation time of one row; rho: (lags,)."""
    even, odd = float(rho[0]), float(rho[1])
    if np.isnan(odd):
        return np.nan
    kept, t = [even, odd], 1
    while t < len(rho) - 3 and even + odd > 0.0:  # the initial positive sequence
        even, odd = float(rho[t + 1]), float(rho[t + 2])
        kept += [even, odd] if even + odd >= 0 else [0.0, 0.0]
        t += 2
    last = t - 2
    if even > 0:
        kept[last + 1] = even
    for t in range(1, last - 1, 2):  # the initial monotone sequence
        before = kept[t - 1] + kept[t]
        if kept[t + 1] + kept[t + 2] > before:
            kept[t + 1] = kept[t + 2] = before / 2.0
    return -1.0 + 2.0 * sum(kept[: last + 1]) + sum(kept[last + 1 : last + 2])
