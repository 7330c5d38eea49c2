"""Many-shot law, of the mean nll: nll(n) = C (n + 1)^-alpha + L.

n      demonstrations before the query ("shots"), n >= 0; the query itself counts, hence n + 1
nll    mean over prompts of -log p of the right answer, in nats, > 0
C      nats above the limit at 0 shots, > 0
alpha  exponent, > 0
L      mean nll with endless demonstrations, in nats, > 0 and as near to 0 as may be

Each curve has its own parameters. It is the power law's formula for another quantity: the power law
is of -log of the mean probability, which is the smaller, by up to several nats. Neither is to be
compared with the other.

Priors
C      Exponential(mean 4): 90 % between .2 and 12 nats. Measured curves begin 3 to 15 nats high:
       -log p of a whole answer adds over its tokens.
L      Exponential(mean 1): 90 % between .05 and 3 nats.
alpha  LogNormal(log 1/2, 1): 90 % between .10 and 2.6.

Source: Anil et al. (2024), "Many-shot jailbreaking". They count demonstrations from 1; n + 1 begins
where there are none, and is the same far out.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from bayesicl.models import power

from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses
from bayesicl.scale import MEAN_NLL


def curve(shots, C, alpha, L):
    """Log of the mean nll; all arguments broadcast."""
    return jnp.log(C * jnp.exp(-alpha * jnp.log1p(shots)) + L)


def model(design: Design):
    """Sample C, alpha and L; return the log of the mean nll of each cell."""
    with hypotheses(design):
        C = numpyro.sample("C", dist.Exponential(0.25))
        alpha = numpyro.sample("alpha", dist.LogNormal(jnp.log(0.5), 1.0))
        L = numpyro.sample("L", dist.Exponential(1.0))
    return curve(design.shots, *map(design.per_cell, (C, alpha, L)))


law = Law(
    "manyshot",
    curve,
    model,
    reference='Anil et al. 2024, "Many-shot jailbreaking"',
    formula="nll(n) = C (n + 1)^-alpha + L",
    coordinates=power.law.coordinates,  # of value at the end, its share of the start, and shape
    scale=MEAN_NLL,
)
