# %% [markdown]
# # A law of one's own
#
# A law is one file. Here is a flat line, the null that every learning curve should beat: written to
# disk, fitted by its path, and compared with the power law on simulated counts.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from bayesicl import Settings, compare, fit, read_curves

LAW = '''
"""Flat: -log p(n) = L. The null: demonstrations change nothing.

Priors: L ~ Exponential(1), so that exp(-L) is uniform on (0, 1).
"""
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl import Law
from bayesicl.priors import hypotheses


def curve(shots, L):
    return -L + 0.0 * shots


def model(design):
    with hypotheses(design):
        L = numpyro.sample("L", dist.Exponential(1.0))
        numpyro.deterministic("ceiling", jnp.exp(-L))
    return curve(design.shots, design.per_cell(L))


law = Law("flat", curve, model, reference="the null", formula="-log p(n) = L")
'''
path = Path(tempfile.mkdtemp()) / "flat.py"
path.write_text(LAW)

# %%
shots = np.array([0, 1, 2, 4, 8, 16])
p = 0.9 - 0.6 * (shots + 1.0) ** -0.7
correct = np.random.default_rng(0).binomial(200, p)
curves = read_curves(pd.DataFrame({"shots": shots, "correct": correct, "total": 200}))
fits = fit(curves, [path, "power"], settings=Settings(warmup=300, draws=500))

# %%
result = compare(fits)
print(result.table[["law", "elpd", "elpd_diff", "elpd_diff_se", "weight", "verdict"]])
print(result.verdict)
assert result.table["law"][0] == "power"
