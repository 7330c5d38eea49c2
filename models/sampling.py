"""Sampling-wise Bayesian law: the miss belongs to the hypothesis that scores.

    p_h(n) = sum_m pi_m P_hm^(K n + 1) / sum_m pi_m P_hm^(K n),
    P_hm = gamma_h if m = h, else beta_m

n        demonstrations before the query ("shots"), n >= 0
pi_m     belief in hypothesis m before the first demonstration, in (0, 1), sums to 1
gamma_h  probability of h's examples under h itself, in (0, 1)
beta_m   probability, under m, of examples of any other hypothesis, in (0, 1);
         beta_m < gamma_h for all m != h, so that no curve flees its own hypothesis
K        efficiency: how much evidence one demonstration counts for, > 0

Priors
pi     Dirichlet(1/2): symmetric, with room for hypotheses that start out improbable.
gamma  Uniform(0, 1): any ceiling.
beta   u Beta(1/2, 1), u the smallest gamma_h that bounds it: log(u / beta) is exponential with
       mean 2 nats.
K      LogNormal(-1, 2): 90 % between .014 and 9.9; one is an ideal observer.

With one observed hypothesis only backgrounds have a beta.

Source: Arora et al. (2024), arXiv 2410.16531.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from bayesicl.models import general

from bayesicl.coordinates import shortened
from bayesicl.law import Design, Law
from bayesicl.priors import Below, hypotheses, simplex


def tie(gamma, beta):
    """P, (H, M), from gamma (H,) and beta (M,)."""
    H, M = gamma.shape[0], beta.shape[0]
    return jnp.where(jnp.eye(H, M, dtype=bool), gamma[:, None], beta[None, :])


def curve(shots, hypothesis, pi, gamma, beta, K):
    """Log p: shots (...), hypothesis (...) int, pi (M,), gamma (H,), beta (M,), K ()."""
    return general.curve(shots, pi, tie(gamma, beta)[hypothesis], K)


def model(design: Design):
    """Sample pi, gamma, beta and K; return log p of each cell."""
    H, M = design.n_hypotheses, design.n_believed
    pi = simplex(design, concentration=0.5)
    K = numpyro.sample("K", dist.LogNormal(-1.0, 2.0))
    with hypotheses(design):
        gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.0))
    others = jnp.where(jnp.eye(H, M, dtype=bool), 1.0, gamma[:, None])
    bound = jnp.min(others, axis=0)  # (M,): the smallest gamma of another hypothesis
    if H == 1:  # beta_0 would never be used
        beta = numpyro.sample(
            "beta", Below(bound[1:], 0.5, 1.0).to_event(1), infer={"event_dims": ["background"]}
        )
        beta_all = jnp.concatenate([gamma, beta])
    else:
        beta = beta_all = numpyro.sample(
            "beta", Below(bound, 0.5, 1.0).to_event(1), infer={"event_dims": ["believed"]}
        )
    general.report(design, pi, tie(gamma, beta_all), K)
    return general.curve(design.shots, pi, design.per_cell(tie(gamma, beta_all)), K)


def coordinates(design: Design, w):
    """Of pi, gamma and beta, the tails that the data leave open are shortened."""
    z, log_det = dict(w), 0.0
    for name in ("pi", "gamma", "beta"):
        z[name], log_slope = shortened(w[name])
        log_det += jnp.sum(log_slope)
    return z, log_det


law = Law(
    "sampling",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531",
    formula="as general, with P_hm = gamma_h if m = h, else beta_m",
    coordinates=coordinates,
)
