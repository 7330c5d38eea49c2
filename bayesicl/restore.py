"""From a saved fit back to what computes: its engine and its draws."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr

from bayesicl.engine import Engine
from bayesicl.errors import InputError
from bayesicl.law import Law
from bayesicl.noise import Noise
from bayesicl.noises import load_noise
from bayesicl.settings import Settings
from bayesicl.tree import law_of


def engine_of(tree: xr.DataTree, law: str | Path | Law | None = None) -> Engine:
    """An engine with the law, noise and settings of a fit; fits that agree in these share it."""
    noise = load_noise(tree.attrs["noise"], tree["study"].attrs["kind"])
    if noise.source_hash != tree.attrs.get("noise_hash", ""):
        raise InputError(
            f"noise {noise.name!r}: its prior has changed since this fit was made; fit again"
        )
    return _engine(law_of(tree, law), noise, Settings(**json.loads(tree.attrs["settings"])))


@lru_cache(maxsize=16)
def _engine(law: Law, noise: Noise, settings: Settings) -> Engine:
    return Engine(law, noise, settings)


def natural_values(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Draws of all sites of a fit, unreported building blocks included."""
    groups = [name for name in ("posterior", "internals") if name in tree.children]
    return {
        str(name): value.to_numpy()
        for group in groups
        for name, value in tree[group].data_vars.items()
    }
