"""Power law: -log p(n) = C (n + 1)^-alpha + L.

n      demonstrations before the query ("shots"), n >= 0; the query itself counts, hence n + 1
C      nats above the limit at 0 shots, > 0
alpha  exponent, > 0
L      -log p with endless demonstrations, in nats, > 0

Each curve has its own parameters.

Priors
C      Exponential(mean 2), as the evidence of one example, log(gamma/beta), in the Bayesian laws.
L      Exponential(mean 1): the ceiling exp(-L) is uniform on (0, 1).
alpha  LogNormal(log 1/2, 1): 90 % between .10 and 2.6.

Source: the baseline of Arora et al. (2024), arXiv 2410.16531; for many shots Anil et al. (2024),
"Many-shot jailbreaking".
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.coordinates import longest, start_and_end
from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses


def curve(shots, C, alpha, L):
    """Log p; all arguments broadcast."""
    return -C * jnp.exp(-alpha * jnp.log1p(shots)) - L


def model(design: Design):
    """Sample C, alpha and L; return log p of each cell."""
    with hypotheses(design):
        C = numpyro.sample("C", dist.Exponential(0.5))
        alpha = numpyro.sample("alpha", dist.LogNormal(jnp.log(0.5), 1.0))
        L = numpyro.sample("L", dist.Exponential(1.0))
        numpyro.deterministic("ceiling", jnp.exp(-L))
    return curve(design.shots, *map(design.per_cell, (C, alpha, L)))


def coordinates(design: Design, w):
    """Value at the end, its share of the start, what of that is alpha's: (N + 1)^-alpha = ratio."""
    log_C, log_L, log_ratio, log_det = start_and_end(w, "C", "L", "alpha")
    log_alpha = jnp.log(-log_ratio / jnp.log1p(longest(design)))
    return {**w, "C": log_C, "L": log_L, "alpha": log_alpha}, jnp.sum(log_det - jnp.log(-log_ratio))


law = Law(
    "power",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531; Anil et al. 2024",
    formula="-log p(n) = C (n + 1)^-alpha + L",
    coordinates=coordinates,
)
