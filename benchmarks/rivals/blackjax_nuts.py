"""blackjax: window adaptation and NUTS on NumPyro's potential, compiled once with data as argument.

Chains use all cores as threads: see `once`.
"""

import blackjax
import jax
from blackjax.adaptation.base import get_filter_adapt_info_fn

from rivals import numpyro_model
from rivals.once import Once
from rivals.problem import NAMES


class Side(Once):
    """One compiled function for all curves."""

    def chain(self, key: jax.Array, data: tuple) -> tuple[dict[str, jax.Array], tuple]:
        """Adapt and draw."""
        s = self.settings
        log_density = lambda u: numpyro_model.log_density(u, data)  # noqa: E731
        key_start, key_warm, key_draw = jax.random.split(key, 3)
        start = jax.random.uniform(key_start, (len(NAMES),), minval=-2.0, maxval=2.0)
        adaptation = blackjax.window_adaptation(
            blackjax.nuts,
            log_density,
            is_mass_matrix_diagonal=not s.dense,
            target_acceptance_rate=s.target_accept,
            adaptation_info_fn=get_filter_adapt_info_fn(),
        )
        (state, adapted), _ = adaptation.run(key_warm, start, s.warmup)
        step = blackjax.nuts(log_density, **adapted).step

        def one(state, key):
            state, info = step(key, state)
            stats = (info.is_divergent, info.num_integration_steps, info.energy)
            return state, (state.position, stats)

        keys = jax.random.split(key_draw, s.draws)
        _, (u, stats) = jax.lax.scan(one, state, keys)
        return numpyro_model.natural(u), stats
