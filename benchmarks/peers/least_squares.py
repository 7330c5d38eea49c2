"""The paper's laws by least squares, each curve alone, with intervals by residual bootstrap.

Squared errors of the probability (one of the losses of Arora et al.'s code; their others, on -log
p, are infinite where nothing was answered rightly), unweighted as theirs, from 40 starts, where
they have one; the best is finished by scipy.optimize.least_squares. Parameters are bounded. n =
shots for the Bayesian law and shots + 1 for the others, as in bayesicl.

Residual bootstrap (Efron & Tibshirani 1993, chapter 9; prediction intervals as in Stine 1985):
residuals, centred and scaled by sqrt(n / (n - parameters)), are drawn anew onto the fitted curve,
the law is fitted again, 200 times, and to each curve ahead one further residual is added, in [0,
1]. So the noise of new measurements is that of the residuals, misfit included, not binomial.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
from scipy.special import expit

from peers import Cells

STARTS = 40
REFITS = 200

Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Law(NamedTuple):
    """p(theta, shots): (..., parameters), (n,) -> (..., n). low, high: of theta."""

    p: Curve
    low: tuple[float, ...]
    high: tuple[float, ...]


def scoring(theta: np.ndarray, n: np.ndarray) -> np.ndarray:
    """theta: gamma, beta / gamma, logit pi, log(K log(gamma / beta)): one hypothesis."""
    gamma, share, start, log_rate = (theta[..., i, None] for i in range(4))
    return gamma * (share + (1.0 - share) * expit(start + np.exp(log_rate) * n))


def power(theta: np.ndarray, n: np.ndarray) -> np.ndarray:
    """theta: log C, L, log alpha."""
    log_C, L, log_alpha = (theta[..., i, None] for i in range(3))
    return np.exp(-np.exp(log_C - np.exp(log_alpha) * np.log1p(n)) - L)


def bounded(theta: np.ndarray, n: np.ndarray) -> np.ndarray:
    """theta: log C, L, log alpha, log n_c."""
    log_C, L, log_alpha, log_n_c = (theta[..., i, None] for i in range(4))
    return np.exp(-np.exp(log_C - np.exp(log_alpha) * np.log1p((n + 1) / np.exp(log_n_c))) - L)


def logistic(theta: np.ndarray, n: np.ndarray) -> np.ndarray:
    """theta: log A, L, log k, log n_0."""
    log_A, L, log_k, log_n_0 = (theta[..., i, None] for i in range(4))
    return np.exp(-np.exp(log_A) * expit(-np.exp(log_k) * (np.log1p(n) - log_n_0)) - L)


LAWS = {
    "scoring": Law(scoring, (0.0, 0.0, -15.0, -10.0), (1.0, 1.0, 15.0, 3.0)),
    "power": Law(power, (-7.0, 0.0, -4.0), (4.0, 8.0, 2.0)),
    "bounded": Law(bounded, (-7.0, 0.0, -4.0, -3.0), (6.0, 8.0, 3.0, 9.0)),
    "logistic": Law(logistic, (-7.0, 0.0, -3.0, -3.0), (4.0, 8.0, 3.0, 9.0)),
}


def forecast(name: str, curve: Cells, ahead: Cells, rng: np.random.Generator, n_draws: int):
    """See `peers`; name: of the law."""
    law = LAWS[name]
    low, high = map(np.array, (law.low, law.high))
    # L of 8 nats is possible, but starts lie where curves are.
    top = np.where(high == 8.0, 1.5, high)
    starts = rng.uniform(low, top, (STARTS, len(low)))
    best = _finish(law, _search(law, starts, curve.shots, curve.y), curve)
    fitted = law.p(best, curve.shots)
    residuals = curve.y - fitted
    n = len(residuals)
    residuals = (residuals - residuals.mean()) * np.sqrt(n / max(n - len(low), 1))
    again = np.clip(fitted + rng.choice(residuals, (REFITS, n)), 0.0, 1.0)
    refits = _descend(law, np.tile(best, (REFITS, 1)), curve.shots, again)[0]
    mean = law.p(np.resize(refits, (n_draws, len(low))), ahead.shots)
    return np.clip(mean + rng.choice(residuals, mean.shape), 0.0, 1.0), mean


def _search(law: Law, starts: np.ndarray, shots: np.ndarray, y: np.ndarray) -> np.ndarray:
    theta, loss = _descend(law, starts, shots, y)
    return theta[np.argmin(loss)]


def _finish(law: Law, theta: np.ndarray, curve: Cells) -> np.ndarray:
    inside = np.clip(theta, np.array(law.low) + 1e-6, np.array(law.high) - 1e-6)
    miss = lambda theta: law.p(theta, curve.shots) - curve.y  # noqa: E731
    found = scipy.optimize.least_squares(miss, inside, bounds=(law.low, law.high)).x
    return min(found, theta, key=lambda theta: np.sum(miss(theta) ** 2))


def _descend(law: Law, theta: np.ndarray, shots: np.ndarray, y: np.ndarray, steps: int = 60):
    """Levenberg and Marquardt's descent of many at once within bounds: theta and loss of each.

    theta: (fits, parameters). y: (fits, n) or (n,).
    """
    low, high = map(np.array, (law.low, law.high))
    d, h = theta.shape[1], 1e-6
    damping = np.full(len(theta), 1e-2)
    p = law.p(theta, shots)
    loss = np.sum((p - y) ** 2, axis=1)
    for _ in range(steps):
        ahead = law.p(theta[:, None] + h * np.eye(d), shots)
        J = (ahead - p[:, None]) / h  # (fits, parameters, n)
        pull = np.einsum("fpn,fn->fp", J, y - p)
        # A parameter at its bound that is pulled outwards stays.
        free = ~((theta <= low) & (pull < 0) | (theta >= high) & (pull > 0))
        J = J * free[..., None]
        H = J @ J.transpose(0, 2, 1)
        ridge = damping[:, None] * (np.einsum("fpp->fp", H) + 1e-8)
        H[:, range(d), range(d)] += ridge
        step = np.linalg.solve(H, (pull * free)[..., None])[..., 0]
        new = np.clip(theta + np.clip(step, -2.0, 2.0), low, high)
        p_new = law.p(new, shots)
        loss_new = np.sum((p_new - y) ** 2, axis=1)
        better = loss_new < loss
        theta = np.where(better[:, None], new, theta)
        p = np.where(better[:, None], p_new, p)
        loss = np.where(better, loss_new, loss)
        damping = np.clip(np.where(better, damping / 4, damping * 6), 1e-9, 1e9)
    return theta, loss
