"""Where JAX computes, how precisely (float64 on CPU, float32 on GPU), and how it compiles."""

from contextlib import contextmanager
from typing import TypeVar

import jax
import jax.numpy as jnp

from bayesicl.errors import InputError

Tree = TypeVar("Tree")

OPTIONS = {
    # A library's reductions would keep a loop from being compiled whole (see bayesicl.__init__).
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
    # Its windows of 32 are meant for accuracy in float32 and take longer than what is summed.
    "xla_disable_hlo_passes": "tree_reduction_rewriter",
    "xla_cpu_prefer_vector_width": 512,
}


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


def compile_fast(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """What was lowered, compiled for speed; in the usual way where XLA has no such options."""
    try:
        return lowered.compile(compiler_options=dict(OPTIONS))
    except jax.errors.JaxRuntimeError as error:
        if "compile option" not in str(error):
            raise
        return lowered.compile()
