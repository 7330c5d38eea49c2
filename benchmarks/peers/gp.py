"""A Gaussian process on log(1 + shots): Matern 3/2 and an unknown constant mean, on log-odds.

Cells enter as empirical log-odds with the binomial variance of their totals (Haldane and Anscombe's
halves added) and one unknown variance beside it. Scale, length and that variance are those of the
largest marginal likelihood, found from a grid of 512 starts; the constant is integrated out. Drawn
log-odds become probabilities, to which new measurements add the unknown scatter and binomial noise.
"""

import numpy as np
import scipy.optimize
from scipy.special import expit

from peers import Cells, binomial

CONSTANT = 4.0  # variance of the constant mean, in log-odds squared
BOUNDS = np.log([(0.05, 5.0), (0.2, 20.0), (1e-3, 1.0)])  # sd, length in log(1 + shots), scatter
GRID = np.stack(np.meshgrid(*(np.linspace(*ends, 8) for ends in BOUNDS)), axis=-1).reshape(-1, 3)


def forecast(curve: Cells, ahead: Cells, rng: np.random.Generator, n_draws: int):
    """See `peers`."""
    x, x_new = np.log1p(curve.shots), np.log1p(ahead.shots)
    right, wrong = curve.y * curve.total + 0.5, (1.0 - curve.y) * curve.total + 0.5
    z, known = np.log(right / wrong), 1.0 / right + 1.0 / wrong
    start = GRID[np.argmin(_loss(GRID, x, z, known))]
    best = scipy.optimize.minimize(
        lambda theta: _loss(theta[None], x, z, known)[0], start, method="L-BFGS-B", bounds=BOUNDS
    ).x
    chol = np.linalg.cholesky(_covariance(best, x, known))
    across = np.linalg.solve(chol, _kernel(best, x, x_new))
    mean = np.linalg.solve(chol, z) @ across
    cov = _kernel(best, x_new, x_new) - across.T @ across
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    f = mean + rng.standard_normal((n_draws, len(x_new))) @ root.T
    scattered = f + np.exp(best[2]) * rng.standard_normal(f.shape)
    return binomial(expit(scattered), ahead, rng), expit(f)


def _kernel(theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """theta: (..., 3), logarithms of sd, length and scatter."""
    sd, length = np.exp(theta[..., 0, None, None]), np.exp(theta[..., 1, None, None])
    r = np.sqrt(3.0) * np.abs(a[:, None] - b) / length
    return sd**2 * (1.0 + r) * np.exp(-r) + CONSTANT


def _covariance(theta: np.ndarray, x: np.ndarray, known: np.ndarray) -> np.ndarray:
    scatter = np.exp(2 * theta[..., 2, None, None])
    return _kernel(theta, x, x) + np.eye(len(x)) * (known + scatter)


def _loss(theta: np.ndarray, x: np.ndarray, z: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Minus log marginal likelihood, but for a constant, of each theta: (n, 3) -> (n,)."""
    chol = np.linalg.cholesky(_covariance(theta, x, known))
    half = np.linalg.solve(chol, z[:, None])[..., 0]
    log_det = np.log(np.einsum("nii->ni", chol)).sum(axis=1)
    return 0.5 * np.sum(half**2, axis=1) + log_det
