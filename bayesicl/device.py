"""Where JAX computes, and how precisely: float64 on CPU, float32 on GPU."""

from contextlib import contextmanager
from typing import TypeVar

import jax
import jax.numpy as jnp

from bayesicl.errors import InputError

Tree = TypeVar("Tree")


@contextmanager
def precision(device: str = "cpu"):
    """Run JAX on this device: float64 on CPU, float32 on GPU. Leaves no global state behind."""
    try:
        target = jax.devices(device)[0]
    except RuntimeError as error:
        raise InputError(
            f"--device {device}: JAX sees no such device here; use --device cpu"
            + (", or install jax[cuda12]" if device == "gpu" else "")
        ) from error
    with jax.enable_x64(device == "cpu"), jax.default_device(target):
        yield


def on_device(arrays: Tree) -> Tree:
    """The same tree of arrays, as JAX arrays of the precision in force."""
    to_jax = lambda x: jnp.asarray(x, jnp.result_type(float) if x.dtype.kind == "f" else None)  # noqa: E731
    return jax.tree.map(to_jax, arrays)
