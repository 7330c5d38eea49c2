"""The posterior that all sides sample, and curves simulated from its priors.

The scoring-wise law of one hypothesis and one background with beta-binomial counts:

    pi ~ Dirichlet(1/2, 1/2), gamma ~ Uniform(0, 1), beta/gamma ~ Beta(1/2, 1),
    K ~ LogNormal(-1, 2), scatter ~ Beta(1, 9),
    p(n) = beta + (gamma - beta) sigmoid(logit pi + K n log(gamma/beta)),
    correct(n) ~ BetaBinomial(total(n), p c, (1 - p) c), c = 1/max(scatter, 1e-3)^2 - 1,

where p and 1 - p are at least EPS, which only keeps logarithms finite. Points u of the
unconstrained space are (logit pi, logit gamma, logit beta/gamma, log K, logit scatter).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit, log_expit

NAMES = ("pi", "gamma", "beta", "K", "scatter")
STATS = ("diverging", "n_steps", "energy")
SHOTS = np.arange(100)
EPS = np.finfo(float).eps
LEAST_SCATTER = 1e-3


class Curve(NamedTuple):
    """Counts: shots, correct, total, (100,) int each."""

    shots: np.ndarray
    correct: np.ndarray
    total: np.ndarray


class Settings(NamedTuple):
    """How to sample. target_accept and dense (mass matrix) are for the rivals alone."""

    chains: int = 4
    warmup: int = 500
    draws: int = 1000
    target_accept: float = 0.95
    dense: bool = False
    seed: int = 0


class Draws(NamedTuple):
    """values: by parameter. stats: STATS, and tree_depth of some. All (chains, draws)."""

    values: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]


def simulate(n: int, seed: int) -> list[Curve]:
    """A curve that rises and ends, for building and compiling, then n curves from the priors."""
    rng = np.random.default_rng([seed, 0])
    curves = [_counts(rng, 0.1, 0.8, 0.2, 0.3, 0.05)]
    for i in range(1, n + 1):
        rng = np.random.default_rng([seed, i])
        pi, gamma, K = rng.beta(0.5, 0.5), rng.uniform(), rng.lognormal(-1.0, 2.0)
        curves.append(_counts(rng, pi, gamma, gamma * rng.beta(0.5, 1.0), K, rng.beta(1.0, 9.0)))
    return curves


def _counts(rng: np.random.Generator, pi, gamma, beta, K, scatter) -> Curve:
    p, q = mean(pi, gamma, beta, K, SHOTS)
    c = 1.0 / max(scatter, LEAST_SCATTER) ** 2 - 1.0
    total = rng.integers(40, 61, len(SHOTS))
    return Curve(SHOTS, rng.binomial(total, rng.beta(p * c, q * c)), total)


def mean(pi, gamma, beta, K, shots) -> tuple[np.ndarray, np.ndarray]:
    """P and 1 - p, each at least EPS."""
    w = np.log(pi) - np.log1p(-pi) + K * shots * np.log(gamma / beta)
    p = gamma * expit(w) + beta * expit(-w)
    q = (1.0 - gamma) * expit(w) + (1.0 - beta) * expit(-w)
    return np.clip(p, EPS, 1.0), np.clip(q, EPS, 1.0)


def points(n: int, seed: int) -> np.ndarray:
    """Points of the unconstrained space, from where posteriors lie: (n, 5)."""
    return np.random.default_rng(seed).normal((0, 0, 0, -1, -3), 1.5, (n, len(NAMES)))


def log_density(curve: Curve, u: np.ndarray) -> float:
    """Log posterior density at one point, up to a constant, by SciPy: the oracle of all sides."""
    pi, gamma, ratio, scatter = expit(u[[0, 1, 2, 4]])
    prior = (
        stats.beta(0.5, 0.5).logpdf(pi)
        + stats.beta(0.5, 1.0).logpdf(ratio)
        + stats.norm(-1.0, 2.0).logpdf(u[3])  # of log K
        + stats.beta(1.0, 9.0).logpdf(scatter)
    )
    jacobian = sum(log_expit(x) + log_expit(-x) for x in u[[0, 1, 2, 4]])
    p, q = mean(pi, gamma, gamma * ratio, np.exp(u[3]), curve.shots)
    c = 1.0 / max(scatter, LEAST_SCATTER) ** 2 - 1.0
    likelihood = stats.betabinom(curve.total, p * c, q * c).logpmf(curve.correct).sum()
    return float(prior + jacobian + likelihood)
