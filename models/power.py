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

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import log_sigmoid

from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses


def curve(shots, C, alpha, L):
    """Log p; all arguments broadcast."""
    return -C * (shots + 1.0) ** -alpha - L


def model(design: Design):
    """Sample C, alpha and L; return log p of each cell."""
    with hypotheses(design):
        C = numpyro.sample("C", dist.Exponential(0.5))
        alpha = numpyro.sample("alpha", dist.LogNormal(jnp.log(0.5), 1.0))
        L = numpyro.sample("L", dist.Exponential(1.0))
        numpyro.deterministic("ceiling", jnp.exp(-L))
    h = design.hypothesis
    return curve(design.shots, C[h], alpha[h], L[h])


def coordinates(design: Design, w):
    """Value at the last shots, its ratio to the start, and what of that ratio is due to alpha.

    With e, b and s real numbers, y(n) = -log p(n), N the longest shots of the design and
    a = (N + 1)^-alpha, the share of C that is left there:

        log y(N) = e,   q = y(N)/y(0) = sigmoid(b),   a = q sigmoid(s),   L/y(0) = (q - a)/(1 - a)
    """
    e, b, s = w["C"], w["L"], w["alpha"]
    N = jax.ops.segment_max(design.shots, design.hypothesis, design.n_hypotheses)
    span = jnp.log1p(jnp.maximum(N, 1.0))
    log_a = log_sigmoid(b) + log_sigmoid(s)
    log_not_a = jnp.log(-jnp.expm1(log_a))
    start = e - log_sigmoid(b)
    f = b + log_sigmoid(-s)  # log-odds of L/y(0)
    z = {
        **w,
        "alpha": jnp.log(-log_a / span),
        "C": start + log_sigmoid(-f),
        "L": start + log_sigmoid(f),
    }
    # (b, s) to the log-odds of (a, L/y(0)) has determinant 1; so has the rest but log alpha.
    return z, jnp.sum(log_not_a - jnp.log(-log_a))


law = Law(
    "power",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531; Anil et al. 2024",
    formula="-log p(n) = C (n + 1)^-alpha + L",
    coordinates=coordinates,
)
