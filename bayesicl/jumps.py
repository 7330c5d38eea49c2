"""Jumps between modes: a mixture fitted to draws, from which Metropolis proposals come."""

import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import random
from jax.scipy.special import logsumexp
from scipy.cluster.vq import kmeans2

FREEDOM = 4  # of the Student t from which jumps are proposed; even, for cheap chi-squares
TINY = 1e-12  # so that no uniform is 0
N_COMPONENTS = 8  # of the mixture of them: enough for a few modes and a bent ridge between


class Mixture(NamedTuple):
    """Where jumps go: Student t components in sampling coordinates.

    log_weight, log_height: (n,), of the components and of their densities' peaks. mean: (n, d).
    chol, inverse: (n, d, d), Cholesky factors of the scales and their inverses.
    """

    log_weight: Any
    log_height: Any
    mean: Any
    chol: Any
    inverse: Any

    def log_density(self, q):
        """At q, (d,), up to a constant."""
        z = jnp.sum(self.inverse * (q - self.mean)[:, None, :], axis=-1)
        tails = -0.5 * (FREEDOM + q.shape[0]) * jnp.log1p(jnp.sum(z * z, axis=-1) / FREEDOM)
        return logsumexp(self.log_height + tails)

    def draw(self, key, shape):
        """Places and their log densities: (*shape, d) and shape."""
        k_which, k_z, k_t = random.split(key, 3)
        below = jnp.cumsum(jnp.exp(self.log_weight))[:-1]
        which = jnp.sum(random.uniform(k_which, (*shape, 1)) > below, axis=-1)
        z = random.normal(k_z, (*shape, self.mean.shape[1]), self.mean.dtype)
        u = random.uniform(k_t, (FREEDOM // 2, *shape), self.mean.dtype, minval=TINY)
        t = jnp.sqrt(FREEDOM / (-2.0 * jnp.log(jnp.prod(u, axis=0))))
        q = self.mean[which] + jnp.sum(self.chol[which] * z[..., None, :], axis=-1) * t[..., None]
        return q, jnp.vectorize(self.log_density, signature="(d)->()")(q)


def mixture_about(points: np.ndarray, chol: np.ndarray) -> Mixture:
    """Components of one scale, (d, d), about points, (n, d), of which N_COMPONENTS have room."""
    mean = np.resize(points, (N_COMPONENTS, points.shape[1]))
    chol = np.broadcast_to(chol, (N_COMPONENTS, *chol.shape))
    return _mixture(np.zeros(N_COMPONENTS), mean, chol)


def _mixture(log_weight, mean, chol) -> Mixture:
    log_weight = log_weight - np.logaddexp.reduce(log_weight)
    log_det = np.sum(np.log(np.diagonal(chol, axis1=1, axis2=2)), axis=1)
    return Mixture(log_weight, log_weight - log_det, mean, chol, np.linalg.inv(chol))


def mixture_of(q: np.ndarray) -> Mixture:
    """Components fitted to draws of all chains, (chains, draws, d)."""
    points = q.reshape(-1, q.shape[-1])
    d = points.shape[1]
    whole = np.cov(points.T).reshape(d, d) + 1e-9 * np.eye(d)
    white = np.linalg.solve(np.linalg.cholesky(whole), points.T).T
    n = np.clip(len(np.unique(points, axis=0)) // 4, 1, N_COMPONENTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster is dealt with below
        _, cluster = kmeans2(white, n, minit="++", rng=np.random.default_rng(0))
    weight, mean, chol = [], [], []
    for k in np.unique(cluster):
        own = points[cluster == k]
        # A small cluster's covariance leans on that of all draws, scaled to a cluster's size.
        scatter = (own - own.mean(0)).T @ (own - own.mean(0))
        scale = (scatter + d * whole / N_COMPONENTS) / (len(own) + d)
        weight.append(0.5 * len(own) / len(points) + 0.5 / N_COMPONENTS)
        mean.append(own.mean(0))
        chol.append(np.linalg.cholesky(scale))
    # A cluster that came out empty leaves its place to a copy: shapes stay those compiled.
    fill = np.resize(np.arange(len(weight)), N_COMPONENTS)
    return _mixture(np.log(weight)[fill], np.array(mean)[fill], np.array(chol)[fill])
