"""The engine: programs compiled once for a law, a noise and a padded shape, run on all cores.

Every chain is one call of a compiled program that takes the data as an argument, so that a
thousand studies of one shape cost one compilation, and chains use all cores as plain threads.
A chain's draws depend on its key, its data and the padded shape alone.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from bayesicl import nuts
from bayesicl.device import on_device, precision
from bayesicl.errors import InputError
from bayesicl.law import Design, Law
from bayesicl.noise import Noise
from bayesicl.nuts import CHUNK, Mixture
from bayesicl.posterior import Posterior


@dataclass(frozen=True)
class Settings:
    """How to sample. chains, warmup, draws: counts; target_accept: in (0, 1)."""

    chains: int = 4
    warmup: int = 500
    draws: int = 1000
    target_accept: float = 0.95
    max_tree_depth: int = 10

    def __post_init__(self):
        """Raise InputError where a setting makes no sense."""
        for name in ("chains", "warmup", "draws"):
            if getattr(self, name) < (2 if name == "chains" else 50):
                raise InputError(
                    f"{name} must be at least {2 if name == 'chains' else 50}, "
                    f"got {getattr(self, name)}"
                )
        if not 0 < self.target_accept < 1:
            raise InputError(f"target_accept must lie in (0, 1), got {self.target_accept}")


class Chains(NamedTuple):
    """Draws of all chains: sites in sampling coordinates and statistics, (chains, draws, ...)."""

    w: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    states: list[Any]


class Engine:
    """Compiled programs of one law and noise, reused over studies.

    on_compile is called with a description before each compilation.
    """

    def __init__(
        self,
        law: Law,
        noise: Noise,
        settings: Settings,
        *,
        device: str = "cpu",
        on_compile: Callable[[str], None] = lambda what: None,
    ):
        """Compile nothing yet; see the class for the arguments."""
        self.law, self.noise, self.settings, self.device = law, noise, settings, device
        self.posterior = Posterior(law, noise)
        self.on_compile = on_compile
        self._compiled: dict[Any, Callable] = {}
        self._tracing = Lock()

    # -- draws of all chains ---------------------------------------------------------------

    def natural(self, chains: Chains, design: Design, data: Mapping) -> dict[str, np.ndarray]:
        """Natural parameters and deterministic values of all draws: (chains, draws, ...)."""
        one = self.posterior.natural
        return self._over_draws("natural parameters", one, chains.w, design, data)

    def describe(
        self, key: jax.Array, values: Mapping, design: Design, data: Mapping, *, seen: bool = True
    ) -> dict[str, Any]:
        """What follows from natural parameters, (chains, draws, ...) each.

        logp: of every cell. y: a new measurement of every cell (`Noise.draw`). log_likelihood: of
        every cell given the other fitted ones. log_prior: of every sampled site. by_cell: what the
        law records for every cell, such as the belief.
        """

        def one(design, data, drawn):
            return self.posterior.describe(design, data, *drawn)

        sites = self.posterior.sites(design, data)
        values = {n: values[n] for n, site in sites.items() if site["type"] == "sample"}
        shape = np.shape(next(iter(values.values())))[:2]
        drawn = (values, jax.random.split(key, shape), np.full(shape, seen))
        return self._over_draws("description", one, drawn, design, data)

    def prior(self, key: jax.Array, n: int, design: Design, data: Mapping) -> dict[str, np.ndarray]:
        """Draws of the prior: natural parameters and deterministic values, (1, n, ...)."""
        keys = jax.random.split(key, (1, n))
        return self._over_draws("prior", self.posterior.prior, keys, design, data)

    def _over_draws(self, name: str, one: Callable, drawn, design: Design, data: Mapping):
        """Map `one` over (chains, draws), CHUNK draws at a time: one compilation, little memory."""
        design, data = on_device(design, data)
        chains, draws = np.shape(jax.tree.leaves(drawn)[0])[:2]
        flat = jax.tree.map(lambda x: x.reshape(chains * draws, *x.shape[2:]), drawn)
        pieces = []
        for i in range(0, chains * draws, CHUNK):
            # The last piece is filled up with repeats, which are cut off again.
            take = np.minimum(np.arange(i, i + CHUNK), chains * draws - 1)
            piece = jax.tree.map(lambda x, take=take: jnp.asarray(x[take]), flat)
            run = self.compiled(name, jax.vmap(one, in_axes=(None, None, 0)), design, data, piece)
            pieces.append(jax.tree.map(np.asarray, run(design, data, piece)))
        join = lambda *xs: np.concatenate(xs)[: chains * draws]  # noqa: E731
        whole = jax.tree.map(join, *pieces)
        return jax.tree.map(lambda x: x.reshape(chains, draws, *x.shape[1:]), whole)

    # -- what is compiled --------------------------------------------------------------------

    def _kernel(self, key, point, design, data, target_accept=0.8, **more):
        return nuts.kernel(
            key,
            point,
            partial(self.posterior.potential, design, data),
            warmup=self.settings.warmup,
            target_accept=target_accept,
            max_tree_depth=self.settings.max_tree_depth,
            **more,
        )

    def _start(self, key, design, data):
        shapes = self.posterior.unconstrained_shapes(design, data)
        return nuts.start_point(key, partial(self.posterior.potential, design, data), shapes)

    def _begin(self, key, point, step_size, inverse_mass, design, data):
        adapted = {"step_size": step_size, "inverse_mass": inverse_mass}
        return self._kernel(key, point, design, data, **adapted)[0]

    def _advance(self, state, n, mixture, design, data, target_accept):
        # Only the closures of a fresh kernel are wanted: the state goes on where it was.
        point = nuts.point_of(state)
        _, step = self._kernel(state.rng_key, point, design, data, target_accept)
        if mixture is not None:
            step = nuts.with_jumps(step, partial(self.posterior.potential, design, data), mixture)
        return nuts.advance(step, state, n)

    def compiled(self, name: str, function: Callable, *args) -> Callable:
        """`function`, compiled for the shapes of these arguments; once each."""
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)
        key = (name, structure, shapes)
        if key not in self._compiled:
            self.on_compile(name)
            with self._tracing:  # NumPyro's handlers are one stack for all threads
                lowered = jax.jit(function).lower(*args)
            self._compiled[key] = lowered.compile()
        return self._compiled[key]

    # -- running -----------------------------------------------------------------------------

    def run(
        self,
        key: jax.Array,
        design: Design,
        data: Mapping,
        *,
        target_accept: float | None = None,
        warm_rounds: int = 1,
        after: Chains | None = None,
        mixture: Mixture | None = None,
    ) -> Chains:
        """Warm up and draw all chains; with `after`, warm up again from where those ended."""
        design, data = on_device(design, data)
        target = jnp.asarray(target_accept or self.settings.target_accept)
        keys = random.split(key, (self.settings.chains, 2))
        point = jax.eval_shape(self._start, keys[0, 0], design, data)
        n = sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(point.z))
        fresh = (jnp.asarray(1.0), jnp.eye(n))
        begun = (keys[0, 1], point, *fresh, design, data)
        state = jax.eval_shape(self._begin, *begun)
        start, begin, _ = self._threads(
            lambda compile: compile(),
            [
                lambda: self.compiled("start", self._start, keys[0, 0], design, data),
                lambda: self.compiled("begin", self._begin, *begun),
                lambda: self._sampler(state, mixture, design, data, target),
            ],
        )

        def chain(c: int):
            if after is None:
                point = start(keys[c, 0], design, data)
            else:
                point = nuts.point_of(after.states[c])
            rest = (mixture, design, data, target)
            state = begin(random.fold_in(keys[c, 1], 0), point, *fresh, design, data)
            state, _ = self._steps(state, self.settings.warmup, *rest)
            for again in range(1, warm_rounds):
                key, adapted = random.fold_in(keys[c, 1], again), state.adapt_state
                adaptation = (adapted.step_size, adapted.inverse_mass_matrix)
                state = begin(key, nuts.point_of(state), *adaptation, design, data)
                state, _ = self._steps(state, self.settings.warmup, *rest)
            return self._steps(state, self.settings.draws, *rest)

        return _gather(self._threads(chain, range(self.settings.chains)))

    def resume(self, chains: Chains, design: Design, data: Mapping) -> Chains:
        """The same chains, adapted as they are, standing in the posterior of other data."""
        design, data = on_device(design, data)

        def stand(state, design, data):
            energy_at = partial(self.posterior.potential, design, data)
            energy, slope = jax.value_and_grad(energy_at)(state.z)
            return state._replace(potential_energy=energy, z_grad=slope)

        stand = self.compiled("standing", stand, chains.states[0], design, data)
        return chains._replace(states=[stand(state, design, data) for state in chains.states])

    def extend(
        self, chains: Chains, design: Design, data: Mapping, *, mixture: Mixture | None = None
    ) -> Chains:
        """As many draws again from where the chains ended, joined to what they drew."""
        return _join(chains, self.go_on(chains, design, data, mixture=mixture))

    def go_on(
        self, chains: Chains, design: Design, data: Mapping, *, mixture: Mixture | None = None
    ) -> Chains:
        """As many draws again from where the chains ended, without adapting."""
        design, data = on_device(design, data)
        rest = (mixture, design, data, jnp.asarray(self.settings.target_accept))
        self._sampler(chains.states[0], *rest)  # compiled here, not once in every thread
        more = lambda state: self._steps(state, self.settings.draws, *rest)  # noqa: E731
        return _gather(self._threads(more, chains.states))

    def _sampler(self, state, mixture, design, data, target) -> Callable:
        args = (state, jnp.asarray(0), mixture, design, data, target)
        return self.compiled("sampler", self._advance, *args)

    def _steps(self, state, n: int, mixture, design, data, target):
        """Advance one chain by n steps, in chunks; its last state and the draws."""
        step = self._sampler(state, mixture, design, data, target)
        parts = []
        for done in range(0, n, CHUNK):
            size = min(CHUNK, n - done)
            args = (state, jnp.asarray(size), mixture, design, data, target)
            state, kept = jax.block_until_ready(step(*args))
            parts.append(jax.tree.map(lambda x, size=size: np.asarray(x[:size]), kept))
        return state, jax.tree.map(lambda *xs: np.concatenate(xs), *parts)

    def _threads(self, work: Callable, items: Sequence) -> list:
        """Map over items on all cores: compiled code and the compiler leave Python free."""

        def on_thread(item):
            with precision(self.device):  # JAX's settings belong to the thread
                return work(item)

        with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
            return list(pool.map(on_thread, items))


def _gather(results: list) -> Chains:
    w, stats = jax.tree.map(lambda *xs: np.stack(xs), *[kept for _, kept in results])
    return Chains(w, stats, [state for state, _ in results])


def _join(first: Chains, second: Chains) -> Chains:
    join = lambda a, b: np.concatenate([a, b], axis=1)  # noqa: E731
    w, stats = jax.tree.map(join, (first.w, first.stats), (second.w, second.stats))
    return Chains(w, stats, second.states)
