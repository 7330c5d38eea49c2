"""Discounted scoring-wise Bayesian law: the miss belongs to the hypothesis that generates.

    p_h(n) = sum_m pi_m P_hm^(K e + 1) / sum_m pi_m P_hm^(K e),    e = n^(1 - discount),
    P_hm = gamma_h if m = h, else beta_h

The scoring-wise law, but of n demonstrations only n^(1 - discount) count as evidence: the later a
demonstration, the less it adds. With discount = 0 it is the scoring-wise law.

n         demonstrations before the query ("shots"), n >= 0
e         demonstrations that count as evidence
discount  how much less each further demonstration counts, in (0, 1)
pi_h      belief in hypothesis h before the first demonstration, in (0, 1), sums to 1 with the rest
gamma_h   probability of h's examples under h itself: the curve's ceiling, in (0, 1)
beta_h    probability of h's examples under any other hypothesis: its floor, in (0, gamma_h)
K         efficiency: how much evidence the first demonstration counts for, > 0

Priors
discount  Uniform(0, 1): from the paper's law to evidence that grows as the logarithm of n.
pi, gamma, beta and K as in the scoring-wise law (scoring.py): pi Dirichlet(1/2),
gamma Uniform(0, 1), beta gamma Beta(1/2, 1), K LogNormal(-1, 2).

Source: the law, Arora et al. (2024), arXiv 2410.16531; the discount, Wurgaft et al. (2025), arXiv
2506.17859, and Bigelow et al. (2025), arXiv 2511.00617.
"""

from bayesicl.models import scoring

from bayesicl.coordinates import of_discounted
from bayesicl.law import Design, Law
from bayesicl.priors import discounted, evidence, sample_discount


def curve(shots, pi, gamma, beta, K, discount):
    """Log p; arguments as of the scoring-wise law, and discount."""
    return scoring.curve(evidence(shots, discount), pi, gamma, beta, K)


def model(design: Design):
    """Sample the discount and the scoring-wise law's parameters; return log p of each cell."""
    return scoring.model(discounted(design, sample_discount()))


law = Law(
    "discounted_scoring",
    curve,
    model,
    reference="Arora et al. 2024, arXiv 2410.16531; Bigelow et al. 2025, arXiv 2511.00617",
    formula="p_h(n) = sum_m pi_m P_hm^(K e + 1) / sum_m pi_m P_hm^(K e), e = n^(1 - discount)",
    coordinates=of_discounted(scoring.law.coordinates),
)
