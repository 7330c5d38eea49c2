"""NumPyro as most use it: a new MCMC object for each data set, so that each compiles again.

Chains run in parallel on as many host devices as there are chains.
"""

import jax
import numpy as np
import numpyro
from numpyro.infer import MCMC, NUTS

from rivals import numpyro_model
from rivals.problem import NAMES, Curve, Draws, Settings

STATS = ("diverging", "num_steps", "energy")


class Side:
    """Nothing is kept from curve to curve."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """Let JAX see a device for each chain."""
        numpyro.set_host_device_count(settings.chains)
        jax.config.update("jax_enable_x64", True)
        self.settings, self.curves = settings, curves

    def sample(self, i: int) -> Draws:
        """Compile and sample."""
        s = self.settings
        kernel = NUTS(numpyro_model.model, target_accept_prob=s.target_accept, dense_mass=s.dense)
        mcmc = MCMC(
            kernel, num_warmup=s.warmup, num_samples=s.draws, num_chains=s.chains,
            chain_method="parallel", progress_bar=False,
        )  # fmt: skip
        data = numpyro_model.arguments(self.curves[i])
        mcmc.run(jax.random.key(s.seed + i), *data, extra_fields=STATS)
        values = mcmc.get_samples(group_by_chain=True)
        stats = mcmc.get_extra_fields(group_by_chain=True)
        diverging, n_steps, energy = (np.asarray(stats[name]) for name in STATS)
        return Draws(
            {name: np.asarray(values[name]) for name in NAMES},
            {"diverging": diverging, "n_steps": n_steps, "energy": energy},
        )

    def log_density(self, i: int, u: np.ndarray) -> list[float]:
        """Minus NumPyro's potential."""
        return numpyro_model.log_densities(self.curves[i], u)
