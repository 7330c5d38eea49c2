"""The functions of `special` against SciPy and exact arithmetic, and what they are there for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, gammaln, polygamma

from bayesicl.device import on_device
from bayesicl.law import LAWS, TYINGS, load_law
from bayesicl.noises import kinds_of, load_noise
from bayesicl.posterior import Posterior
from bayesicl.simulate import KINDS, Layout, declared
from bayesicl.special import _log, log_rising

pytestmark = pytest.mark.usefixtures("x64")


def test_log_in_the_whole_range(rng):
    x = np.concatenate([np.exp(rng.uniform(-700, 700, 9999)), rng.uniform(0.5, 2, 9999), [1.0]])
    exact = np.log(x.astype(np.longdouble))
    np.testing.assert_allclose(jax.jit(_log)(x), exact.astype(float), rtol=4e-16, atol=0)


def test_log_of_almost_one(rng):
    x = np.exp(rng.uniform(-60, 60, 9999))
    np.testing.assert_allclose(jax.jit(lambda x: _log(1.0 + x, x))(x), np.log1p(x), rtol=5e-16)


@pytest.mark.parametrize(
    ("low", "high"), [(1e-12, 1e-6), (1e-6, 1), (1, 7.9), (7, 9), (8, 1e3), (1e3, 1e7)]
)
def test_log_rising_and_its_slope(rng, low, high):
    x = np.exp(rng.uniform(np.log(low), np.log(high), 2000))
    k = np.round(np.exp(rng.uniform(0, 6, 2000))) * (rng.random(2000) < 0.9)
    value, slope = jax.jit(lambda x: jax.jvp(lambda x: log_rising(x, k), (x,), (jnp.ones(2000),)))(
        x
    )
    # What SciPy loses in the difference of two large log-gammas.
    lost = 4e-16 * np.abs(gammaln(x + k))
    assert np.all(
        np.abs(value - (gammaln(x + k) - gammaln(x))) <= 1e-13 * np.abs(value) + lost + 1e-13
    )
    lost = 4e-16 * np.abs(digamma(x + k))
    assert np.all(
        np.abs(slope - (digamma(x + k) - digamma(x))) <= 1e-13 * np.abs(slope) + lost + 1e-13
    )
    assert np.all(np.abs(value[k == 0]) < 1e-17)
    bend = jax.vmap(jax.grad(jax.grad(log_rising)))(x, k)
    exact = polygamma(1, x + k) - polygamma(1, x)
    np.testing.assert_allclose(bend, exact, rtol=1e-7, atol=1e-12 * np.abs(polygamma(1, x)).max())


@pytest.mark.parametrize(
    ("name", "kind", "noise"),
    [(law, kinds_of(load_law(law).scale)[0], None) for law in LAWS if law not in TYINGS[1][1:]]
    + [("manyshot" if "nll" in kind else "power", kind, None) for kind in KINDS[1:]]
    + [("power", "replicated counts", "misfit")],
)
def test_gradients_hold_no_index_loops(name, kind, noise):
    """One gather or scatter, and XLA compiles a hundred functions in the place of one loop."""
    posterior = Posterior(load_law(name), load_noise(noise, kind))
    [study] = Layout(kind, hypotheses=3).curves()
    design, data = on_device(declared(study, 1))
    w = {k: jnp.zeros(shape) for k, shape in posterior.outline(design, data).shapes.items()}
    gradient = jax.jit(jax.grad(lambda design, data, w: posterior.potential(design, data, w), 2))
    level = {"xla_backend_optimization_level": 0}
    program = gradient.lower(design, data, w).compile(compiler_options=level).as_text()
    assert "fusion(" in program
    assert not re.findall(r" (?:gather|scatter|sort|while|custom-call)\(", program)
