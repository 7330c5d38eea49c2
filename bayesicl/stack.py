"""A mixture of laws, weighted by how well each predicted the future of what was fitted.

Each law is fitted again to the first k cells of every curve and asked for the fitted cells that
follow (rolling origins, exact refits). Weights maximise the mixture's log score of those cells
(stacking of predictive distributions, Yao et al. 2018, by leave-future-out, Buerkner et al. 2020),
plus a Dirichlet prior of STRENGTH origins: a handful of cells cannot rank laws. That prior is about
the weights with which the table's other studies are forecast best, found in the same way, with such
a prior about the weights that are usual (in the spirit of Yao et al. 2022, "Bayesian hierarchical
stacking"). Origins count as independent, though those of a study share cells.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bayesicl.score import HeldOut, held_out
from bayesicl.study import Study
from bayesicl.tree import study_of

FIRST = 3  # cells of a curve at the first origin
GROWTH = 4.0 / 3.0  # from one origin to the next
STRENGTH = 4.0  # origins that the weights before any forecast count for
ROUNDS = 20_000
TOLERANCE = 1e-8


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


class Ahead(NamedTuple):
    """What a law says, from the first `origin` cells, of the fitted cells that follow."""

    law: str
    origin: int
    found: HeldOut

    def bare(self) -> "Ahead":
        """Without draws: all that weights are made of."""
        none = np.empty((0, len(self.found.cells)))
        return self._replace(found=self.found._replace(measured=none, curve=none))


def ahead(trees: Iterable[xr.DataTree], study: Study, *, seed: int = 0) -> list[Ahead]:
    """Forecasts of those fitted cells of a study that each of these fits had ahead of it.

    trees: of the study `at_origin`. Fits that failed their gates are left out, and with them, in
    `foretold` and `mixtures`, the whole origin: its laws could not be compared.
    """
    seen = study.cells.index[study.cells["fitted"]]
    return [
        Ahead(
            str(tree.attrs["law"]),
            int(study_of(tree).cells.groupby("hypothesis")["fitted"].sum().max()),
            held_out(tree, seed=seed).among(seen),
        )
        for tree in trees
        if tree.attrs["passed"]
    ]


class Foretold(NamedTuple):
    """How laws foretold cells that they had not seen.

    log_score: (cells, laws). share: (cells,) what each cell counts for.
    """

    log_score: np.ndarray
    share: np.ndarray


def foretold(forecasts: Iterable[Ahead], laws: Sequence[str]) -> Foretold:
    """Of a study's fitted cells, from all origins.

    Every origin counts as one in all, whatever lies ahead of it, and in it each cell by how far it
    lies ahead, in log(1 + shots): laws that follow the same cells differ far from them, and that is
    where they are asked.
    """
    log_score, share = [np.empty((0, len(laws)))], [np.empty(0)]
    for parts in by_origin(forecasts, laws).values():
        score = np.stack([part.log_score for part in parts], axis=1)
        kept = sound(score)
        cells = parts[0].cells[kept]
        far = np.log1p(cells["shots"].to_numpy()) - np.log1p(cells["fitted_shots"].to_numpy())
        log_score.append(score[kept])
        share.append(far / far.sum())
    return Foretold(np.concatenate(log_score), np.concatenate(share))


def sound(log_score: np.ndarray) -> np.ndarray:
    """Which cells (cells,) of log_score (cells, laws) tell laws apart.

    Not those of which some law's fit is no number, or which no law holds possible.
    """
    return ~np.isnan(log_score).any(axis=1) & np.isfinite(log_score.max(axis=1))


def weigh(
    own: Foretold,
    usual: Mapping[str, float],
    others: Sequence[Foretold] = (),
    *,
    strength: float = STRENGTH,
) -> dict[str, float]:
    """Weights of laws of a study; they sum to 1.

    own: of the study; others: of the other studies of its table. Their laws stand in the order of
    `usual`, the weights without any forecast.
    """
    w = np.array(list(usual.values()), float)
    w /= w.sum()
    for parts in (others, [own]):
        if sum(len(part.share) for part in parts):
            log_score, share = map(np.concatenate, zip(*parts, strict=True))
            w = stacking(log_score, share, strength * w)
    return dict(zip(usual, w.tolist(), strict=True))


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


def by_origin(forecasts: Iterable[Ahead], laws: Iterable[str]) -> dict[int, list[HeldOut]]:
    """What each law says from each origin that all of them have passed, the earliest first."""
    by: dict[int, dict[str, HeldOut]] = {}
    for law, origin, found in forecasts:
        by.setdefault(origin, {})[law] = found
    asked = list(laws)
    return {k: [by[k][law] for law in asked] for k in sorted(by) if by[k].keys() >= set(asked)}


def mixtures(
    forecasts: Iterable[Ahead], weights: Mapping[str, float], *, seed: int = 0
) -> dict[int, HeldOut]:
    """The mixture's forecast from each origin that all laws have passed, the earliest first."""
    whole = by_origin(forecasts, weights)
    return {k: mix(laws, list(weights.values()), seed=seed) for k, laws in whole.items()}


def mix(parts: Sequence[HeldOut], weights: Sequence[float], *, seed: int = 0) -> HeldOut:
    """The mixture's forecast of held-out cells."""
    rows = chosen([len(part.measured) for part in parts], weights, seed=seed)
    picked = list(zip(parts, rows, strict=True))
    measured = np.concatenate([part.measured[own] for part, own in picked])
    curve = np.concatenate([part.curve[own] for part, own in picked])
    density = [np.log(w) + part.log_score for part, w in zip(parts, weights, strict=True) if w > 0]
    log_score = np.asarray(logsumexp(density, axis=0))
    return HeldOut(parts[0].cells, measured, curve, log_score)


def mix_predictions(
    parts: Sequence[xr.Dataset], weights: Sequence[float], *, seed: int = 0
) -> xr.Dataset:
    """The mixture of predictions at the same shots: a Dataset as of `predict`, of one chain."""
    sizes = [part.sizes["chain"] * part.sizes["draw"] for part in parts]
    picked = []
    for part, rows in zip(parts, chosen(sizes, weights, seed=seed), strict=True):
        one = part.drop_vars(["belief", "believed"], errors="ignore")
        one = one.stack(sample=("chain", "draw"), create_index=False)
        picked.append(one.isel(sample=rows).drop_vars(["chain", "draw"]))
    whole = xr.concat(picked, "sample", data_vars="minimal", coords="minimal", join="exact")
    whole = whole.rename(sample="draw").expand_dims(chain=[0])
    whole = whole.assign_coords(draw=np.arange(whole.sizes["draw"]))
    order = ("chain", "draw", "hypothesis", "shots")
    return whole.transpose(*order).assign_attrs(parts[0].attrs)


def chosen(sizes: Sequence[int], weights: Sequence[float], *, seed: int = 0) -> list[np.ndarray]:
    """Which draws of each part make a mixture: as many in all as the smallest part has.

    sizes: draws of each part. One array of positions a part, each position at most once.
    """
    rng = np.random.default_rng(seed)
    counts = shares(weights, min(sizes))
    return [rng.choice(n, m, replace=False) for n, m in zip(sizes, counts, strict=True)]


def shares(weights: Sequence[float], n: int) -> np.ndarray:
    """Whole numbers that sum to n, in proportion to the weights as nearly as may be."""
    ends = np.round(np.cumsum(weights) / np.sum(weights) * n).astype(int)
    return np.diff(ends, prepend=0)
