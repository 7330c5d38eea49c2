"""Context limit: the discounted scoring-wise law, whose gain is lost beyond the trained context.

    p_h(n) = q_h(0) + (q_h(n) - q_h(0)) sigmoid(s (n_ctx - n)) / sigmoid(s n_ctx),
    q_h(n) = sum_m pi_m P_hm^(K e + 1) / sum_m pi_m P_hm^(K e),    e = n^(1 - discount),
    P_hm = gamma_h if m = h, else beta_h

This curve may fall: it rises as q_h does and goes back to q_h(0), about n = n_ctx.

n         demonstrations before the query ("shots"), n >= 0
e         demonstrations that count as evidence
discount  how much less each further demonstration counts, in (0, 1)
pi_h      belief in hypothesis h before the first demonstration, in (0, 1), sums to 1 with the rest
gamma_h   probability of h's examples under h itself: the ceiling of q_h, in (0, 1)
beta_h    probability of h's examples under any other hypothesis: its floor, in (0, gamma_h)
K         efficiency: how much evidence the first demonstration counts for, > 0
n_ctx     demonstrations that the context holds: half of the gain is lost, > 0
s         how sharply it is lost, in nats a demonstration, > 0

Priors
discount, pi, gamma, beta and K as in the discounted scoring-wise law (discounted_scoring.py):
discount Uniform(0, 1), pi Dirichlet(1/2), gamma Uniform(0, 1), beta gamma Beta(1/2, 1),
K LogNormal(-1, 2).
n_ctx  LogNormal(log 100, 2): 90 % between 3.7 and 2700 demonstrations.
s      LogNormal(log(5 / n_ctx), 1): s n_ctx is 1 to 26 in 90 %; the loss is spread over as many
       demonstrations as fit, or over a small part of them.

Source: Montgomery et al. (2025), arXiv 2510.14919; the law of the gain, Arora et al. (2024), arXiv
2410.16531, and Bigelow et al. (2025), arXiv 2511.00617.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from bayesicl.models import discounted_scoring, general, scoring
from jax.nn import log_sigmoid

from bayesicl.law import Design, Law
from bayesicl.priors import discounted, sample_discount


def curve(shots, pi, gamma, beta, K, discount, n_ctx, s):
    """Log p; pi is the belief in the generating hypothesis. All arguments broadcast."""
    start = discounted_scoring.curve(jnp.zeros_like(shots), pi, gamma, beta, K, discount)
    log_q = discounted_scoring.curve(shots, pi, gamma, beta, K, discount)
    return _limited(shots, start, log_q, n_ctx, s)


def _limited(shots, start, log_q, n_ctx, s):
    """Log p from log q(0) and log q(n)."""
    kept = jnp.exp(log_sigmoid(s * (n_ctx - shots)) - log_sigmoid(s * n_ctx))
    return start + jnp.log1p(kept * jnp.expm1(log_q - start))


def model(design: Design):
    """Sample all parameters; return log p of each cell."""
    n_ctx = jnp.asarray(numpyro.sample("n_ctx", dist.LogNormal(jnp.log(100.0), 2.0)))
    s = numpyro.sample("s", dist.LogNormal(jnp.log(5.0) - jnp.log(n_ctx), 1.0))
    seen = discounted(design, sample_discount())
    pi, P, K = scoring.sample(design)
    general.report(seen, pi, P, K, endless=False)
    P = design.per_cell(P)
    start = general.curve(jnp.zeros_like(seen.shots), pi, P, K)
    return _limited(design.shots, start, general.curve(seen.shots, pi, P, K), n_ctx, s)


def coordinates(design: Design, w):
    """Those of the discounted scoring-wise law, and log(s n_ctx) in the place of log s."""
    z, log_det = discounted_scoring.law.coordinates(design, w)
    return {**z, "s": w["s"] - w["n_ctx"]}, log_det


law = Law(
    "context",
    curve,
    model,
    reference="Montgomery et al. 2025, arXiv 2510.14919",
    formula="p_h(n) = q_h(0) + (q_h(n) - q_h(0)) sigmoid(s (n_ctx - n)) / sigmoid(s n_ctx)",
    monotone=False,
    coordinates=coordinates,
)
