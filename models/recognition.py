"""Recognition + learning: a known task is recognised, and a mapping is learned beside it.

    p_h(n) = floor + (1 - floor) (1 - (1 - r_h(n)) (1 - l(n))),
    r_h(n) = sum_m pi_m P_hm^(K n + 1) / sum_m pi_m P_hm^(K n),
    P_hm = gamma_h if m = h, else beta_h,
    l(n) = 1 - (1 + n / n_l)^-a

The answer is right by chance (floor), by recognition (r_h, the scoring-wise law) or by learning
(l), each independent of the rest. Recognition ends at gamma; learning goes on slowly, towards 1.

n        demonstrations before the query ("shots"), n >= 0
floor    probability of the right answer without recognition and learning, in (0, 1)
pi_h     belief in hypothesis h before the first demonstration, in (0, 1), sums to 1 with the rest
gamma_h  probability of h's examples, by recognition, under h itself, in (0, 1)
beta_h   the same under any other hypothesis, in (0, gamma_h)
K        efficiency: how much evidence one demonstration counts for, > 0
n_l      demonstrations before learning shows, > 0
a        exponent of learning, > 0

pi and K belong to the study, the others to its curves.

Priors
pi, gamma, beta and K as in the scoring-wise law (scoring.py): pi Dirichlet(1/2),
gamma Uniform(0, 1), beta gamma Beta(1/2, 1), K LogNormal(-1, 2).
floor  Beta(1/2, 1): log(1 / floor) is exponential with mean 2 nats, as log(gamma / beta).
n_l    LogNormal(log 100, 2): 90 % between 3.7 and 2700 demonstrations; learning takes longer than
       recognition.
a      LogNormal(log 1/2, 1): 90 % between .10 and 2.6, as the power law's exponent.

Source: Pan et al. (2023), arXiv 2305.09731; Panickssery (2024), "Deconfusing in-context learning".
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from bayesicl.models import general, scoring
from jax.nn import log_sigmoid

from bayesicl.coordinates import longest, shortened, start_and_rate
from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses


def curve(shots, floor, pi, gamma, beta, K, n_l, a):
    """Log p; pi is the belief in the generating hypothesis. All arguments broadcast."""
    return _either(shots, scoring.curve(shots, pi, gamma, beta, K), floor, n_l, a)


def _either(shots, log_r, floor, n_l, a):
    """Log p from log r, as a sum of positive terms."""
    r, learned = jnp.exp(log_r), -jnp.expm1(-a * jnp.log1p(shots / n_l))
    return jnp.log(floor + (1.0 - floor) * (r + (1.0 - r) * learned))


def model(design: Design):
    """Sample all parameters; return log p of each cell."""
    pi, P, K = scoring.sample(design)
    with hypotheses(design):
        floor = numpyro.sample("floor", dist.Beta(0.5, 1.0))
        n_l = numpyro.sample("n_l", dist.LogNormal(jnp.log(100.0), 2.0))
        a = numpyro.sample("a", dist.LogNormal(jnp.log(0.5), 1.0))
    general.report(design, pi, P, K, endless=False)
    log_r = general.curve(design.shots, pi, design.per_cell(P), K)
    return _either(design.shots, log_r, *map(design.per_cell, (floor, n_l, a)))


def coordinates(design: Design, w):
    """Those of the scoring-wise law, of the value at 0 shots, floor included; and what is learned.

    With p(0) = sigmoid(u) and the coordinates u, m, t in the places of gamma, floor and a,
    floor = p(0) sigmoid(m), and (1 + N / n_l)^-a = exp(-exp(t)), N the longest shots. The map
    from (u, m) to the log-odds of r(0) and floor has determinant 1.
    """
    m, log_slope = shortened(w["floor"])
    z, log_det = start_and_rate(design, {**w, "gamma": w["gamma"] + log_sigmoid(-m)})
    log_floor = log_sigmoid(w["gamma"]) + log_sigmoid(m)
    z["floor"] = log_floor - jnp.log(-jnp.expm1(log_floor))
    z["a"] = w["a"] - jnp.log(jnp.log1p(longest(design) * jnp.exp(-w["n_l"])))
    return z, log_det + jnp.sum(log_slope)


law = Law(
    "recognition",
    curve,
    model,
    reference="Pan et al. 2023, arXiv 2305.09731; Panickssery 2024",
    formula="p_h(n) = floor + (1 - floor) (1 - (1 - r_h(n)) (1 - l(n)))",
    coordinates=coordinates,
)
