"""When no law is adequate: what says so, and by how much bands must then be wider.

Three things ring, each about 1 time in 100 or less where one law of the stack, however light, and
its prior hold: a share is the largest over the laws, each compared with its own draws.

- the fitted cells conflict with the prior (Box 1980; Evans & Moshonov 2006, "Checking for
  prior-data conflict"): fewer than 1 % of the curves that the prior draws lie as far from the rest
  as they do;
- they were not foreseen. Each stretch of cells, from one origin to the next, is compared in the
  same way with what the fit to the cells before it draws. Such shares are uniform and independent
  of each other, however much the cells of one stretch go together. The least of them is judged by
  how small the least of so many would be (Sidak);
- they fall where no law can, beyond the measurements' own errors, and fewer than 1 % of new
  measurements under the noise that was fitted, and a law's misfit as large as was fitted, fall as
  far. A fall within that is a caution.

When one rings, spreads of the forecast about its median are multiplied, outside the fitted shots,
by the factor that gives the forecasts from the origins the best score (`needed`), never by less
than 1; less within a doubling of the fitted shots, which nothing jumps at (`growth`).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.device import precision
from bayesicl.errors import FALL
from bayesicl.fall import steepest
from bayesicl.law import Law
from bayesicl.program import arrays
from bayesicl.restore import engine_of, natural_values
from bayesicl.scale import scale_of
from bayesicl.score import HeldOut
from bayesicl.study import Study
from bayesicl.tree import label, remarks, study_of

RARE = 0.01
RIDGE = 0.05  # of a cell's variance: cells that go together exactly would tell nothing of y
FAINT = 1e-4  # a share below that is not told: it is of a tail that a thousand draws show
FINEST = 1e-3  # sd of a forecast, in probability: a share of items is not known better


def oddness(y: np.ndarray, draws: np.ndarray) -> float:
    """Share of the draws that lie at least as far from the rest as y does, y among them.

    y: (cells,). draws: (n, cells), of the same cells together; those that are not finite are left
    out. Far is by Mahalanobis' distance from the others of the n + 1, so that y, where it is one
    more draw, has any rank as often as another: the share is uniform. Where y lies beyond every
    draw, no rank tells how far: the share is that of the draws' tail there (`_beyond`), at most
    1 / (n + 1), so that it still lies below that no more often than 1 time in n + 1.

    >>> import numpy as np
    >>> draws = np.random.default_rng(0).normal(size=(999, 2))
    >>> oddness(np.array([9.0, 9.0]), draws) < 0.001, oddness(np.zeros(2), draws) > 0.9
    (True, True)
    """
    z = np.vstack([y, draws[np.isfinite(draws).all(axis=1)]])
    z = z - z.mean(axis=0)
    scale = z.std(axis=0)
    z = z / np.where(scale > 0, scale, 1.0)
    covariance = z.T @ z / len(z) + RIDGE * np.eye(z.shape[1])
    own = np.sum(z * np.linalg.solve(covariance, z.T).T, axis=1)
    distance = own / (1.0 - own / len(z))  # with the one's own part in the covariance taken out
    share = float(np.mean(distance >= distance[0] * (1 - 1e-9)))
    return share if share * len(z) > 1.5 else min(share, _beyond(distance[0], distance[1:]))


def _beyond(x: float, draws: np.ndarray) -> float:
    """Share of what the draws are of that exceeds x, which they may not reach.

    By a generalised Pareto tail of the largest tenth of the draws, fitted by probability-weighted
    moments (Hosking & Wallis 1987), and never lighter than an exponential one. 1 where the draws
    have no tail.
    """
    ordered = np.sort(draws)
    n = len(ordered)
    m = max(10, n // 10)
    if n <= m:
        return 1.0
    excess = ordered[-m:] - ordered[-m - 1]
    mean = excess.mean()
    if mean <= 1e-9 * ordered[-1]:
        return 1.0
    first = np.mean(excess * (m - np.arange(1, m + 1) + 0.35) / m)
    shape = max(0.0, 2.0 - mean / (mean - 2.0 * first))
    spread = mean * (1.0 - shape)  # which keeps the mean
    far = (x - ordered[-m - 1]) / spread
    tail = np.exp(-far) if shape < 1e-6 else (1.0 + shape * far) ** (-1.0 / shape)
    return float(m / n * tail)


def conflict(trees: Sequence[xr.DataTree]) -> float:
    """`oddness` of the fitted cells among what is measured of curves from the prior.

    trees: fits of one study, a law each. Of their shares the largest: each is right where its own
    law holds, and one that finds nothing odd is enough.
    """
    y = trees[0]["observed_data"]["y"].to_numpy()
    return max(oddness(y, _measured(tree, "prior_predictive")) for tree in trees)


def _measured(tree: xr.DataTree, group: str) -> np.ndarray:
    drawn = tree[group]["y"].transpose("chain", "draw", "cell").to_numpy()
    return drawn.reshape(-1, drawn.shape[-1])


def stretches(forecasts: Sequence[Sequence[HeldOut]]) -> list[tuple[pd.DataFrame, float]]:
    """Each stretch of cells from one origin to the next, and its `oddness` as seen from there.

    forecasts: of all fitted cells ahead of each origin, by each law, the earliest origin first
    (`stack.by_origin`). Of the laws' shares the largest, as in `conflict`.
    """
    found = []
    for i, laws in enumerate(forecasts):
        cells = laws[0].cells
        if i + 1 < len(forecasts):
            cells = cells[~cells.index.isin(forecasts[i + 1][0].cells.index)]
        own = [law.among(cells.index) for law in laws]
        y = cells["y"].to_numpy()
        found.append((cells, max(oddness(y, one.measured) for one in own)))
    return found


def falling(trees: Sequence[xr.DataTree], law: str | Path | Law | None = None) -> float:
    """Share of new measurements of the fitted cells that fall as far as the cells do.

    By `fall.steepest`, with the noise that was fitted (`anew`); of laws the largest share. It errs
    on the side of silence: these cells have told the fit of their scatter. law: where to find a
    user's law that has moved since the fit.
    """
    shares = []
    for tree in trees:
        y, study = tree["observed_data"]["y"], tree["study"]
        hypothesis = study["hypothesis"].to_numpy()[y["cell"].to_numpy()]
        scale = scale_of(study.attrs["outcome"])
        drawn = anew(tree, law)
        drawn = drawn[np.isfinite(drawn).all(axis=1)]
        drops = steepest(np.vstack([y.to_numpy(), drawn]), hypothesis, scale)
        shares.append(float(np.mean(drops >= drops[0] - 1e-6)))  # draws are kept in float32
    return max(shares)


def anew(tree: xr.DataTree, law: str | Path | Law | None = None) -> np.ndarray:
    """New measurements of the fitted cells, a draw of the posterior each: (draws, cells).

    Law and sizes of the noise are those of the fit; all else is drawn as if no cell had been seen,
    the path of a law's misfit, too, which would follow a fall.
    """
    study = study_of(tree)
    with precision():
        design, data = arrays(study, backgrounds=int(tree.attrs["backgrounds"]))
        unseen = data | {"fitted": np.zeros_like(data["fitted"])}
        told = engine_of(tree, law).describe(
            jax.random.key(0), natural_values(tree), design, unseen, seen=False
        )
    fitted = np.flatnonzero(study.cells["fitted"])
    return told["y"].reshape(-1, told["y"].shape[-1])[:, fitted]


def alarms(
    trees: Sequence[xr.DataTree],
    weights: Sequence[float],
    forecasts: Sequence[Sequence[HeldOut]] = (),
    *,
    law: str | Path | Law | None = None,
) -> list[str]:
    """Why no law here is adequate, each reason in a sentence; none where all seems well.

    trees: fits of one study under the laws of a stack, or under one law. weights: of the laws; the
    heaviest says where the curve falls. forecasts: see `stretches`. law: see `falling`.
    """
    found = []
    if (share := conflict(trees)) < RARE:
        found.append(
            f"the fitted cells conflict with the prior ({_share(share)} of its curves are as odd)"
        )
    if odd := stretches(forecasts):
        cells, least = min(odd, key=lambda pair: pair[1])
        if 1 - (1 - least) ** len(odd) < RARE:
            shots = cells["shots"]
            found.append(
                f"the cells before did not foresee those at {_span(shots.min(), shots.max())} "
                f"shots ({_share(least)} of forecasts are as odd)"
            )
    told = falls(trees, weights)
    return found + (told if told and falling(trees, law) < RARE else [])


def falls(trees: Sequence[xr.DataTree], weights: Sequence[float]) -> list[str]:
    """Falls beyond the measurements' own errors; none where a law of the stack may fall.

    They ring only where they are beyond the noise that was fitted, too (`falling`).
    """
    if not all(remarks(tree.attrs, FALL) for tree in trees):
        return []
    heaviest = trees[int(np.argmax(weights))]
    named = f"{label(heaviest)}: "
    return [fall.removeprefix(named) for fall in remarks(heaviest.attrs, FALL)]


def needed(forecasts: Sequence[HeldOut]) -> float:
    """The factor on spreads about medians that gives forecasts from origins the best score; >= 1.

    That is the score of Dawid & Sebastiani (1999), log(sd^2) + (error / sd)^2, summed over cells,
    each origin counting as one: its best factor is the root mean square of error / sd. 1 where
    there is no forecast.
    """
    squares = []
    for found in forecasts:
        drawn = found.measured[np.isfinite(found.measured).all(axis=1)]
        if not len(drawn):
            continue
        error = found.cells["y"].to_numpy() - np.median(drawn, axis=0)
        sd = np.maximum(drawn.std(axis=0), FINEST)
        squares.append(np.mean((error / sd) ** 2))
    return max(1.0, float(np.sqrt(np.mean(squares)))) if squares else 1.0


def growth(study: Study, names: np.ndarray, shots: np.ndarray, factor: float) -> np.ndarray:
    """By what spreads are wider at these shots of these curves: 1 within the fit, then up to it.

    names: of hypotheses; shots: of each, broadcast against them. It grows over log(1 + shots) from
    1 at the last (or first) fitted shots to `factor` where 1 + shots has doubled (or halved), so
    that no curve jumps where its fit ends.
    """
    fitted = study.cells[study.cells["fitted"]].groupby("hypothesis")["shots"]
    place = np.vectorize(study.hypotheses.index, otypes=[int])(names)
    first, last = (fitted.agg(end).to_numpy(float)[place] for end in ("min", "max"))
    beyond = np.maximum(np.log1p(shots) - np.log1p(last), np.log1p(first) - np.log1p(shots))
    return 1.0 + (factor - 1.0) * np.clip(beyond / np.log(2.0), 0.0, 1.0)


def widened(prediction: xr.Dataset, study: Study, factor: float) -> xr.Dataset:
    """A prediction (of `predict`) for a study, wider about its median beyond the fitted shots.

    Draws there lie farther from it by `growth`, cut to what means can be; those of the law's own
    part, of which gains are told, are left as they are. attrs["widened"] is the factor.
    """
    if factor == 1:
        return prediction
    names, shots = (prediction[name].to_numpy() for name in ("hypothesis", "shots"))
    by = growth(study, names[:, None], shots, factor)
    by = xr.DataArray(by, dims=("hypothesis", "shots"))

    def spread(x: xr.DataArray) -> xr.DataArray:
        middle = x.median(("chain", "draw"))
        far = (middle + by * (x - middle)).transpose(*x.dims)
        return x.where(by == 1, far.copy(data=study.scale.cut(far.to_numpy()))).transpose(*x.dims)

    new = {name: spread(prediction[name]) for name in json.loads(prediction.attrs["bands"])}
    return prediction.assign(new).assign_attrs(widened=factor)


def widened_cells(found: HeldOut, study: Study, factor: float) -> HeldOut:
    """The same of held-out cells; what is widened has no density any more."""
    if factor == 1:
        return found
    cells = found.cells
    by = growth(study, cells["hypothesis"].to_numpy(), cells["shots"].to_numpy(), factor)

    def spread(x: np.ndarray) -> np.ndarray:
        middle = np.median(x, axis=0)
        return np.where(by == 1, x, study.scale.cut(middle + by * (x - middle)))

    log_score = np.where(by == 1, found.log_score, np.nan)
    return HeldOut(cells, spread(found.measured), spread(found.curve), log_score)


def in_words(reasons: Sequence[str], factor: float) -> str:
    """What `alarms` found, and what became of the bands; "" where nothing was found."""
    if not reasons:
        return ""
    meant = "No law here is adequate: lean on no band"
    if factor > 1:
        meant += f", though those beyond the fit are up to {factor:.2g} times as wide as the laws'"
    return f"ALARM: {'; '.join(reasons)}. {meant}."


def caution(fall: str) -> str:
    """What to say of a fall that did not ring."""
    return f"caution: {fall}; yet noise as it was fitted may come out so."


def _share(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= FAINT else f"fewer than {100 * FAINT:g} %"


def _span(first: float, last: float) -> str:
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"
