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
from jax.nn import log_sigmoid, sigmoid

from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses, longest, start_and_end


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
    h = design.hypothesis
    return curve(design.shots, A[h], n_0[h], k[h], L[h])


def coordinates(design: Design, w):
    """Value at the end, its share of the start, what of that is the shape's, and where it bends.

    A power law would have the exponent -log ratio / log(N + 1); k log(N + 1) exceeds that by
    e^m (1 - log ratio), where m stands in the place of n_0.
    """
    start, log_L, log_ratio, log_det = start_and_end(w, "A", "L", "k")
    excess = jnp.exp(w["n_0"]) * (1.0 - log_ratio)
    log_k = jnp.log((excess - log_ratio) / jnp.log1p(longest(design)))
    k, log_rest = jnp.exp(log_k), jnp.log(-jnp.expm1(log_ratio))
    # ratio (N + 1)^k = e^excess, hence n_0^-k = (1 - ratio) / (e^excess - 1).
    log_n_0 = (excess + jnp.log(-jnp.expm1(-excess)) - log_rest) / k
    log_A = start - log_sigmoid(k * log_n_0)
    share = jnp.expm1(log_ratio) / jnp.expm1(-excess)
    bend = jnp.log(excess / (excess - log_ratio)) - log_k
    z = {**w, "A": log_A, "L": log_L, "k": log_k, "n_0": log_n_0}
    return z, jnp.sum(log_det + jnp.log(share + jnp.exp(log_ratio)) + bend - log_rest)


law = Law(
    "logistic",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531",
    formula="-log p(n) = A / (1 + ((n + 1) / n_0)^k) + L",
    coordinates=coordinates,
)
