"""Where JAX computes, and how precisely: float64 on CPU, float32 on GPU."""

from collections.abc import Mapping
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from bayesicl.errors import InputError
from bayesicl.law import Design


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


def on_device(design: Design, data: Mapping) -> tuple[Design, dict[str, jax.Array]]:
    """The same arrays as JAX arrays of the precision in force."""
    to_jax = lambda x: jnp.asarray(x, jnp.result_type(float) if x.dtype.kind == "f" else None)  # noqa: E731
    return jax.tree.map(to_jax, design), {name: to_jax(x) for name, x in data.items()}
