"""blackjax: window adaptation and NUTS on NumPyro's potential, compiled once with data as argument.

Chains use all cores as threads, since compiled code leaves Python free.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.base import get_filter_adapt_info_fn

from rivals import numpyro_model
from rivals.problem import NAMES, Curve, Draws, Settings


class Side:
    """One compiled function for all curves."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """Compile."""
        jax.config.update("jax_enable_x64", True)
        self.settings, self.curves = settings, curves

        def chain(key, data):
            log_density = lambda u: numpyro_model.log_density(u, data)  # noqa: E731
            key_start, key_warm, key_draw = jax.random.split(key, 3)
            start = jax.random.uniform(key_start, (len(NAMES),), minval=-2.0, maxval=2.0)
            adaptation = blackjax.window_adaptation(
                blackjax.nuts,
                log_density,
                is_mass_matrix_diagonal=not settings.dense,
                target_acceptance_rate=settings.target_accept,
                adaptation_info_fn=get_filter_adapt_info_fn(),
            )
            (state, adapted), _ = adaptation.run(key_warm, start, settings.warmup)
            step = blackjax.nuts(log_density, **adapted).step

            def one(state, key):
                state, info = step(key, state)
                stats = (info.is_divergent, info.num_integration_steps, info.energy)
                return state, (state.position, stats)

            keys = jax.random.split(key_draw, settings.draws)
            _, (u, stats) = jax.lax.scan(one, state, keys)
            return numpyro_model.natural(u), stats

        example = (jax.random.key(0), numpyro_model.arguments(curves[0]))
        self.chain = jax.jit(chain).lower(*example).compile()

    def sample(self, i: int) -> Draws:
        """Run the chains on all cores."""
        data = numpyro_model.arguments(self.curves[i])
        keys = jax.random.split(jax.random.key(self.settings.seed + i), self.settings.chains)
        run = lambda key: jax.tree.map(np.asarray, self.chain(key, data))  # noqa: E731
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(run, keys))
        values, (diverging, n_steps, energy) = jax.tree.map(lambda *xs: np.stack(xs), *results)
        return Draws(values, {"diverging": diverging, "n_steps": n_steps, "energy": energy})

    def log_density(self, i: int, u: np.ndarray) -> list[float]:
        """The function that is compiled above."""
        data = numpyro_model.arguments(self.curves[i])
        return [float(numpyro_model.log_density(jnp.asarray(x), data)) for x in u]
