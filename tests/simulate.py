"""What several test files share: a law of two parameters, its exact posterior, engines kept.

Plain functions and one fixture.
"""

from importlib import import_module

import numpy as np
import pytest
from scipy import stats

from bayesicl.engine import Engine

STRAIGHT = '''"""From one probability to another: p(n) = a + (b - a) n / (n + 5); priors Beta(2, 2).

It may fall, has no coordinates of its own and compiles fast.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Law
from bayesicl.priors import hypotheses


def curve(shots, a, b):
    return jnp.log(a + (b - a) * shots / (shots + 5.0))


def model(design):
    with hypotheses(design):
        a = numpyro.sample("a", dist.Beta(2.0, 2.0))
        b = numpyro.sample("b", dist.Beta(2.0, 2.0))
    h = design.hypothesis
    return curve(design.shots, a[h], b[h])


law = Law("straight", curve, model, reference="made for the tests", monotone=False)
'''


class Grid:
    """The posterior of STRAIGHT on a grid, for one curve with given standard errors."""

    def __init__(self, shots, y, se, size: int = 400):
        mid = (np.arange(size) + 0.5) / size
        self.a, self.b = np.meshgrid(mid, mid, indexing="ij")
        self.shots, self.y, self.se = (np.asarray(x, float) for x in (shots, y, se))
        self.log_prior = stats.beta.logpdf(self.a, 2, 2) + stats.beta.logpdf(self.b, 2, 2)
        self.cells = stats.norm.logpdf(self.y, self.p(self.shots), self.se)  # (size, size, cells)

    def p(self, shots) -> np.ndarray:
        """The curve at every point of the grid: (size, size, shots)."""
        share = np.asarray(shots, float) / (np.asarray(shots, float) + 5)
        return self.a[..., None] + (self.b - self.a)[..., None] * share

    def weights(self, without: int | None = None) -> np.ndarray:
        """The posterior, summing to 1; without one of the cells where told."""
        kept = np.arange(self.y.size) != (-1 if without is None else without)
        log = self.log_prior + self.cells[..., kept].sum(-1)
        w = np.exp(log - log.max())
        return w / w.sum()

    def mean(self, f: np.ndarray, without: int | None = None) -> float:
        """Posterior mean of something known at every point of the grid."""
        return float((self.weights(without) * f).sum())

    def sd(self, f: np.ndarray) -> float:
        """Posterior standard deviation of it."""
        return float(np.sqrt(self.mean(f**2) - self.mean(f) ** 2))

    def left_out(self) -> np.ndarray:
        """Log predictive density of each cell given the others, exactly."""
        return np.array(
            [np.log(self.mean(np.exp(self.cells[..., i]), i)) for i in range(self.y.size)]
        )


@pytest.fixture(scope="module", autouse=True)
def reuse_engines():
    """Within a module programs are compiled once: compiling takes longer than running here.

    An engine keeps nothing from run to run but what it compiled.
    """
    engines = {}

    def engine(law, noise, settings, *, device="cpu"):
        key = (law.name, law.source_hash, law.coordinates, noise.name, settings, device)
        if key not in engines:
            engines[key] = Engine(law, noise, settings, device=device)
        return engines[key]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("bayesicl.fit", "bayesicl.restore", "bayesicl.calibrate"):
            patch.setattr(import_module(name), "Engine", engine)
        yield
