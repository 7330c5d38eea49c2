"""The engine: programs compiled once for a law, a noise and a padded shape, run on all cores.

Programs take the data as an argument, so that a thousand studies of one shape cost one compilation.
On CPU every chain is a call of its own, and chains use all cores as plain threads: its draws depend
on its key, its data and the padded shape alone. On a GPU all chains of many studies are one call.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from bayesicl import nuts, warmup
from bayesicl.cache import Programs
from bayesicl.chains import Chains, State, chains_of, diverging, flat, join, moving_by, stacked
from bayesicl.code import code_hash
from bayesicl.device import on_device, precision
from bayesicl.draws import over_draws as map_draws
from bayesicl.jumps import mixture_about
from bayesicl.lanes import Chance, Point, stand, with_step
from bayesicl.law import Design, Law, load_law
from bayesicl.noise import Noise
from bayesicl.noises import own
from bayesicl.nuts import CHUNK
from bayesicl.posterior import Outline, Posterior
from bayesicl.settings import Settings

GROUP = 1  # chains that a thread advances together on CPU; draws depend on it, not on threads


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
        """See the class for the arguments; nothing is compiled before the first study."""
        self.law, self.noise, self.settings, self.device = law, noise, settings, device
        self.posterior = Posterior(law, noise)
        self.on_compile = on_compile
        self._programs = Programs(self._identity())
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1)

    def _identity(self) -> str | None:
        """What compiled programs depend on; None for laws and noises that may import anything."""
        if not self.law.bundled or load_law(self.law.name) != self.law or not own(self.noise):
            return None
        what = self.law.name, self.law.source_hash, self.noise.name, self.noise.source_hash
        numbers = self.device, self.settings.chains, self.settings.max_tree_depth
        return "|".join(map(str, [code_hash(), *what, *numbers]))

    # -- draws of all chains ---------------------------------------------------------------

    def natural(self, chains: Chains, design: Design, data: Mapping) -> dict[str, np.ndarray]:
        """Natural parameters and deterministic values of all draws: (chains, draws, ...)."""

        def one(design, data, w, key):
            return self.posterior.natural(design, data, w)

        what, unused = "natural parameters", random.key(0)
        return self.over_draws(what, one, chains.w, design, data, unused)

    def describe(
        self, key: jax.Array, values: Mapping, design: Design, data: Mapping, *, seen: bool = True
    ) -> dict[str, Any]:
        """What follows from natural parameters, (chains, draws, ...) each.

        logp: the law's, of every cell. mean: the mean curve there, with the law's misfit if the
        noise has it. y: a new measurement of every cell (`Noise.measure`).
        log_likelihood: of every cell given the other fitted ones. log_prior: of every sampled
        site. by_cell: what the law records for every cell, such as the belief.
        """

        def one(design, data, drawn, key):
            values, seen = drawn
            return self.posterior.describe(design, data, values, seen)

        values = {name: values[name] for name in self.outline(design, data).shapes}
        shape = np.shape(next(iter(values.values())))[:2]
        drawn = (values, np.full(shape, seen))
        out = self.over_draws("description", one, drawn, design, data, random.key(0))
        # Folded, so that it is nobody else's stream: NumPy takes key 0 for seed 0.
        rng = np.random.default_rng(np.asarray(random.key_data(random.fold_in(key, 1))))
        mean = {"mean": np.exp(out["logp"])}
        return out | mean | self.noise.measure(rng, out.pop("scatter"), design, data)

    def prior(self, key: jax.Array, n: int, design: Design, data: Mapping) -> dict[str, np.ndarray]:
        """Draws of the prior: natural parameters and deterministic values, (1, n, ...)."""

        def one(design, data, drawn, key):
            return self.posterior.prior(design, data, key)

        return self.over_draws("prior", one, np.zeros((1, n)), design, data, key)

    def over_draws(self, *args):
        """`draws.over_draws` by this engine's programs."""
        return map_draws(self.compiled, *args, device=self.device)

    # -- what is compiled --------------------------------------------------------------------

    def _gradient(self, many):
        """Potential and gradient at a flat q, and how to unravel q: {site: (shape, slice)}."""
        design, data = jax.tree.map(lambda x: np.asarray(x)[0], many)  # JAX's slices are slow
        places, begin = {}, 0
        for name, shape in sorted(self.outline(design, data).shapes.items()):
            size = int(np.prod(shape))
            places[name] = (shape, slice(begin, begin + size))
            begin += size

        def fn(study, q):
            w = {name: q[part].reshape(shape) for name, (shape, part) in places.items()}
            design, data = study
            return self.posterior.potential(design, data, w)

        return jax.value_and_grad(fn, argnums=1), places, begin

    def outline(self, design: Design, data: Mapping) -> Outline:
        """What the program samples and records for studies of this shape."""
        compute = partial(self.posterior.outline, design, data)
        return self._programs.fact("outline", compute, design, data)

    def compiled(self, name: str, function: Callable, *args) -> Callable:
        """`function`, compiled for the shapes of these arguments; once each."""
        return self._programs.compiled(name, function, *args, on_compile=self.on_compile)

    # -- running -----------------------------------------------------------------------------

    def run(
        self,
        key: jax.Array,
        design: Design,
        data: Mapping,
        *,
        target_accept: float | None = None,
        after: Chains | None = None,
    ) -> Chains:
        """Warm up and draw all chains of a study; see `run_many`."""
        state = None
        if after is not None:
            last = flat(after.w)[None, :, -self.settings.draws :]
            state = moving_by(after.state, last, pooled=True)
        [chains] = self.run_many([key], [(design, data)], target_accept=target_accept, after=state)
        return chains

    def run_many(
        self,
        keys: Sequence[jax.Array],
        studies: Sequence[tuple[Design, Mapping]],
        *,
        target_accept: float | None = None,
        after: State | None = None,
    ) -> list[Chains]:
        """Warm up and draw all chains of studies of one shape, window by window together.

        after: begin there, and find a step size for the target alone.
        """
        key, many = jnp.stack(keys), stacked(studies)
        first = self.settings.target_of(self._gradient(many)[2])
        target = np.full(len(keys), max(first, target_accept or 0.0))
        if after is None:
            state, windows = self._start(key, many), warmup.WINDOWS
        else:
            state, windows = after, warmup.WINDOWS[-warmup.STEP_ONLY :]
        for k, (share, pooled) in enumerate(windows):
            n = round(share * self.settings.warmup)
            state, record = self._advance(state, n, key, k, target, many)
            rest = len(windows) - 1 - k
            if 0 < rest <= warmup.STEP_ONLY:  # some posteriors need smaller steps
                late = diverging(record[:, :, n // 2 :]).any(axis=(1, 2))
                target = np.where(late, 1.0 - (1.0 - target) / 3.0, target)
            if rest >= warmup.STEP_ONLY:
                q = record[:, :, n // 3 :, : -len(nuts.STATISTICS)]
                state = moving_by(state, q, pooled=pooled)
        return self._draw(state, key, many)

    def _draw(self, state: State, key, many) -> list[Chains]:
        state, record = self._advance(state, self.settings.draws, key, -1, None, many)
        _, places, _ = self._gradient(many)
        return chains_of(record, places, state)

    def _start(self, key, many) -> State:
        """Chains at their first points, and the scale to begin with."""
        fn, _, d = self._gradient(many)
        n, group = self.settings.chains, self.settings.chains if self.device == "gpu" else GROUP

        def begin(key, many):
            def one(study, key):
                k_start, k_lane = random.split(key)
                point, curvature = warmup.start(k_start, partial(fn, study), d)
                lane = stand(k_lane, point, self.settings.max_tree_depth)
                return with_step(lane, jnp.log(0.5)), curvature

            own = jax.vmap(lambda key: random.split(key, n))(key)
            lanes, curvature = jax.vmap(jax.vmap(one, in_axes=(None, 0)))(many, own)
            part = lambda i: jax.tree.map(lambda x: x[:, i : i + group], lanes)  # noqa: E731
            return tuple(map(part, range(0, n, group))), curvature

        groups, curvature = self.compiled("start", begin, key, many)(key, many)
        chol = np.stack([warmup.scale_of_curvature(x) for x in np.asarray(curvature)])
        first = [np.asarray(lanes.tree.proposal.q) for lanes in groups]
        about = map(mixture_about, np.concatenate(first, axis=1), chol)
        return State(groups, chol, stacked(list(about)))

    def _advance(self, state: State, n: int, key, call: int, target, many):
        """`n` transitions, adapting the step sizes to targets where those are given.

        call: a number of its own for each of a run's calls. The record: (studies, chains, n, ...).
        """
        if n > CHUNK:
            state, one = self._advance(state, CHUNK, key, call, target, many)
            state, rest = self._advance(state, n - CHUNK, key, call - CHUNK, target, many)
            return state, np.concatenate([one, rest], axis=2)
        fn, _, _ = self._gradient(many)

        def advance(lanes, n, numbers, log_step, chance, chol, mixture, data):
            key, call, g = numbers
            lanes = with_step(lanes, jnp.broadcast_to(log_step[:, None], lanes.i.shape))
            keys = jax.vmap(lambda key: random.fold_in(random.fold_in(key, call), g))(key)
            return nuts.advance(lanes, n, keys, chance, mixture, chol, data, fn=fn)

        # All chains of a study go on from one step size, which they have found together.
        found = [np.asarray(lanes.step.log_average) for lanes in state.groups]
        log_step = np.mean(np.concatenate(found, axis=1), axis=1)
        adapt = np.full(len(log_step), target is not None)
        chance = Chance(np.full(len(log_step), 0.5) if target is None else target, adapt)
        moves = on_device((log_step, chance, *state[1:]))
        args = [
            (lanes, np.int32(n), (key, np.int32(call), np.int32(g)), *moves, many)
            for g, lanes in enumerate(state.groups)
        ]
        alike = {own[0].i.shape: own for own in args}
        samplers = {shape: self.compiled("sampler", advance, *own) for shape, own in alike.items()}

        def run(own):
            with precision(self.device):  # JAX's settings belong to the thread
                return jax.block_until_ready(samplers[own[0].i.shape](*own))

        groups, records = zip(*self._threads.map(run, args), strict=True)
        record = np.concatenate([np.asarray(x)[:, :, :n] for x in records], axis=1)
        return state._replace(groups=groups), record

    def resume(self, chains: Chains, design: Design, data: Mapping) -> Chains:
        """The same chains, adapted as they are, standing in the posterior of other data."""
        many = stacked([(design, data)])
        fn, _, _ = self._gradient(many)

        def stand_again(many, lanes):
            q = lanes.tree.proposal.q
            each = jax.vmap(lambda study, q: jax.vmap(partial(fn, study))(q))
            point = Point(q, *each(many, q))
            return lanes._replace(tree=lanes.tree._replace(proposal=point))

        groups = tuple(
            self.compiled("standing", stand_again, many, lanes)(many, lanes)
            for lanes in chains.state.groups
        )
        return chains._replace(state=chains.state._replace(groups=groups))

    def extend(self, chains: Chains, design: Design, data: Mapping) -> Chains:
        """As many draws again from where the chains ended, joined to what they drew."""
        return join(chains, self.go_on(chains, design, data))

    def go_on(self, chains: Chains, design: Design, data: Mapping) -> Chains:
        """As many draws again from where the chains ended, without adapting."""
        lanes = chains.state.groups[0]  # a key as new as where they stand
        key = random.wrap_key_data(np.asarray(lanes.key)[0, 0] ^ np.asarray(lanes.ticks)[0, 0])
        [after] = self._draw(chains.state, key[None], stacked([(design, data)]))
        return after
