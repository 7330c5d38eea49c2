"""A side on NumPyro's model that is compiled once, a function of key and data.

Each chain is one call of that function; chains use all cores as threads, since compiled code leaves
Python free.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from rivals import numpyro_model
from rivals.problem import NAMES, STATS, Curve, Draws, Settings


class Once:
    """One compiled function for all curves."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """Compile."""
        jax.config.update("jax_enable_x64", True)
        self.settings, self.curves = settings, curves
        example = (jax.random.key(0), numpyro_model.arguments(curves[0]))
        self.compiled = jax.jit(self.chain).lower(*example).compile()

    def chain(self, key: jax.Array, data: tuple) -> tuple[dict[str, jax.Array], tuple]:
        """One chain: natural parameters by name, and STATS in their order, (draws,) each."""
        raise NotImplementedError

    def sample(self, i: int) -> Draws:
        """Run the chains on all cores."""
        data = numpyro_model.arguments(self.curves[i])
        keys = jax.random.split(jax.random.key(self.settings.seed + i), self.settings.chains)
        run = lambda key: jax.tree.map(np.asarray, self.compiled(key, data))  # noqa: E731
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(run, keys))
        values, stats = jax.tree.map(lambda *xs: np.stack(xs), *results)
        return Draws({name: values[name] for name in NAMES}, dict(zip(STATS, stats, strict=True)))

    def log_density(self, i: int, u: np.ndarray) -> list[float]:
        """Minus NumPyro's potential."""
        return numpyro_model.log_densities(self.curves[i], u)
