"""From a saved fit back to what computes: its engine and its draws."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from bayesicl.engine import Engine
from bayesicl.law import Law
from bayesicl.noises import load_noise
from bayesicl.settings import Settings
from bayesicl.tree import law_of


def engine_of(tree: xr.DataTree, law: str | Path | Law | None = None) -> Engine:
    """An engine with the law, noise and settings of a fit."""
    settings = Settings(**json.loads(tree.attrs["settings"]))
    return Engine(
        law_of(tree, law), load_noise(tree.attrs["noise"], tree["study"].attrs["kind"]), settings
    )


def natural_values(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Draws of all sites of a fit, unreported building blocks included."""
    groups = [name for name in ("posterior", "internals") if name in tree.children]
    return {
        str(name): value.to_numpy()
        for group in groups
        for name, value in tree[group].data_vars.items()
    }
