"""The engine: programs compiled once for a law, a noise and a padded shape, run on all cores.

Every chain is one call of a compiled program that takes the data as an argument, so that a
thousand studies of one shape cost one compilation, and chains use all cores as plain threads.
A chain's draws depend on its key, its data and the padded shape alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from bayesicl import nuts, warmup
from bayesicl.device import on_device
from bayesicl.errors import InputError
from bayesicl.jumps import Mixture
from bayesicl.law import Design, Law
from bayesicl.noise import Noise
from bayesicl.nuts import CHUNK
from bayesicl.posterior import Posterior

WINDOWS = ((0.06, False), (0.08, False), (0.12, True), (0.24, True), (0.4, True), (0.1, True))
"""Of warm-up: shares, and whether the scale is taken of all chains' draws about one mean."""


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


class State(NamedTuple):
    """Where chains stand, and how they move. lanes: (1, chains). chol: (1, d, d)."""

    lanes: nuts.Lane
    chol: Any


class Chains(NamedTuple):
    """Draws of all chains: sites in sampling coordinates and statistics, (chains, draws, ...)."""

    w: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    state: State


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
        self._known_shapes: dict[Any, dict[str, tuple[int, ...]]] = {}
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

    def _gradient(self, design, data):
        """Potential and gradient at a flat q, and how to unravel q: {site: (shape, slice)}."""
        places, begin = {}, 0
        for name, shape in sorted(self._shapes(design, data).items()):
            size = int(np.prod(shape))
            places[name] = (shape, slice(begin, begin + size))
            begin += size

        def fn(study, q):
            w = {name: q[part].reshape(shape) for name, (shape, part) in places.items()}
            design, data = study
            return self.posterior.potential(design, data, w)

        return jax.value_and_grad(fn, argnums=1), places, begin

    def _shapes(self, design, data):
        key = _signature((design, data))
        if key not in self._known_shapes:
            with self._tracing:
                self._known_shapes[key] = self.posterior.unconstrained_shapes(design, data)
        return self._known_shapes[key]

    def compiled(self, name: str, function: Callable, *args) -> Callable:
        """`function`, compiled for the shapes of these arguments; once each."""
        key = (name, _signature(args))
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
        study = on_device(design, data)
        target = target_accept or self.settings.target_accept
        if after is None:
            lanes, chol = self._start(random.fold_in(key, 0), study)
        else:
            lanes, chol = after.state
        rest = (study, mixture)
        for again in range(warm_rounds):
            key_round = random.fold_in(key, 1 + again)
            for k, (share, pooled) in enumerate(WINDOWS):
                n = round(share * self.settings.warmup)
                keys = random.fold_in(key_round, k)
                lanes, record = self._advance(lanes, n, keys, chol, target, True, *rest)
                average = jnp.mean(lanes.step.log_average, axis=-1, keepdims=True)
                lanes = nuts.with_step(lanes, jnp.broadcast_to(average, lanes.i.shape))
                if k < len(WINDOWS) - 1:
                    q = record[0, :, n // 3 :, : chol.shape[-1]]
                    chol = warmup.scale_of_draws(q, pooled=pooled)[None]
        return self._draw(lanes, random.fold_in(key, 99), chol, *rest)

    def _draw(self, lanes, key, chol, study, mixture) -> Chains:
        parts = []
        for done in range(0, self.settings.draws, CHUNK):
            n = min(CHUNK, self.settings.draws - done)
            key_part = random.fold_in(key, done)
            lanes, record = self._advance(lanes, n, key_part, chol, 0.5, False, study, mixture)
            parts.append(record[0, :, :n])
        record = np.concatenate(parts, axis=1)
        _, places, d = self._gradient(*study)
        w = {
            name: record[..., part].reshape(*record.shape[:2], *shape)
            for name, (shape, part) in places.items()
        }
        columns = np.moveaxis(record[..., d:], -1, 0)
        stats = {name: columns[i] for i, name in enumerate(nuts.STATISTICS)}
        stats["diverging"] = stats["diverging"].astype(bool)
        stats["n_steps"] = stats["n_steps"].astype(int)
        return Chains(w, stats, State(lanes, chol))

    def _start(self, key, study):
        """Chains at their first points, and the scale to begin with."""
        fn, _, d = self._gradient(*study)

        def begin(keys, study):
            def one(key):
                k_start, k_lane = random.split(key)
                point, curvature = warmup.start(k_start, partial(fn, study), d)
                return nuts.stand(k_lane, point, self.settings.max_tree_depth), curvature

            return jax.vmap(one)(keys)

        keys = random.split(key, self.settings.chains)
        lanes, curvature = self.compiled("start", begin, keys, study)(keys, study)
        chol = warmup.scale_of_curvature(np.asarray(curvature))
        lanes = nuts.with_step(lanes, jnp.full(lanes.i.shape, np.log(0.5)))
        return jax.tree.map(lambda x: x[None], (lanes, chol))

    def _advance(self, lanes, n, key, chol, target, adapt, study, mixture):
        fn, _, _ = self._gradient(*study)
        chance = nuts.Chance(jnp.asarray(target), jnp.asarray(adapt))
        batch = jax.tree.map(lambda x: jnp.asarray(x)[None], (key, mixture, study))
        keys, mixture, data = batch
        args = (lanes, jnp.asarray(n, jnp.int32), keys, chance, mixture, jnp.asarray(chol), data)
        step = self.compiled("sampler", partial(nuts.advance, fn=fn), *args)
        lanes, record = step(*args)
        return lanes, np.asarray(record)

    def resume(self, chains: Chains, design: Design, data: Mapping) -> Chains:
        """The same chains, adapted as they are, standing in the posterior of other data."""
        study = on_device(design, data)
        fn, _, _ = self._gradient(*study)
        lanes = chains.state.lanes
        q = lanes.tree.proposal.q[0]
        stand = lambda study, q: jax.vmap(partial(fn, study))(q)  # noqa: E731
        found = self.compiled("standing", stand, study, q)(study, q)
        point = nuts.Point(q, *found)
        tree = lanes.tree._replace(proposal=jax.tree.map(lambda x: x[None], point))
        return chains._replace(state=chains.state._replace(lanes=lanes._replace(tree=tree)))

    def extend(
        self, chains: Chains, design: Design, data: Mapping, *, mixture: Mixture | None = None
    ) -> Chains:
        """As many draws again from where the chains ended, joined to what they drew."""
        return _join(chains, self.go_on(chains, design, data, mixture=mixture))

    def go_on(
        self, chains: Chains, design: Design, data: Mapping, *, mixture: Mixture | None = None
    ) -> Chains:
        """As many draws again from where the chains ended, without adapting."""
        lanes, chol = chains.state
        key = random.wrap_key_data(lanes.key[0, 0])
        key = random.fold_in(key, lanes.ticks[0, 0])
        return self._draw(lanes, key, chol, on_device(design, data), mixture)


def _signature(arguments) -> tuple:
    """Structure, shapes and types of arguments, for which one compilation does."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)


def flat(w: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draws of all sites as one array, (chains, draws, d), in the order of the sampler's q."""
    return np.concatenate([w[name].reshape(*w[name].shape[:2], -1) for name in sorted(w)], axis=-1)


def _join(first: Chains, second: Chains) -> Chains:
    join = lambda a, b: np.concatenate([a, b], axis=1)  # noqa: E731
    w, stats = jax.tree.map(join, (first.w, first.stats), (second.w, second.stats))
    return Chains(w, stats, second.state)
