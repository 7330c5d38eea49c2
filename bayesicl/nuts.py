"""One chain: where it starts, NumPyro's NUTS, and jumps between modes.

Pure functions of a potential, meant to be compiled; `engine` compiles and runs them.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo
from scipy.cluster.vq import kmeans2

Potential = Callable[[Mapping], jax.Array]

N_STARTS = 32  # random points of which each chain takes the best
N_DESCENT = 150  # optimiser steps from there
CHUNK = 500  # steps in one call of the compiled sampler
FREEDOM = 5.0  # of the Student t from which jumps are proposed
N_COMPONENTS = 8  # of the mixture of them: enough for a few modes and a bent ridge between


class Mixture(NamedTuple):
    """Where jumps go: Student t components in flattened sampling coordinates.

    log_weight: (n,). mean: (n, d). chol: (n, d, d), Cholesky factor of the scale.
    """

    log_weight: Any
    mean: Any
    chol: Any


def start_point(key: jax.Array, potential: Potential, shapes: Mapping[str, tuple]) -> ParamInfo:
    """The best of random points, then a short descent (Adam): where a chain begins."""
    slope = jax.value_and_grad(potential)

    def random_point(i):
        keys = random.split(random.fold_in(key, i), len(shapes))
        return {
            name: random.uniform(k, shape, minval=-3.0, maxval=3.0)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    # One loop for search and descent, so that the potential is compiled once.
    def step(i, carry):
        v, best, m, s = carry
        energy, g = slope(v)
        g = jax.tree.map(lambda x: jnp.nan_to_num(x, posinf=0.0, neginf=0.0), g)
        better = energy < best.potential_energy
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), ParamInfo(v, energy, g), best)
        searching = i < N_STARTS
        t = jnp.maximum(i - N_STARTS + 1, 1)
        g = jax.tree.map(lambda x: jnp.where(searching, 0.0, x), g)
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        s = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b * b, s, g)
        size = 0.1 * jnp.sqrt(1 - 0.99**t) / (1 - 0.9**t)
        down = jax.tree.map(lambda x, a, b: x - size * a / (jnp.sqrt(b) + 1e-8), v, m, s)
        where = [i < N_STARTS - 1, i == N_STARTS - 1]
        v = jax.tree.map(
            lambda new, top, low: jnp.select(where, [new, top], low),
            random_point(i + 1), best.z, down,
        )  # fmt: skip
        return v, best, m, s

    v = random_point(0)
    zero = jax.tree.map(jnp.zeros_like, v)
    best = ParamInfo(v, jnp.asarray(jnp.inf), zero)
    return lax.fori_loop(0, N_STARTS + N_DESCENT, step, (v, best, zero, zero))[1]


def kernel(
    key: jax.Array,
    point: ParamInfo,
    potential: Potential,
    *,
    warmup: int,
    target_accept,
    max_tree_depth: int,
    step_size=1.0,
    inverse_mass=None,
) -> tuple[Any, Callable]:
    """NumPyro's NUTS with a dense mass matrix: state before the first step, and the step."""
    init, step = hmc(potential)
    state = init(
        point,
        warmup,
        step_size=step_size,
        inverse_mass_matrix=inverse_mass,
        dense_mass=True,
        target_accept_prob=target_accept,
        max_tree_depth=max_tree_depth,
        trajectory_length=None,  # pyright: ignore[reportArgumentType] (NUTS has none)
        rng_key=key,
    )
    return state, step


def point_of(state) -> ParamInfo:
    """Where a chain stands, with energy and gradient."""
    return ParamInfo(state.z, state.potential_energy, state.z_grad)


def advance(step: Callable, state, n) -> tuple[Any, tuple[Any, dict[str, jax.Array]]]:
    """`n` <= CHUNK steps: the last state, and what every step drew, in arrays of CHUNK."""

    def one(i, carry):
        s, kept = carry
        s = step(s)
        return s, jax.tree.map(lambda k, x: k.at[i].set(x), kept, _record(s))

    empty = lambda x: jnp.zeros((CHUNK, *jnp.shape(x)), jnp.result_type(x))  # noqa: E731
    return lax.fori_loop(0, n, one, (state, jax.tree.map(empty, _record(state))))


def _record(state) -> tuple[Any, dict[str, jax.Array]]:
    return state.z, {
        "lp": -state.potential_energy,
        "energy": state.energy,
        "diverging": state.diverging,
        "n_steps": state.num_steps,
        "acceptance_rate": state.accept_prob,
        "step_size": state.adapt_state.step_size,
    }


def with_jumps(step: Callable, potential: Potential, mixture: Mixture) -> Callable:
    """Follow every step by a Metropolis proposal drawn from `mixture`, wherever the chain is.

    NUTS does not cross from one mode to another; an independence proposal does (Tierney 1994,
    "Markov chains for exploring posterior distributions"). The mixture is fixed beforehand, so
    the posterior stays the chain's equilibrium.
    """
    d = jnp.shape(mixture.mean)[1]

    def log_density(x):  # up to a constant
        def one(mean, chol):
            z = solve_triangular(chol, x - mean, lower=True)
            log_det = jnp.sum(jnp.log(jnp.diagonal(chol)))
            return -0.5 * (FREEDOM + d) * jnp.log1p(jnp.sum(z**2) / FREEDOM) - log_det

        return logsumexp(mixture.log_weight + jax.vmap(one)(mixture.mean, mixture.chol))

    def jump(state):
        key, k_which, k_z, k_t, k_accept = random.split(state.rng_key, 5)
        which = random.categorical(k_which, mixture.log_weight)
        scale = jnp.sqrt(FREEDOM / (2.0 * random.gamma(k_t, 0.5 * FREEDOM)))
        x = mixture.mean[which] + mixture.chol[which] @ random.normal(k_z, (d,)) * scale
        here, unravel = ravel_pytree(state.z)
        z = unravel(x)
        energy, gradient = jax.value_and_grad(potential)(z)
        log_ratio = state.potential_energy - energy + log_density(here) - log_density(x)
        accept = jnp.log(random.uniform(k_accept)) < log_ratio
        new = state._replace(
            z=z, z_grad=gradient, potential_energy=energy,
            energy=state.energy - state.potential_energy + energy,
        )  # fmt: skip
        moved = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, state)
        return moved._replace(rng_key=key)

    return lambda state: jump(step(state))


def mixture_of(w: Mapping[str, np.ndarray], draws: int) -> Mixture:
    """Components fitted to the last `draws` draws of all chains: sites are (chains, draws, ...)."""
    leaves = [x[:, -draws:].reshape(x.shape[0] * draws, -1) for x in jax.tree.leaves(w)]
    points = np.concatenate(leaves, axis=-1)
    d = points.shape[1]
    whole = np.cov(points.T).reshape(d, d) + 1e-9 * np.eye(d)
    white = np.linalg.solve(np.linalg.cholesky(whole), points.T).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster is dealt with below
        _, cluster = kmeans2(white, N_COMPONENTS, minit="++", rng=np.random.default_rng(0))
    weight, mean, chol = [], [], []
    for k in np.unique(cluster):
        own = points[cluster == k]
        # A small cluster's covariance leans on that of all draws, scaled to a cluster's size.
        scatter = (own - own.mean(0)).T @ (own - own.mean(0))
        scale = (scatter + d * whole / N_COMPONENTS) / (len(own) + d)
        weight.append(0.5 * len(own) / len(points) + 0.5 / N_COMPONENTS)
        mean.append(own.mean(0))
        chol.append(np.linalg.cholesky(scale))
    # A cluster that came out empty leaves its place to a copy: shapes stay those compiled.
    fill = np.resize(np.arange(len(weight)), N_COMPONENTS)
    weight = np.array(weight)[fill]
    return Mixture(np.log(weight / weight.sum()), np.array(mean)[fill], np.array(chol)[fill])
