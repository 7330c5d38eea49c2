"""NumPyro at its kindest: MCMC inside one compiled function that takes the data as arguments.

Chains use all cores as threads: see `once`. NumPyro's own way, `MCMC(jit_model_args=True)`, takes
no effect for parallel chains.
"""

import jax
from numpyro.infer import MCMC, NUTS

from rivals import numpyro_model
from rivals.once import Once


class Side(Once):
    """One compiled function for all curves."""

    def chain(self, key: jax.Array, data: tuple) -> tuple[dict[str, jax.Array], tuple]:
        """Warm up and draw."""
        s = self.settings
        kernel = NUTS(numpyro_model.model, target_accept_prob=s.target_accept, dense_mass=s.dense)
        mcmc = MCMC(kernel, num_warmup=s.warmup, num_samples=s.draws, progress_bar=False)
        mcmc.run(key, *data, extra_fields=("diverging", "num_steps", "energy"))
        stats = mcmc.get_extra_fields()
        return mcmc.get_samples(), (stats["diverging"], stats["num_steps"], stats["energy"])
