"""Scoring-wise Bayesian law: the miss belongs to the hypothesis that generates.

    p_h(n) = sum_m pi_m P_hm^(K n + 1) / sum_m pi_m P_hm^(K n),
    P_hm = gamma_h if m = h, else beta_h

which is a logistic curve in n: beta + (gamma - beta) sigmoid(logit pi + K n log(gamma / beta)).

n        demonstrations before the query ("shots"), n >= 0
pi_h     belief in hypothesis h before the first demonstration, in (0, 1), sums to 1 with the rest
gamma_h  probability of h's examples under h itself: the curve's ceiling, in (0, 1)
beta_h   probability of h's examples under any other hypothesis: its floor, in (0, gamma_h)
K        efficiency: how much evidence one demonstration counts for, > 0

Priors
pi     Dirichlet(1/2): symmetric, with room for hypotheses that start out improbable.
gamma  Uniform(0, 1): any ceiling.
beta   gamma Beta(1/2, 1): the evidence of one example, log(gamma / beta), is exponential with
       mean 2 nats, so floors of one in a thousand are not surprising.
K      LogNormal(-1, 2): 90 % between .014 and 9.9; one is an ideal observer.

Source: Arora et al. (2024), arXiv 2410.16531.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from bayesicl.models import general

from bayesicl.coordinates import start_and_rate
from bayesicl.law import Design, Law
from bayesicl.priors import Below, hypotheses, simplex


def curve(shots, pi, gamma, beta, K):
    """Log p; pi is the belief in the generating hypothesis. All arguments broadcast."""
    shots, pi, gamma, beta, K = jnp.broadcast_arrays(shots, pi, gamma, beta, K)
    pi_pair = jnp.stack([pi, 1.0 - pi], axis=-1)
    return general.curve(shots, pi_pair, jnp.stack([gamma, beta], axis=-1), K)


def sample(design: Design):
    """Sample pi, gamma, beta and K; return pi, the table P of gamma and beta, and K."""
    pi = simplex(design, concentration=0.5)
    K = numpyro.sample("K", dist.LogNormal(-1.0, 2.0))
    with hypotheses(design):
        gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.0))
        beta = numpyro.sample("beta", Below(gamma, 0.5, 1.0))
    H, M = design.n_hypotheses, design.n_believed
    return pi, jnp.where(jnp.eye(H, M, dtype=bool), gamma[:, None], beta[:, None]), K


def model(design: Design):
    """Sample pi, gamma, beta and K; return log p of each cell."""
    pi, P, K = sample(design)
    general.report(design, pi, P, K)
    return general.curve(design.shots, pi, design.per_cell(P), K)


law = Law(
    "scoring",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531",
    formula="as general, with P_hm = gamma_h if m = h, else beta_h",
    coordinates=start_and_rate,
)
