"""NumPyro at its kindest: MCMC inside one compiled function that takes the data as arguments.

Each chain is one call of that function; chains use all cores as threads, since compiled code leaves
Python free. NumPyro's own way, `MCMC(jit_model_args=True)`, takes no effect for parallel chains.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS

from rivals import numpyro_model
from rivals.problem import NAMES, Curve, Draws, Settings

STATS = ("diverging", "num_steps", "energy")


class Side:
    """One compiled function for all curves."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """Compile."""
        jax.config.update("jax_enable_x64", True)
        self.settings, self.curves = settings, curves
        s = settings

        def chain(key, data):
            kernel = NUTS(
                numpyro_model.model, target_accept_prob=s.target_accept, dense_mass=s.dense
            )
            mcmc = MCMC(kernel, num_warmup=s.warmup, num_samples=s.draws, progress_bar=False)
            mcmc.run(key, *data, extra_fields=STATS)
            return mcmc.get_samples(), mcmc.get_extra_fields()

        example = (jax.random.key(0), numpyro_model.arguments(curves[0]))
        self.chain = jax.jit(chain).lower(*example).compile()

    def sample(self, i: int) -> Draws:
        """Run the chains on all cores."""
        data = numpyro_model.arguments(self.curves[i])
        keys = jax.random.split(jax.random.key(self.settings.seed + i), self.settings.chains)
        run = lambda key: jax.tree.map(np.asarray, self.chain(key, data))  # noqa: E731
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(run, keys))
        values, stats = jax.tree.map(lambda *xs: np.stack(xs), *results)
        diverging, n_steps, energy = (stats[name] for name in STATS)
        return Draws(
            {name: values[name] for name in NAMES},
            {"diverging": diverging, "n_steps": n_steps, "energy": energy},
        )

    def log_density(self, i: int, u: np.ndarray) -> list[float]:
        """Minus NumPyro's potential."""
        return numpyro_model.log_densities(self.curves[i], u)
