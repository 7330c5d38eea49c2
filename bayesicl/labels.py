"""Names for draws: from plain arrays to an ArviZ DataTree."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from bayesicl.curves import Study
from bayesicl.engine import Chains, Engine
from bayesicl.law import Design
from bayesicl.tree import believed, study_dataset

N_PRIOR = 1000
KNOWN = ("total", "replicates", "se")  # of a study's data, what is known before measuring


class Labels:
    """Names for the axes of draws: ArviZ datasets from plain arrays."""

    def __init__(self, engine: Engine, study: Study, design: Design, data: Mapping):
        """Read the names off the program and the study."""
        outline = engine.outline(design, data)
        self.dims = outline.dims
        self.reported = [name for name in self.dims if not name.startswith("_")]
        self.internal = [name for name in self.dims if name.startswith("_")]
        self.of_law = [name for name in self.reported if name in outline.law]
        self.fitted = np.flatnonzero(study.cells["fitted"])
        self.n_cells = len(study.cells)
        self.symbol = study.scale.symbol
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

    def parameters(self, values: Mapping[str, np.ndarray], logp: np.ndarray) -> xr.Dataset:
        """All that is reported: sites, and of each curve p_zero and p_last from log p of cells.

        p_zero: at 0 shots. p_last: at the longest fitted. Of mean nll nll_zero and nll_last.
        """
        zero = logp[..., self.n_cells : self.n_cells + len(self.last)]
        ends = {f"{self.symbol}_zero": zero, f"{self.symbol}_last": logp[..., self.last]}
        ends = {name: np.exp(value) for name, value in ends.items()}
        reported = {name: values[name] for name in self.reported}
        return self.dataset(reported | ends, self.dims | dict.fromkeys(ends, ("hypothesis",)))


class Before(NamedTuple):
    """Draws before any measurement: sites (1, N_PRIOR, ...), log p and new y of every cell."""

    values: dict[str, np.ndarray]
    logp: np.ndarray
    y: np.ndarray


class Priors:
    """Draws of one engine's prior, kept from study to study: they depend on the design alone.

    Studies of one design (shots, hypotheses, numbers of items and replicates) share their draws,
    whichever of them comes first: outcomes are hidden from what draws.
    """

    def __init__(self, engine: Engine, *, kept: int = 8):
        """kept: designs that are remembered."""
        self.engine, self.kept = engine, kept
        self._drawn: OrderedDict[bytes, Before] = OrderedDict()

    def of(self, seed: int, design: Design, data: Mapping) -> Before:
        """The draws of a design, from `seed`."""
        data = {name: x if name in KNOWN else _hidden(x) for name, x in data.items()}
        parts = [repr((seed, replace(design, shots=0, hypothesis=0), self.engine.law.name))]
        parts += [repr((name, x.shape)) for name, x in data.items()]
        known = [design.shots, design.hypothesis, *(data[name] for name in KNOWN)]
        digest = hashlib.sha256("".join(parts).encode() + b"".join(x.tobytes() for x in known))
        if digest.digest() not in self._drawn:
            fold = int.from_bytes(digest.digest()[:4], "big") >> 1
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), fold))
            values = self.engine.prior(keys[0], N_PRIOR, design, data)
            told = self.engine.describe(keys[1], values, design, data, seen=False)
            self._drawn[digest.digest()] = Before(values, told["logp"], told["y"])
        self._drawn.move_to_end(digest.digest())
        if len(self._drawn) > self.kept:
            self._drawn.popitem(last=False)
        return self._drawn[digest.digest()]


def _hidden(x: np.ndarray) -> np.ndarray:
    return np.full_like(x, 0.5 if x.dtype.kind == "f" else 0)


def to_tree(
    engine: Engine,
    chains: Chains,
    values: Mapping[str, np.ndarray],
    labels: Labels,
    study: Study,
    design: Design,
    data: Mapping,
    before: Before,
    key: jax.Array,
) -> xr.DataTree:
    """All that follows from the draws, as an ArviZ DataTree."""
    after = engine.describe(key, values, design, data)
    cells = study.cells.iloc[labels.fitted]
    known = ("shots", "hypothesis", "total", "replicates")
    at = {"cell": labels.fitted}
    # Building blocks of the law that are not reported, but that predictions need.
    internals = {"internals": labels.named(values, labels.internal)} if labels.internal else {}
    # New measurements are random to begin with: seven digits of them are enough.
    again, unseen = (np.asarray(y, np.float32) for y in (after["y"], before.y))
    return xr.DataTree.from_dict(
        internals
        | {
            "posterior": labels.parameters(values, after["logp"]),
            "sample_stats": labels.scalars(chains.stats),
            "log_likelihood": labels.cells(after["log_likelihood"]),
            "log_prior": labels.scalars(after["log_prior"]),
            "posterior_predictive": labels.cells(again),
            "prior": labels.parameters(before.values, before.logp),
            "prior_predictive": labels.cells(unseen),
            "observed_data": xr.Dataset({"y": ("cell", cells["y"])}, coords=at),
            "constant_data": xr.Dataset({k: ("cell", cells[k]) for k in known}, coords=at),
            "study": study_dataset(study),
        }
    )
