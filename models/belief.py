"""Belief dynamics: p(n) = gamma sigmoid(b + g n^(1 - discount)).

n         demonstrations before the query ("shots"), n >= 0
gamma     probability with endless demonstrations: the curve's ceiling, in (0, 1)
b         log-odds of belief in the right task before the first demonstration, in nats, real
g         evidence of the first demonstration, in nats, > 0
discount  how much less each further demonstration counts, in (0, 1)

Each curve has its own parameters. It is the discounted scoring-wise law without a floor (beta = 0),
with g in the place of K log(gamma / beta), and no belief shared by the curves of a study. Its
priors are those which that law implies.

Priors
gamma     Uniform(0, 1): any ceiling.
b         sigmoid(b) is Beta(1/2, 1/2), as pi with one background.
g         LogNormal(-.9, 2.4): 90 % between .008 and 21 nats; log g has the mean and the sd of
          log(K log(gamma / beta)).
discount  Uniform(0, 1): from the paper's law to evidence that grows as the logarithm of n.

Source: Bigelow et al. (2025), arXiv 2511.00617.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import log_sigmoid

from bayesicl.coordinates import longest, narrowed, needed, shortened, start_and_gain
from bayesicl.law import Design, Law
from bayesicl.priors import LogOdds, evidence, hypotheses, sample_discount


def curve(shots, gamma, b, g, discount):
    """Log p; all arguments broadcast."""
    return jnp.log(gamma) + log_sigmoid(b + g * evidence(shots, discount))


def model(design: Design):
    """Sample gamma, b, g and the discount; return log p of each cell."""
    with hypotheses(design):
        gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.0))
        b = numpyro.sample("b", LogOdds())
        g = numpyro.sample("g", dist.LogNormal(-0.9, 2.4))
        discount = sample_discount()
        numpyro.deterministic("ceiling", gamma)
    return curve(design.shots, *map(design.per_cell, (gamma, b, g, discount)))


def coordinates(design: Design, w):
    """Value at 0 shots, gain, and when it rises; the discount is one of its own."""
    gain, log_gain = shortened(w["b"])
    gamma, odds = start_and_gain(w["gamma"], gain)
    need = needed(odds)
    t, log_slope = narrowed(w["g"], need)
    counted = jax.nn.sigmoid(-w["discount"]) * jnp.log(longest(design))
    z = {**w, "gamma": gamma, "b": odds, "g": jnp.log(need) - counted + t}
    return z, jnp.sum(log_gain + log_slope)


law = Law(
    "belief",
    curve,
    model,
    reference="Bigelow et al. 2025, arXiv 2511.00617",
    formula="p(n) = gamma sigmoid(b + g n^(1 - discount))",
    coordinates=coordinates,
)
