"""Logistic (Hill) law: -log p(n) = A / (1 + ((n + 1) / n_0)^k) + L.

n    demonstrations before the query ("shots"), n >= 0; the query itself counts, hence n + 1
A    nats that demonstrations can take away, > 0
n_0  demonstrations at which half of A is gone, > 0
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
from jax.nn import sigmoid

from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses, start_and_share


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


law = Law(
    "logistic",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531",
    formula="-log p(n) = A / (1 + ((n + 1) / n_0)^k) + L",
    coordinates=lambda design, w: (start_and_share(w, "A", "L"), 0.0),
)
