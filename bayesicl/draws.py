"""A function of one draw, mapped over all draws of all chains."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
from jax import random

from bayesicl.device import on_device, precision
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
    *,
    device: str,
):
    """Map `one` over (chains, draws), CHUNK draws to a core at a time: little memory.

    compiled: as `Engine.compiled`. one(design, data, drawn, key): of one draw, with a key of its
    own.
    """
    with precision(device):
        design, data = on_device((design, data))
    chains, draws = np.shape(jax.tree.leaves(drawn)[0])[:2]
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(chains * draws, *x.shape[2:]), drawn)

    def piece_of(design, data, piece, numbers, key):
        keys = jax.vmap(partial(random.fold_in, key))(numbers)
        return jax.vmap(one, in_axes=(None, None, 0, 0))(design, data, piece, keys)

    def compute(i):
        # The last piece is filled up with repeats, which are cut off again.
        take = np.minimum(np.arange(i, i + CHUNK, dtype=np.int32), chains * draws - 1)
        with precision(device):  # JAX's settings belong to the thread
            piece = on_device(jax.tree.map(lambda x: x[take], flat))
            args = (design, data, piece, take, key)
            return jax.tree.map(np.asarray, compiled(name, piece_of, *args)(*args))

    with ThreadPoolExecutor(1 if device == "gpu" else os.cpu_count() or 1) as pool:
        pieces = list(pool.map(compute, range(0, chains * draws, CHUNK)))
    join = lambda *xs: np.concatenate(xs)[: chains * draws]  # noqa: E731
    whole = jax.tree.map(join, *pieces)
    return jax.tree.map(lambda x: x.reshape(chains, draws, *x.shape[1:]), whole)
