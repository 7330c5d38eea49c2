"""The last measured value, carried forward.

The mean curve stays where the last cell was measured, of which Jeffreys' posterior says how well
that is known; new measurements are binomial.
"""

import numpy as np

from peers import Cells, binomial


def forecast(curve: Cells, ahead: Cells, rng: np.random.Generator, n_draws: int):
    """See `peers`."""
    right, total = curve.y[-1] * curve.total[-1], curve.total[-1]
    p = rng.beta(right + 0.5, total - right + 0.5, n_draws)
    mean = np.repeat(p[:, None], len(ahead.shots), axis=1)
    return binomial(mean, ahead, rng), mean
