"""Broken power law: a power law that turns into another one.

    -log p(n) = C x^-alpha (1 + (x / n_c)^(1/f))^(-(alpha_2 - alpha) f) + L, x = n + 1

A power law with exponent alpha that turns, about x = n_c, into one with exponent alpha_2.

n        demonstrations before the query ("shots"), n >= 0; the query itself counts, hence n + 1
C        nats above the limit at 0 shots, but for what the break takes there, > 0
alpha    exponent before the break, > 0
alpha_2  exponent after the break, > 0: the curve cannot fall
n_c      demonstrations, the query counted, at which the curve breaks, > 0
f        breadth of the break, in units of log x, > 0; the smaller, the sharper
L        -log p with endless demonstrations, in nats, > 0

Each curve has its own parameters.

Priors
C        Exponential(mean 2), as the evidence of one example, log(gamma/beta), in the Bayesian laws.
L        Exponential(mean 1): the ceiling exp(-L) is uniform on (0, 1).
alpha    LogNormal(log 1/2, 1), as the power law's, and
alpha_2  the same: 90 % between .10 and 2.6.
n_c      LogNormal(log 30, 1.5): 90 % between 2.5 and 350; a break before the first query is none.
f        LogNormal(-1, 1): 90 % between .07 and 1.9; the turn is over within a decade or two.

Source: Caballero et al. (2022), arXiv 2210.14891, with one break and c_1 = alpha_2 - alpha.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.coordinates import longest, start_and_end
from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses


def curve(shots, C, alpha, alpha_2, n_c, f, L):
    """Log p; all arguments broadcast."""
    log_x = jnp.log1p(shots)
    turned = (alpha_2 - alpha) * past(log_x, jnp.log(n_c), f)
    return -C * jnp.exp(-alpha * log_x - turned) - L


def past(log_x, log_n_c, f):
    """Logarithm of how far x lies beyond n_c, softly 0 before."""
    return f * jax.nn.softplus((log_x - log_n_c) / f)


def model(design: Design):
    """Sample C, alpha, alpha_2, n_c, f and L; return log p of each cell."""
    with hypotheses(design):
        C = numpyro.sample("C", dist.Exponential(0.5))
        alpha = numpyro.sample("alpha", dist.LogNormal(jnp.log(0.5), 1.0))
        alpha_2 = numpyro.sample("alpha_2", dist.LogNormal(jnp.log(0.5), 1.0))
        n_c = numpyro.sample("n_c", dist.LogNormal(jnp.log(30.0), 1.5))
        f = numpyro.sample("f", dist.LogNormal(-1.0, 1.0))
        L = numpyro.sample("L", dist.Exponential(1.0))
        numpyro.deterministic("ceiling", jnp.exp(-L))
    return curve(design.shots, *map(design.per_cell, (C, alpha, alpha_2, n_c, f, L)))


def coordinates(design: Design, w):
    """As the power law's, with the mean slope in the place of alpha, and alpha_2 / alpha.

    n_c and f stay. The mean slope over log x from 0 shots to the longest is
    (1 - u) alpha + u alpha_2, where u is the share of the way that lies past the break.
    """
    start, log_L, log_ratio, log_det = start_and_end(w, "C", "L", "alpha")
    way, log_n_c, f = jnp.log1p(longest(design)), w["n_c"], jnp.exp(w["f"])
    first = past(0.0, log_n_c, f)
    u = (past(way, log_n_c, f) - first) / way
    turn = w["alpha_2"]  # log(alpha_2 / alpha)
    log_alpha = jnp.log(-log_ratio / way) - jnp.log1p(u * jnp.expm1(turn))
    log_C = start + jnp.exp(log_alpha) * jnp.expm1(turn) * first
    z = {**w, "C": log_C, "L": log_L, "alpha": log_alpha, "alpha_2": log_alpha + turn}
    return z, jnp.sum(log_det - jnp.log(-log_ratio))


law = Law(
    "broken",
    curve,
    model,
    reference="Caballero et al. 2022, arXiv 2210.14891",
    formula="-log p(n) = C x^-alpha (1 + (x / n_c)^(1/f))^(-(alpha_2 - alpha) f) + L, x = n + 1",
    coordinates=coordinates,
)
