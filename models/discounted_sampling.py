"""Discounted sampling-wise Bayesian law: the miss belongs to the hypothesis that scores.

    p_h(n) = sum_m pi_m P_hm^(K e + 1) / sum_m pi_m P_hm^(K e),    e = n^(1 - discount),
    P_hm = gamma_h if m = h, else beta_m

The sampling-wise law, but of n demonstrations only n^(1 - discount) count as evidence: the later a
demonstration, the less it adds. With discount = 0 it is the sampling-wise law.

n         demonstrations before the query ("shots"), n >= 0
e         demonstrations that count as evidence
discount  how much less each further demonstration counts, in (0, 1)
pi_m      belief in hypothesis m before the first demonstration, in (0, 1), sums to 1
gamma_h   probability of h's examples under h itself: the curve's ceiling, in (0, 1)
beta_m    probability under m of examples that others generated, in (0, gamma_h) for all h != m
K         efficiency: how much evidence the first demonstration counts for, > 0

Priors
discount  Uniform(0, 1): from the paper's law to evidence that grows as the logarithm of n.
pi, gamma, beta and K as in the sampling-wise law (sampling.py): pi Dirichlet(1/2),
gamma Uniform(0, 1), beta_m Beta(1/2, 1) times the least gamma_h of the others, K LogNormal(-1, 2).

Source: the law, Arora et al. (2024), arXiv 2410.16531; the discount, Wurgaft et al. (2025), arXiv
2506.17859, and Bigelow et al. (2025), arXiv 2511.00617.
"""

from bayesicl.models import sampling

from bayesicl.coordinates import of_discounted
from bayesicl.law import Design, Law
from bayesicl.priors import discounted, evidence, sample_discount


def curve(shots, hypothesis, pi, gamma, beta, K, discount):
    """Log p; arguments as of the sampling-wise law, and discount."""
    return sampling.curve(evidence(shots, discount), hypothesis, pi, gamma, beta, K)


def model(design: Design):
    """Sample the discount and the sampling-wise law's parameters; return log p of each cell."""
    return sampling.model(discounted(design, sample_discount()))


law = Law(
    "discounted_sampling",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531; Bigelow et al. 2025, arXiv 2511.00617",
    formula="p_h(n) = sum_m pi_m P_hm^(K e + 1) / sum_m pi_m P_hm^(K e), e = n^(1 - discount)",
    coordinates=of_discounted(sampling.law.coordinates),
)
