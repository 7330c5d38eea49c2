"""Leave each cell out in turn: by importance sampling where that can be trusted, else by refits."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from arviz_stats import loo
from arviz_stats.utils import ELPDData
from scipy.special import logsumexp

from bayesicl.device import precision
from bayesicl.labels import Labels
from bayesicl.law import Law
from bayesicl.program import arrays, study_key
from bayesicl.restore import engine_of
from bayesicl.retry import attempts, first_that_passes
from bayesicl.tree import study_of

EXACT_BELOW = 30  # cells: fewer are left out by refitting, each one


@dataclass(frozen=True)
class Leaving:
    """Leave-one-cell-out of one fit.

    elpd: (cells,) log predictive density of each cell's mean given the others' (and, where there
    are replicates, given their spread in all cells, which is about the noise alone). raw: as
    arviz_stats.loo gives it, before repair. refitted: cells that were left out by fitting again.
    unrepaired: cells whose refit failed its gates.
    """

    elpd: np.ndarray
    raw: ELPDData
    refitted: int
    unrepaired: int


def raw_loo(tree: xr.DataTree) -> ELPDData:
    """PSIS-LOO over cells as arviz_stats gives it, with its warning kept as a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # high Pareto k: repaired, and in the table
        return loo(tree, pointwise=True, var_name="y")  # pyright: ignore[reportReturnType]


def leave_out(
    tree: xr.DataTree,
    *,
    law: str | Path | Law | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Leaving:
    """Leave each cell out in turn: by PSIS where that can be trusted, else by a refit.

    law: where to find a user's law that has moved since the fit.
    """
    raw = raw_loo(tree)
    elpd, k = raw.elpd_i.to_numpy().copy(), raw.pareto_k.to_numpy()
    n = elpd.size
    again = np.arange(n) if n < EXACT_BELOW else np.flatnonzero(~(k <= raw.good_k))
    if not again.size:
        return Leaving(elpd, raw, 0, 0)
    failed = 0
    with precision():
        study = study_of(tree)
        engine = engine_of(tree, law)
        design, data = arrays(study, backgrounds=int(tree.attrs["backgrounds"]))
        labels = Labels(engine, study, design, data)
        key = jax.random.fold_in(study_key(int(tree.attrs["seed"]), study, engine.law.name), 1)
        progress("sampling")
        whole = engine.run(key, design, data)
        for i, cell in enumerate(np.flatnonzero(study.cells["fitted"])[again]):
            progress(f"leaving out cell {i + 1} of {again.size}")
            others = data | {"fitted": data["fitted"] & (np.arange(data["y"].size) != cell)}
            key_cell = jax.random.fold_in(key, int(cell))
            runs = _refits(engine, key_cell, whole, design, others)
            found = first_that_passes(engine, runs, labels, design, others)
            failed += not found.checks.passed
            out = engine.describe(key_cell, found.values, design, others)
            out = out["log_likelihood"][..., cell]
            elpd[again[i]] = logsumexp(out) - np.log(out.size)
    return Leaving(elpd, raw, again.size, failed)


def _refits(engine, key, whole, design, data):
    """First the adapted chains of the whole fit go on without the cell; then ever more care."""
    chains = engine.resume(whole, design, data)
    yield engine.go_on(chains, design, data)
    yield from attempts(engine, key, design, data, lambda what: None, targets=(0.97,))
