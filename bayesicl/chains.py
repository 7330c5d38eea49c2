"""Draws of a study's chains, and where the chains stand."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bayesicl import nuts, warmup
from bayesicl.device import on_device
from bayesicl.jumps import Mixture, mixture_of
from bayesicl.lanes import Lane


class State(NamedTuple):
    """Where chains stand, and how they move; in a `Chains` of one study.

    groups: of lanes (studies, GROUP), or of all chains on a GPU. chol: (studies, d, d), the scale
    of trajectories. mixture: where jumps go, (studies, ...).
    """

    groups: tuple[Lane, ...]
    chol: Any
    mixture: Mixture


class Chains(NamedTuple):
    """Draws of all chains: sites in sampling coordinates and statistics, (chains, draws, ...)."""

    w: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    state: State


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of arrays of one shape as one of JAX arrays, with an axis more: (trees, ...)."""
    return on_device(jax.tree.map(lambda *x: np.stack(x), *trees))


def chains_of(
    record: np.ndarray, places: Mapping[str, tuple[tuple[int, ...], slice]], state: State
) -> list[Chains]:
    """The chains of each study, of a sampler's record: (studies, chains, draws, columns).

    places: the shape of each site, and where it stands in q.
    """
    n = len(nuts.STATISTICS)
    chains = []
    for i, (q, columns) in enumerate(zip(record[..., :-n], record[..., -n:], strict=True)):
        w = {
            name: q[..., part].reshape(*q.shape[:2], *shape)
            for name, (shape, part) in places.items()
        }
        by_name = zip(nuts.STATISTICS, np.moveaxis(columns, -1, 0), strict=True)
        stats: dict[str, np.ndarray] = dict(by_name)
        stats |= {name: stats[name].astype(bool) for name in ("diverging", "no_way_back")}
        stats |= {name: stats[name].astype(int) for name in ("n_steps", "tree_depth")}
        own = state if len(record) == 1 else jax.tree.map(lambda x, i=i: x[i : i + 1], state)
        chains.append(Chains(w, stats, own))
    return chains


def moving_by(state: State, q: np.ndarray, *, pooled: bool) -> State:
    """Chains that move as draws (studies, chains, draws, d) say.

    pooled: the scale is that about one mean, not each chain's own.
    """
    chol = np.stack([warmup.scale_of_draws(x, pooled=pooled) for x in q])
    return jumping(state._replace(chol=chol), q)


def jumping(state: State, q: np.ndarray) -> State:
    """Chains that jump to where draws (studies, chains, draws, d) are."""
    return state._replace(mixture=stacked([mixture_of(x) for x in q]))


def diverging(record: np.ndarray) -> np.ndarray:
    """Of a sampler's record, (..., columns): whether each transition diverged."""
    return record[..., nuts.STATISTICS.index("diverging") - len(nuts.STATISTICS)]


def flat(w: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draws of all sites as one array, (chains, draws, d), in the order of the sampler's q."""
    return np.concatenate([w[name].reshape(*w[name].shape[:2], -1) for name in sorted(w)], axis=-1)


def join(first: Chains, second: Chains) -> Chains:
    """The draws of both, one after the other, standing where the second ended."""
    after = lambda a, b: np.concatenate([a, b], axis=1)  # noqa: E731
    w, stats = jax.tree.map(after, (first.w, first.stats), (second.w, second.stats))
    return Chains(w, stats, second.state)
