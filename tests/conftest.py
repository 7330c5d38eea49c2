"""What JAX would pass over in silence fails here.

Rank promotion is not made an error: the laws' curves broadcast parameters over cells by design.
"""

import sys

import pytest


@pytest.fixture(autouse=True)
def no_global_jax_state():
    """No test, and nothing that it calls, leaves another precision or device behind."""

    def state():
        jax = sys.modules.get("jax")
        return jax and (jax.config.jax_enable_x64, jax.config.jax_default_device)

    before = state() or (False, None)
    yield
    assert (state() or before) == before, "JAX's global settings were changed"


@pytest.fixture
def x64():
    """Float64 on the CPU, as fits run, for the time of one test."""
    from bayesicl.device import precision

    with precision("cpu"):
        yield


@pytest.fixture
def rng():
    """The same numbers in every run."""
    import numpy as np

    return np.random.default_rng(20241016)
