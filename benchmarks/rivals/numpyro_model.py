"""The posterior as a NumPyro user writes it; three sides sample it."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid
from numpyro.infer.util import potential_energy

from rivals.problem import EPS, LEAST_SCATTER, NAMES, Curve


def model(shots, correct, total):
    """Natural parameters; counts are given."""
    pi = numpyro.sample("pi", dist.Beta(0.5, 0.5))
    gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.0))
    ratio = numpyro.sample("ratio", dist.Beta(0.5, 1.0))
    beta = numpyro.deterministic("beta", gamma * ratio)
    K = numpyro.sample("K", dist.LogNormal(-1.0, 2.0))
    scatter = numpyro.sample("scatter", dist.Beta(1.0, 9.0))
    belief = sigmoid(jnp.log(pi) - jnp.log1p(-pi) - K * shots * jnp.log(ratio))
    p = jnp.clip(beta + (gamma - beta) * belief, EPS, 1.0)
    q = jnp.clip((1.0 - beta) - (gamma - beta) * belief, EPS, 1.0)
    c = 1.0 / jnp.maximum(scatter, LEAST_SCATTER) ** 2 - 1.0
    numpyro.sample("correct", dist.BetaBinomial(p * c, q * c, total_count=total), obs=correct)


def arguments(curve: Curve) -> tuple[jax.Array, ...]:
    """The model's arguments."""
    return tuple(jnp.asarray(x, float) for x in curve)


def log_density(u: jax.Array, data: tuple) -> jax.Array:
    """At a point of the unconstrained space: ()."""
    names = ("pi", "gamma", "ratio", "K", "scatter")
    return -potential_energy(model, data, {}, dict(zip(names, u, strict=True)))


def natural(u: jax.Array) -> dict[str, jax.Array]:
    """From the unconstrained space, (..., 5)."""
    pi, gamma, ratio, scatter = (sigmoid(u[..., i]) for i in (0, 1, 2, 4))
    return dict(zip(NAMES, (pi, gamma, gamma * ratio, jnp.exp(u[..., 3]), scatter), strict=True))


def log_densities(curve: Curve, u) -> list[float]:
    """At each point, (n, 5)."""
    return [float(log_density(jnp.asarray(x), arguments(curve))) for x in u]
