"""Names for draws: from plain arrays to an ArviZ DataTree."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import xarray as xr

from bayesicl.curves import Study
from bayesicl.engine import Chains, Engine
from bayesicl.law import Design
from bayesicl.tree import believed, study_dataset

N_PRIOR = 1000


class Labels:
    """Names for the axes of draws: ArviZ datasets from plain arrays."""

    def __init__(self, engine: Engine, study: Study, design: Design, data: Mapping):
        """Read the names off the program and the study."""
        self.dims = engine.outline(design, data).dims
        self.reported = [name for name in self.dims if not name.startswith("_")]
        self.internal = [name for name in self.dims if name.startswith("_")]
        self.fitted = np.flatnonzero(study.cells["fitted"])
        self.n_cells = len(study.cells)
        by_curve = study.cells.loc[self.fitted].groupby("hypothesis")
        self.last = [group.index[-1] for _, group in by_curve]
        names = believed(study.hypotheses, design.backgrounds)
        self.coords = {
            "hypothesis": list(study.hypotheses),
            "believed": names,
            "background": names[len(study.hypotheses) :],
            "cell": self.fitted,
        }

    def dataset(self, values: Mapping[str, np.ndarray], dims: Mapping | None = None) -> xr.Dataset:
        """values: (chains, draws, ...) each."""
        dims = self.dims if dims is None else dims
        out = {name: (("chain", "draw", *dims[name]), value) for name, value in values.items()}
        sizes = dict(zip(("chain", "draw"), np.shape(next(iter(values.values()))), strict=False))
        used = {d for names, _ in out.values() for d in names}
        coords = {d: np.arange(n) for d, n in sizes.items()}
        return xr.Dataset(out, coords=coords | {k: v for k, v in self.coords.items() if k in used})

    def named(self, values: Mapping[str, np.ndarray], names: Sequence[str]) -> xr.Dataset:
        """The dataset of these sites."""
        return self.dataset({name: values[name] for name in names})

    def scalars(self, values: Mapping[str, np.ndarray]) -> xr.Dataset:
        """One number a draw."""
        return self.dataset(values, dict.fromkeys(values, ()))

    def cells(self, y: np.ndarray) -> xr.Dataset:
        """Of the fitted cells, from (chains, draws, all cells)."""
        return self.dataset({"y": y[..., self.fitted]}, {"y": ("cell",)})

    def ends(self, logp: np.ndarray) -> xr.Dataset:
        """Of each curve: p_zero at 0 shots and p_last at the longest fitted, from log p."""
        p = np.exp(logp)
        zero = p[..., self.n_cells : self.n_cells + len(self.last)]
        dims = dict.fromkeys(("p_zero", "p_last"), ("hypothesis",))
        return self.dataset({"p_zero": zero, "p_last": p[..., self.last]}, dims)

    def statistics(self, chains: Chains) -> xr.Dataset:
        """The sampler's statistics under ArviZ's names."""
        depth = np.floor(np.log2(np.maximum(chains.stats["n_steps"], 1))).astype(int) + 1
        return self.scalars(chains.stats | {"tree_depth": depth})


def to_tree(
    engine: Engine,
    chains: Chains,
    values: Mapping[str, np.ndarray],
    labels: Labels,
    study: Study,
    design: Design,
    data: Mapping,
    key: jax.Array,
) -> xr.DataTree:
    """All that follows from the draws, as an ArviZ DataTree."""
    key_posterior, key_prior, key_predictive = jax.random.split(key, 3)
    after = engine.describe(key_posterior, values, design, data)
    prior = engine.prior(key_prior, N_PRIOR, design, data)
    before = engine.describe(key_predictive, prior, design, data, seen=False)
    cells = study.cells.iloc[labels.fitted]
    known = ("shots", "hypothesis", "total", "replicates")
    at = {"cell": labels.fitted}
    # Building blocks of the law that are not reported, but that predictions need.
    internals = {"internals": labels.named(values, labels.internal)} if labels.internal else {}
    posterior = labels.named(values, labels.reported).assign(labels.ends(after["logp"]))
    before_data = labels.named(prior, labels.reported).assign(labels.ends(before["logp"]))
    return xr.DataTree.from_dict(
        internals
        | {
            "posterior": posterior,
            "sample_stats": labels.statistics(chains),
            "log_likelihood": labels.cells(after["log_likelihood"]),
            "log_prior": labels.scalars(after["log_prior"]),
            "posterior_predictive": labels.cells(after["y"]),
            "prior": before_data,
            "prior_predictive": labels.cells(before["y"]),
            "observed_data": xr.Dataset({"y": ("cell", cells["y"])}, coords=at),
            "constant_data": xr.Dataset({k: ("cell", cells[k]) for k in known}, coords=at),
            "study": study_dataset(study),
        }
    )
