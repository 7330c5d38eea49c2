"""Bounded power law: -log p(n) = C (1 + (n + 1) / n_c)^-alpha + L.

n      demonstrations before the query ("shots"), n >= 0; the query itself counts, hence n + 1
C      nats above the limit where the power law is cut off, > 0
n_c    demonstrations over which the curve stays flat before it falls as a power, > 0
alpha  exponent, > 0
L      -log p with endless demonstrations, in nats, > 0

Each curve has its own parameters.

Priors
C      Exponential(mean 2), as the evidence of one example, log(gamma/beta), in the Bayesian laws.
L      Exponential(mean 1): the ceiling exp(-L) is uniform on (0, 1).
alpha  LogNormal(log 1/2, 1): 90 % between .10 and 2.6.
n_c    LogNormal(log 10, 2): 90 % between .4 and 270 demonstrations.

Source: the baseline of Arora et al. (2024), arXiv 2410.16531.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.coordinates import log_expm1, longest, start_and_end
from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses

MEAN_C = 2.0  # nats


def curve(shots, C, n_c, alpha, L):
    """Log p; all arguments broadcast."""
    return -C * jnp.exp(-alpha * jnp.log1p((shots + 1.0) / n_c)) - L


def model(design: Design):
    """Sample C, n_c, alpha and L; return log p of each cell."""
    with hypotheses(design):
        C = numpyro.sample("C", dist.Exponential(1.0 / MEAN_C))
        n_c = numpyro.sample("n_c", dist.LogNormal(jnp.log(10.0), 2.0))
        alpha = numpyro.sample("alpha", dist.LogNormal(jnp.log(0.5), 1.0))
        L = numpyro.sample("L", dist.Exponential(1.0))
        numpyro.deterministic("ceiling", jnp.exp(-L))
    return curve(design.shots, *map(design.per_cell, (C, n_c, alpha, L)))


def coordinates(design: Design, w):
    """As the power law's, with ratio = ((n_c + N + 1)/(n_c + 1))^-alpha, and when the fall begins.

    In the place of n_c stands m, with

        log(1 + 1/n_c) = softplus(x) / a,    a = 1 - log ratio / log(N + 1),
        x = room + 2 log softplus((log a - m - room) / 2),    room = log(MEAN_C / (y(0) - L)).

    Where n_c is large, m is log n_c, or nearly. Where it is small the curve has fallen by about
    alpha log(1 + 1/n_c) before the first query; C grows as the exponential of that, and x with it.
    Up to `room`, where C is at its prior mean, x goes as -m; beyond, e^x and C grow as the square
    of -m, so that C's exponential prior is no wall, but a normal's tail.
    """
    start, log_L, log_ratio, log_det = start_and_end(w, "C", "L", "alpha")
    log_t, N = jnp.log(-log_ratio), longest(design)
    a = 1.0 + jnp.exp(log_t) / jnp.log1p(N)
    room = jnp.log(MEAN_C) - start
    y = 0.5 * (jnp.log(a) - w["n_c"] - room)
    log_y = jnp.log(jax.nn.softplus(y))
    x = room + 2.0 * log_y
    log_det += jax.nn.log_sigmoid(y) - log_y
    before = jax.nn.softplus(x) / a
    log_n_c = -log_expm1(before)
    log_alpha = log_t - jnp.log(jnp.log1p(N / (jnp.exp(log_n_c) + 1.0)))
    log_C = start + jnp.exp(log_alpha) * before
    log_det += jax.nn.log_sigmoid(x) - jnp.log(a) + before + log_n_c - log_t
    return {**w, "C": log_C, "L": log_L, "alpha": log_alpha, "n_c": log_n_c}, jnp.sum(log_det)


law = Law(
    "bounded",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531",
    formula="-log p(n) = C (1 + (n + 1) / n_c)^-alpha + L",
    coordinates=coordinates,
)
