"""Are ranks uniform? Simultaneous bands for the ECDF of N discrete ranks.

At every rank the ECDF of N uniform ranks is binomial; the least of these two-sided tail
probabilities is compared with its distribution over simulated sets of N uniform ranks
(Saeilynoja, Buerkner & Vehtari 2022, "Graphical test for discrete uniformity and its applications
in goodness-of-fit evaluation and multiple sample comparison", Statistics and Computing 32:32).
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy import stats

RANKED = 99  # draws a truth is ranked among: 100 ranks, so that 5..94 is exactly 90 %
POWER = 0.9  # of the sets in which a fault must show to be said to be found


def p_value(ranks: np.ndarray, *, size: int = RANKED + 1) -> float:
    """Share of sets of as many uniform ranks whose ECDF strays at least as far as this one's.

    ranks: (N,) in 0 ... size - 1. Below .01: outside of the simultaneous 99 % band.

    Example:
        >>> import numpy as np
        >>> from bayesicl.uniformity import p_value
        >>> p_value(np.arange(100)) > 0.99, p_value(np.zeros(100)) < 0.001
        (True, True)
    """
    simulated = _uniform_tails(len(ranks), size)
    own = least_tail(np.bincount(np.asarray(ranks, int), minlength=size))
    return float(
        (np.searchsorted(simulated, own * (1 + 1e-9), side="right") + 1) / (simulated.size + 1)
    )


def band(n: int, *, level: float = 0.99, size: int = RANKED + 1) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the simultaneous band for the ECDF at ranks 0 ... size - 2.

    Example:
        >>> from bayesicl.uniformity import band
        >>> low, high = band(200)
        >>> bool(low[49] < 0.5 < high[49])
        True
    """
    inside = _tails(n, size) >= np.quantile(_uniform_tails(n, size), 1 - level)
    k = np.arange(n + 1)
    return np.where(inside, k, n).min(axis=1) / n, np.where(inside, k, 0).max(axis=1) / n


def least_shift(n: int, *, level: float = 0.99) -> float:
    """The least shift of a posterior, in its own sd, that n ranks would betray 9 times in 10.

    Infinite where none of up to 4 sd would. Of normal posteriors.

    Example:
        >>> from bayesicl.uniformity import least_shift
        >>> least_shift(1000) < least_shift(100)
        True
    """
    shifts = np.arange(0.05, 4.0, 0.05)
    return _least(shifts, lambda z, shift: z + shift, n, level)


def least_narrowness(n: int, *, level: float = 0.99) -> float:
    """By how much of its right sd a posterior must be too narrow for n ranks to betray it.

    As `least_shift`; 0.2 means an sd that is 20 % too small.
    """
    return _least(np.arange(0.05, 1.0, 0.05), lambda z, less: z * (1 - less), n, level)


def _least(faults: np.ndarray, bent: Callable, n: int, level: float) -> float:
    """The first of some faults that leaves the band often enough.

    bent(z, fault): where the draws' quantile of a normal z lies among truths.
    """
    rng, edges = np.random.default_rng(0), stats.norm.ppf(np.arange(RANKED + 2) / (RANKED + 1))
    worst = np.quantile(_uniform_tails(n, RANKED + 1), 1 - level)
    for fault in faults:
        share = np.diff(stats.norm.cdf(bent(edges, fault)))
        found = least_tail(rng.multinomial(n, share / share.sum(), 500)) < worst
        if found.mean() >= POWER:
            return float(fault)
    return np.inf


def least_tail(counts: np.ndarray) -> np.ndarray:
    """Least two-sided binomial tail of the ECDF over all ranks; counts: (..., ranks)."""
    n, size = int(counts.reshape(-1, counts.shape[-1])[0].sum()), counts.shape[-1]
    below = np.cumsum(counts, axis=-1)[..., :-1]
    return _tails(n, size)[np.arange(size - 1), below].min(axis=-1)


@cache
def _tails(n: int, size: int) -> np.ndarray:
    z = (np.arange(1, size) / size)[:, None]
    k = np.arange(n + 1)
    return np.minimum(1.0, 2 * np.minimum(stats.binom.cdf(k, n, z), stats.binom.sf(k - 1, n, z)))


@cache
def _uniform_tails(n: int, size: int, sets: int = 50_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [rng.multinomial(n, np.full(size, 1 / size), 5_000) for _ in range(sets // 5_000)]
    return np.sort(np.concatenate([least_tail(part) for part in parts]))
