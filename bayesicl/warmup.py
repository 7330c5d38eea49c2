"""Before and between a chain's windows: where it starts, and the scale that it moves by."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from bayesicl.lanes import Point, choose

WINDOWS = (
    (0.06, False), (0.08, False), (0.12, True), (0.2, True), (0.34, True), (0.1, True), (0.1, True),
)  # fmt: skip
"""Of warm-up: shares, and whether the scale is taken of all chains' draws about one mean."""
STEP_ONLY = 2  # windows at the end that leave the scale as it is
N_STARTS = 32  # random points of which each chain takes the best
N_DESCENT = 150  # optimiser steps from there


def start(key: jax.Array, fn: Callable, d: int) -> tuple[Point, jax.Array]:
    """Where a chain begins, and the curvature of the potential there, (d, d).

    The best of random points, then a short descent (Adam); curvature by differences of gradients.
    """

    def random_point(i):
        return random.uniform(random.fold_in(key, i), (d,), minval=-3.0, maxval=3.0)

    # One loop for search, descent and differences, so that the potential is compiled once.
    width = jnp.finfo(jnp.result_type(float)).eps ** 0.25
    end = N_STARTS + N_DESCENT

    def step(i, carry):
        q, best, m, s, slopes = carry
        potential, gradient = fn(q)
        gradient = jnp.nan_to_num(gradient, posinf=0.0, neginf=0.0)
        better = (potential < best.potential) & (i < end)
        best = choose(better, Point(q, potential, gradient), best)
        slopes = jnp.where((jnp.arange(2 * d) == i - end)[:, None], gradient, slopes)
        t = jnp.maximum(i - N_STARTS + 1, 1)
        used = jnp.where(i < N_STARTS, 0.0, gradient)
        m, s = 0.9 * m + 0.1 * used, 0.99 * s + 0.01 * used**2
        down = q - 0.1 * jnp.sqrt(1 - 0.99**t) / (1 - 0.9**t) * m / (jnp.sqrt(s) + 1e-8)
        j = i + 1 - end  # of the 2 d points around the best
        around = best.q + width * jnp.where(jnp.arange(d) == j // 2, 1.0 - 2.0 * (j % 2), 0.0)
        where = [i < N_STARTS - 1, i == N_STARTS - 1, i < end - 1]
        return jnp.select(where, [random_point(i + 1), best.q, down], around), best, m, s, slopes

    zero = jnp.zeros(d)
    best = Point(zero, jnp.asarray(jnp.inf), zero)
    carry = (random_point(0), best, zero, zero, jnp.zeros((2 * d, d)))
    _, best, _, _, slopes = lax.fori_loop(0, end + 2 * d, step, carry)
    rows = (slopes[0::2] - slopes[1::2]) / (2.0 * width)
    return best, 0.5 * (rows + rows.T)


def scale_of_curvature(curvature: np.ndarray) -> np.ndarray:
    """Factor of a first guess of the covariance, from the curvatures of all chains: (d, d).

    curvature: (chains, d, d). Flat and bent directions are taken for twice as wide as a prior.
    """
    values, vectors = np.linalg.eigh(np.nan_to_num(curvature.mean(axis=0)))
    covariance = (vectors / np.maximum(values, 0.25)) @ vectors.T
    return np.linalg.cholesky(covariance)


def scale_of_draws(q: np.ndarray, *, pooled: bool) -> np.ndarray:
    """Factor of the covariance of draws (chains, draws, d), about one mean or each chain's own."""
    chains, draws, d = q.shape
    centred = (q - q.mean(axis=(0, 1) if pooled else 1, keepdims=True)).reshape(-1, d)
    n = 0.1 * chains * draws  # draws go together
    covariance = (n * centred.T @ centred / (chains * draws) + 5e-3 * np.eye(d)) / (n + 5.0)
    return np.linalg.cholesky(covariance)
