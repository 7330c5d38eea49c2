"""R-hat and effective sample sizes against those of ArviZ."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

from bayesicl.convergence import convergence


def chains(rng, phi, shape):
    """Autoregressive: (chains, draws, parameters)."""
    steps = rng.normal(size=shape)
    for t in range(1, shape[1]):
        steps[:, t] += phi * steps[:, t - 1]
    return steps


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # ArviZ on chains that stand
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.95, 0.999, -0.6])
@pytest.mark.parametrize("shape", [(4, 1000, 6), (4, 751, 6), (2, 100, 6), (3, 50, 6)])
def test_figures_are_those_of_arviz(phi, shape, rng):
    x = chains(rng, phi, shape)
    x[..., 1] = np.round(x[..., 1], 1)  # ties
    x[0, :, 2] += 1.0  # a chain apart
    x[1:, :, 3] = 0.0  # chains that never moved
    x[..., 4] = 2.0  # a constant
    x[0, 3, 5] = np.nan
    own = convergence(x)
    y = np.moveaxis(x, -1, 0)
    np.testing.assert_allclose(own.rhat, array_stats.rhat(y), rtol=1e-9)
    np.testing.assert_allclose(own.ess_bulk, array_stats.ess(y, method="bulk"), rtol=1e-9)
    tail = array_stats.ess(y, method="tail", prob=(0.05, 0.95))
    np.testing.assert_allclose(own.ess_tail, tail, rtol=1e-9)
    assert np.isnan(own.rhat[5])
    assert np.isnan(own.ess_bulk[5])
