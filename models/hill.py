"""Hill law in probability: p(n) = beta + (gamma - beta) / (1 + ((n + 1) / n_0)^-k).

n      demonstrations before the query ("shots"), n >= 0; the query itself counts, hence n + 1
gamma  probability with endless demonstrations: the curve's ceiling, in (0, 1)
beta   probability before the rise (at n + 1 = 0): its floor, in (0, gamma)
n_0    demonstrations, the query counted, at which half of the rise is done, > 0
k      steepness, > 0

Each curve has its own parameters. In n + 1 it is what the discounted scoring-wise law approaches in
n as its discount goes to 1: log-odds that grow as the logarithm.

Priors
gamma  Uniform(0, 1): any ceiling.
beta   gamma Beta(1/2, 1): log(gamma / beta) is exponential with mean 2 nats, as in the
       scoring-wise law.
n_0    LogNormal(log 10, 2): 90 % between .4 and 270 demonstrations.
k      LogNormal(0, 1): 90 % between .19 and 5.2.

Source: the dose-response curve of Hill (1910), J. Physiol. 40, iv-vii, with floor and ceiling.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from bayesicl.models import general

from bayesicl.coordinates import longest, narrowed, needed, start_gain_floor
from bayesicl.law import Design, Law
from bayesicl.priors import Below, hypotheses


def curve(shots, gamma, beta, n_0, k):
    """Log p; all arguments broadcast."""
    return general.of_two(k * (jnp.log1p(shots) - jnp.log(n_0)), gamma, beta)


def model(design: Design):
    """Sample gamma, beta, n_0 and k; return log p of each cell."""
    with hypotheses(design):
        gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.0))
        beta = numpyro.sample("beta", Below(gamma, 0.5, 1.0))
        n_0 = numpyro.sample("n_0", dist.LogNormal(jnp.log(10.0), 2.0))
        k = numpyro.sample("k", dist.LogNormal(0.0, 1.0))
        numpyro.deterministic("ceiling", gamma)
    return curve(design.shots, *map(design.per_cell, (gamma, beta, n_0, k)))


def coordinates(design: Design, w):
    """Those of the scoring-wise law: value at 0 shots, gain, floor's share, and when it rises.

    The log-odds of the start are -k log n_0, from which n_0 follows.
    """
    gamma, odds, beta, log_det = start_gain_floor(w["gamma"], w["n_0"], w["beta"])
    need = needed(odds)
    t, log_slope = narrowed(w["k"], need)
    log_k = jnp.log(need) - jnp.log(jnp.log1p(longest(design))) + t
    z = {**w, "gamma": gamma, "beta": beta, "k": log_k, "n_0": -odds * jnp.exp(-log_k)}
    return z, log_det + jnp.sum(log_slope - log_k)


law = Law(
    "hill",
    curve,
    model,
    reference="Hill 1910, J. Physiol. 40, with floor and ceiling",
    formula="p(n) = beta + (gamma - beta) / (1 + ((n + 1) / n_0)^-k)",
    coordinates=coordinates,
)
