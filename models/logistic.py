"""Logistic (Hill) law: -log p(n) = A / (1 + ((n + 1) / n_0)^k) + L.

n    demonstrations before the query ("shots"), n >= 0; the query itself counts, hence n + 1
A    nats above the limit before the fall (at n + 1 = 0), > 0
n_0  demonstrations, the query counted, at which half of A is gone, > 0
k    steepness, > 0
L    -log p with endless demonstrations, in nats, > 0

Each curve has its own parameters.

Priors
A    Exponential(mean 2), as the evidence of one example, log(gamma/beta), in the Bayesian laws.
L    Exponential(mean 1): the ceiling exp(-L) is uniform on (0, 1).
n_0  LogNormal(log 10, 2): 90 % between .4 and 270 demonstrations.
k    LogNormal(0, 1): 90 % between .19 and 5.2.

Source: the baseline of Arora et al. (2024), arXiv 2410.16531.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import log_sigmoid, sigmoid, softplus

from bayesicl.coordinates import log_expm1, longest
from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses


def curve(shots, A, n_0, k, L):
    """Log p; all arguments broadcast."""
    return -A * sigmoid(-k * (jnp.log1p(shots) - jnp.log(n_0))) - L


def model(design: Design):
    """Sample A, n_0, k and L; return log p of each cell."""
    with hypotheses(design):
        A = numpyro.sample("A", dist.Exponential(0.5))
        n_0 = numpyro.sample("n_0", dist.LogNormal(jnp.log(10.0), 2.0))
        k = numpyro.sample("k", dist.LogNormal(0.0, 1.0))
        L = numpyro.sample("L", dist.Exponential(1.0))
        numpyro.deterministic("ceiling", jnp.exp(-L))
    return curve(design.shots, *map(design.per_cell, (A, n_0, k, L)))


FAR = 3.0  # log-odds of the fall: beyond, the prior of A is felt and no longer the data


def coordinates(design: Design, w):
    """Value at the end, its share of the start, the steepness, and where it bends.

    With N the longest shots, y = -log p, and the coordinates e, b, s and m (real numbers) in the
    places of A, L, k and n_0,

        log y(N) = e,    y(N)/y(0) = sigmoid(b + far),    k = k_least + exp(s);

    no k below k_least could fall so far, since L > 0. log n_0 is a smooth version of m: it stays
    below where L would be 0, and beyond 0 and N shots its slope is 1/(1 + k) instead of 1, because
    there A goes with n_0 to the power k or -k. `far` makes up for it, so that m can go where a
    flat curve lets it, and A stays.
    """
    e, b, s, m = w["A"], w["L"], w["k"], w["n_0"]
    span = jnp.log1p(longest(design))
    b = b + softplus(-m - FAR) + softplus(m - span - FAR)
    k = -log_sigmoid(b) / span + jnp.exp(s)
    c = 1.0 + k
    free = m / c + (1.0 - 1.0 / c) * (softplus(m) - softplus(m - span))
    slope = 1.0 / c + (1.0 - 1.0 / c) * (sigmoid(m) - sigmoid(m - span))
    top = softplus(b) + log_expm1(span * jnp.exp(s))
    most = top / k
    room = softplus(c * (most - free)) / c
    log_n_0 = most - room
    # The shares of y(N) that are still to fall, and that are L.
    log_fall = softplus(k * log_n_0) - softplus(top)
    log_rest = log_sigmoid(top) + jnp.log(-jnp.expm1(-k * room))
    log_A = e + log_fall + softplus(k * (span - log_n_0))
    log_det = s - jnp.log(k) + log_sigmoid(c * (most - free)) + jnp.log(slope) - log_rest
    z = {**w, "A": log_A, "L": e + log_rest, "k": jnp.log(k), "n_0": log_n_0}
    return z, jnp.sum(log_det)


law = Law(
    "logistic",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531",
    formula="-log p(n) = A / (1 + ((n + 1) / n_0)^k) + L",
    coordinates=coordinates,
)
