"""Constant law: p(n) = p.

n  demonstrations before the query ("shots"), n >= 0
p  probability of the right answer, in (0, 1)

Each curve has its own parameter. The null: what no other law predicts better shows no learning.

Priors
p  Uniform(0, 1): any level.

Source: the null of every curve.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Design, Law
from bayesicl.priors import hypotheses


def curve(shots, p):
    """Log p; both arguments broadcast."""
    return jnp.log(p) + jnp.zeros_like(shots)


def model(design: Design):
    """Sample p; return log p of each cell."""
    with hypotheses(design):
        p = numpyro.sample("p", dist.Uniform(0.0, 1.0))
    return curve(design.shots, design.per_cell(p))


law = Law("constant", curve, model, reference="the null: no change with shots", formula="p(n) = p")
