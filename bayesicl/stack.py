"""A mixture of laws, weighted by how well each predicted the future of what was fitted.

Each law is fitted again to the first k cells of every curve and asked for the fitted cells that
follow (rolling origins, exact refits). Weights maximise the mixture's log score of those cells
(stacking of predictive distributions, Yao et al. 2018, by leave-future-out, Buerkner et al. 2020),
plus a Dirichlet prior of STRENGTH origins about the weights that are usual: a handful of cells
cannot rank laws.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import binom

from bayesicl.score import HeldOut, held_out, score_draws
from bayesicl.study import Study
from bayesicl.tree import study_of

FIRST = 3  # cells of a curve at the first origin
GROWTH = 4.0 / 3.0  # from one origin to the next
STRENGTH = 4.0  # origins that the usual weights count for
ROUNDS = 20_000
TOLERANCE = 1e-8
COLUMNS = ["law", "origin", "cell", "ahead", "log_score", "pit"]
FAR_OUT = 0.02  # of next cells, should lie outside the mixture's 98 % intervals
SURPRISING = 0.01  # so many outside, by chance


def origins(study: Study) -> list[int]:
    """How many cells of each curve are fitted at each origin: 3, 4, 5, 7, 9, 13, ..."""
    fitted = study.cells[study.cells["fitted"]]
    longest = int(fitted.groupby("hypothesis").size().max())
    found, k = [], float(FIRST)
    while round(k) < longest:
        found.append(round(k))
        k = max(k + 1.0, k * GROWTH)
    return found


def at_origin(study: Study, k: int) -> Study:
    """The study with the first k of the fitted cells of each curve fitted, and no more."""
    place = study.cells.groupby("hypothesis").cumcount()
    return replace(study, cells=study.cells.assign(fitted=study.cells["fitted"] & (place < k)))


def future(trees: Iterable[xr.DataTree], study: Study, *, seed: int = 0) -> pd.DataFrame:
    """How the fitted cells of a study fared that each of these fits had ahead of it.

    trees: of the study `at_origin`. One row a law, origin and cell: law, origin (fitted cells),
    cell, ahead (1 for the next cell of its curve), log_score, pit (randomised).
    """
    seen = set(study.cells.index[study.cells["fitted"]])
    rows = []
    for tree in trees:
        found, origin = held_out(tree, seed=seed), int(study_of(tree).cells["fitted"].sum())
        y, rng = found.cells["y"].to_numpy(), np.random.default_rng(seed)
        pit = score_draws(y, found.measured, found.log_score, rng=rng)["pit"]
        ahead = found.cells.groupby("hypothesis").cumcount() + 1
        rows += [
            (tree.attrs["law"], origin, *row)
            for row in zip(found.cells.index, ahead, found.log_score, pit, strict=True)
            if row[0] in seen
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def weigh(
    scores: pd.DataFrame, usual: Mapping[str, float], *, strength: float = STRENGTH
) -> dict[str, float]:
    """Weights of laws from their log scores (`future`); they sum to 1.

    usual: weights without any scores. Every origin counts as one, whatever lies ahead of it.
    """
    laws = list(usual)
    prior = np.array([usual[law] for law in laws], float)
    prior = prior / prior.sum()
    if scores.empty:
        return dict(zip(laws, prior, strict=True))
    table = scores.pivot_table(index=["origin", "cell"], columns="law", values="log_score")
    table = table.reindex(columns=laws).dropna()  # where some law's fit broke down
    if table.empty:
        return dict(zip(laws, prior, strict=True))
    ahead = table.groupby("origin").transform("size").to_numpy()
    w = stacking(table.to_numpy(), 1.0 / ahead, strength * prior)
    return dict(zip(laws, w, strict=True))


def stacking(
    log_score: np.ndarray, share: np.ndarray | None = None, prior: np.ndarray | None = None
) -> np.ndarray:
    """Weights (laws,) of a mixture that maximise its log score, from log_score (cells, laws).

    share: (cells,) what each cell counts for; None for 1. prior: (laws,) cells that each law is
    taken to have won beforehand; None for none.

    >>> stacking(np.log([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])).round(2)
    array([0.71, 0.29])
    """
    density = np.exp(log_score - log_score.max(axis=1, keepdims=True))
    share = np.ones(len(density)) if share is None else share
    prior = np.zeros(density.shape[1]) if prior is None else prior
    w = np.full(density.shape[1], 1.0 / density.shape[1])
    for _ in range(ROUNDS):  # expectation maximisation: it never leaves the simplex
        won = w * density
        new = share @ (won / won.sum(axis=1, keepdims=True)) + prior
        new /= new.sum()
        if np.abs(new - w).max() < TOLERANCE:
            return new
        w = new
    return w


def surprise(scores: pd.DataFrame, weights: Mapping[str, float]) -> str:
    """What to say where the laws together did not foresee what came next; "" where they did.

    Of the next cell after each origin, too many lie outside the mixture's 98 % intervals: no law
    here is adequate, and what lies beyond the fit is as little foreseen.
    """
    nearest = scores[scores["ahead"] == 1].assign(w=lambda t: t["law"].map(weights))
    if nearest.empty:
        return ""
    by = [nearest["origin"], nearest["cell"]]
    pit = (nearest["pit"] * nearest["w"]).groupby(by).sum() / nearest["w"].groupby(by).sum()
    out = int(((pit < FAR_OUT / 2) | (pit > 1 - FAR_OUT / 2)).sum())
    if binom.sf(out - 1, len(pit), FAR_OUT) >= SURPRISING:
        return ""
    return (
        f"ALARM: {out} of {len(pit)} fitted cells lie outside the 98 % intervals that the cells "
        "before them gave: no law here is adequate; lean on none of these bands"
    )


def mix(parts: Sequence[HeldOut], weights: Sequence[float], *, seed: int = 0) -> HeldOut:
    """The mixture's forecast of held-out cells."""
    rng = np.random.default_rng(seed)
    n = min(len(part.measured) for part in parts)
    take = shares(weights, n)
    measured, curve = [], []
    for part, m in zip(parts, take, strict=True):
        rows = rng.choice(len(part.measured), m, replace=False)
        measured.append(part.measured[rows])
        curve.append(part.curve[rows])
    density = [np.log(w) + part.log_score for part, w in zip(parts, weights, strict=True) if w > 0]
    log_score = np.asarray(logsumexp(density, axis=0))
    return HeldOut(parts[0].cells, np.concatenate(measured), np.concatenate(curve), log_score)


def mix_predictions(
    parts: Sequence[xr.Dataset], weights: Sequence[float], *, seed: int = 0
) -> xr.Dataset:
    """The mixture of predictions at the same shots: a Dataset as of `predict`, of one chain."""
    rng = np.random.default_rng(seed)
    n = min(part.sizes["chain"] * part.sizes["draw"] for part in parts)
    picked = []
    for part, m in zip(parts, shares(weights, n), strict=True):
        one = part.drop_vars(["belief", "believed"], errors="ignore")
        one = one.stack(sample=("chain", "draw"), create_index=False)
        some = one.isel(sample=rng.choice(one.sizes["sample"], m, replace=False))
        picked.append(some.drop_vars(["chain", "draw"]))
    whole = xr.concat(picked, "sample", data_vars="minimal", coords="minimal", join="exact")
    whole = whole.rename(sample="draw").expand_dims(chain=[0]).assign_coords(draw=np.arange(n))
    order = ("chain", "draw", "hypothesis", "shots")
    return whole.transpose(*order).assign_attrs(parts[0].attrs)


def shares(weights: Sequence[float], n: int) -> np.ndarray:
    """Whole numbers that sum to n, in proportion to the weights as nearly as may be."""
    ends = np.round(np.cumsum(weights) / np.sum(weights) * n).astype(int)
    return np.diff(ends, prepend=0)
