"""A function of one draw, mapped over all draws of all chains."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import numpy as np
from jax import random

from bayesicl.device import on_device
from bayesicl.law import Design
from bayesicl.nuts import CHUNK


def over_draws(
    compiled: Callable[..., Callable],
    name: str,
    one: Callable,
    drawn,
    design: Design,
    data: Mapping,
    key: jax.Array,
):
    """Map `one` over (chains, draws), CHUNK draws at a time: one compilation, little memory.

    compiled: as `Engine.compiled`. one(design, data, drawn, key): of one draw, with a key of its
    own.
    """
    design, data = on_device((design, data))
    chains, draws = np.shape(jax.tree.leaves(drawn)[0])[:2]
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(chains * draws, *x.shape[2:]), drawn)

    def piece_of(design, data, piece, numbers, key):
        keys = jax.vmap(partial(random.fold_in, key))(numbers)
        return jax.vmap(one, in_axes=(None, None, 0, 0))(design, data, piece, keys)

    pieces = []
    for i in range(0, chains * draws, CHUNK):
        # The last piece is filled up with repeats, which are cut off again.
        take = np.minimum(np.arange(i, i + CHUNK, dtype=np.int32), chains * draws - 1)
        piece = on_device(jax.tree.map(lambda x, take=take: x[take], flat))
        args = (design, data, piece, take, key)
        pieces.append(jax.tree.map(np.asarray, compiled(name, piece_of, *args)(*args)))
    join = lambda *xs: np.concatenate(xs)[: chains * draws]  # noqa: E731
    whole = jax.tree.map(join, *pieces)
    return jax.tree.map(lambda x: x.reshape(chains, draws, *x.shape[1:]), whole)
