"""When no law is adequate: what says so.

Three things ring, each about 1 time in 100 or less where one law of the stack, however light, its
prior and its noise hold: a share is the largest over the laws, each compared with its own draws. Of
many sound studies up to 3 in 100 ring. A noise that takes cells for independent which share their
prompts is not held: then they ring more often.

- the fitted cells conflict with the prior (Box 1980; Evans & Moshonov 2006, "Checking for
  prior-data conflict"): fewer than 1 % of the curves that the prior draws lie as far from the rest
  as they do;
- they were not foreseen. Each stretch of cells, from one origin to the next, is compared in the
  same way with what the fit to the cells before it draws. Such shares are uniform and independent
  of each other, however much the cells of one stretch go together. The least of them is judged by
  how small the least of so many would be (Sidak);
- a curve falls where no law can, beyond the cells' errors as they are drawn (see `fall`), and fewer
  than 1 % of new measurements under the noise that was fitted, and a law's misfit as large as was
  fitted, fall as far. A fall within that is a caution.

When one rings, bands are wider beyond the fit: see `widen`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.device import precision
from bayesicl.errors import FALL
from bayesicl.fall import steepest
from bayesicl.law import Law
from bayesicl.program import arrays, study_key
from bayesicl.restore import engine_of, natural_values
from bayesicl.score import HeldOut
from bayesicl.tree import remarks, study_of

RARE = 0.01
RIDGE = 0.05  # of a cell's variance: cells that go together exactly would tell nothing of y
FAINT = 1e-4  # a share below that is not told: it is of a tail that a thousand draws show
FEWEST = 100  # draws: fewer cannot show what is rare


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
    share = float(np.mean(distance >= distance[0] * (1 - 1e-6)))  # draws are kept in float32
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


def falls(trees: Sequence[xr.DataTree], weights: Sequence[float]) -> dict[int, str]:
    """Falls beyond the cells' own errors, by curve; none where a law here may fall.

    They are told in the words of the heaviest law, and ring only where they are beyond the noise
    that was fitted, too (`falling`).
    """
    study, found = study_of(trees[0]), {}
    heaviest = trees[int(np.argmax(weights))]
    for h, name in enumerate(study.hypotheses):
        own = f"{study.curve_name(h)}: {study.scale.worse}s"
        told = [[r for r in remarks(t.attrs, FALL) if r.startswith(own)] for t in trees]
        if all(told):
            curve = f"hypothesis {name} " if len(study.hypotheses) > 1 else ""
            fall = next(r for r in remarks(heaviest.attrs, FALL) if r.startswith(own))
            found[h] = curve + fall.removeprefix(f"{study.curve_name(h)}: ")
    return found


def falling(trees: Sequence[xr.DataTree], drawn: Sequence[np.ndarray], curve: int) -> float:
    """Share of new measurements of a curve's fitted cells that fall as far as the cells do.

    drawn: of each fit, new measurements (draws, cells) under the noise that was fitted (`anew`). By
    `fall.steepest`; of laws the largest share. It errs on the side of silence: these cells have
    told the fit of their scatter.
    """
    cells = study_of(trees[0]).cells
    own = cells.loc[cells["fitted"], "hypothesis"].to_numpy() == curve
    scale = study_of(trees[0]).scale
    shares = []
    for tree, again in zip(trees, drawn, strict=True):
        again = again[np.isfinite(again).all(axis=1)]
        y = np.vstack([tree["observed_data"]["y"].to_numpy(), again])
        drops = steepest(y[:, own], scale)
        shares.append(float(np.mean(drops >= drops[0] - 1e-9)))
    return max(shares)


def anew(tree: xr.DataTree, *, law: str | Path | Law | None = None, seed: int = 0) -> np.ndarray:
    """New measurements of the fitted cells, a draw of the posterior each: (draws, cells).

    Law and sizes of the noise are those of the fit; all else is drawn as if no cell had been seen,
    the path of a law's misfit, too, which would follow a fall.
    """
    study = study_of(tree)
    with precision():
        design, data = arrays(study, backgrounds=int(tree.attrs["backgrounds"]))
        unseen = data | {"fitted": np.zeros_like(data["fitted"])}
        key = study_key(seed, study, "anew")
        told = engine_of(tree, law).describe(key, natural_values(tree), design, unseen, seen=False)
    fitted = np.flatnonzero(study.cells["fitted"])
    return told["y"].reshape(-1, told["y"].shape[-1])[:, fitted]


class Heard(NamedTuple):
    """rung: why no law is adequate, each reason in a sentence. cautions: what did not ring.

    judged: whether anything could have rung.
    """

    rung: list[str]
    cautions: list[str]
    judged: bool = True


def judge(
    trees: Sequence[xr.DataTree],
    weights: Sequence[float],
    forecasts: Sequence[Sequence[HeldOut]] = (),
    *,
    law: str | Path | Law | None = None,
    seed: int = 0,
) -> Heard:
    """What speaks against all these laws together; nothing where all seems well.

    trees: fits of one study under the laws of a stack, or under one law, with FEWEST draws or more.
    weights: of the laws; the heaviest says where the curve falls. forecasts: see `stretches`. law:
    where to find a user's law that has moved since the fit. seed: of new measurements.
    """
    told = falls(trees, weights)
    drawn = [_measured(tree, "prior_predictive") for tree in trees]
    drawn += [one.measured for laws in forecasts for one in laws]
    if any(np.isfinite(x).all(axis=1).sum() < FEWEST for x in drawn):
        few = f"alarms are not judged by fewer than {FEWEST} draws"
        return Heard([], [few, *told.values()], False)
    rung, cautions = [], []
    if (share := conflict(trees)) < RARE:
        rung.append(
            f"the fitted cells conflict with the prior ({_share(share)} of its curves are as odd)"
        )
    if odd := stretches(forecasts):
        cells, least = min(odd, key=lambda pair: pair[1])
        if _least_of(least, len(odd)) < RARE:
            shots = cells["shots"]
            rung.append(
                f"the cells before did not foresee those at {_span(shots.min(), shots.max())} "
                f"shots ({_share(least)} of forecasts are as odd)"
            )
    again = [anew(tree, law=law, seed=seed) for tree in trees] if told else []
    curves = len(study_of(trees[0]).hypotheses)
    few = any(np.isfinite(x).all(axis=1).sum() < FEWEST * curves for x in again)
    for curve, fall in told.items():
        if few:
            cautions.append(f"{fall}; draws are too few to say whether noise may come out so")
        elif _least_of(falling(trees, again, curve), curves) < RARE:
            rung.append(fall)
        else:
            cautions.append(f"{fall}; yet noise and misfit as they were fitted may come out so")
    return Heard(rung, cautions)


def _least_of(share: float, n: int) -> float:
    """How probable it is that the least of n independent uniform shares is as small (Sidak)."""
    return float(-np.expm1(n * np.log1p(-min(share, 1 - 1e-12))))


def in_words(rung: Sequence[str], factor: float) -> str:
    """What rang, and what became of the bands; "" where nothing did."""
    if not rung:
        return ""
    meant = "No law judged here is adequate under its prior: lean on no band"
    if factor > 1:
        meant += f", though those beyond the fit are up to {factor:.2g} times as wide as the laws'"
    return f"ALARM: {'; '.join(rung)}. {meant}."


def _share(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= FAINT else f"fewer than {100 * FAINT:g} %"


def _span(first: float, last: float) -> str:
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"
