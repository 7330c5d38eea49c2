"""By how much bands are wider beyond the fit where no law is adequate (`alarm`).

Spreads of the forecast about its median are multiplied, beyond the last fitted shots, by a factor
that grows from 1 to its full size within a doubling of them (`growth`), so that nothing jumps: the
one with which the forecasts from the origins score best (`needed`). These tell nothing of what lies
before the first fitted shots, and nothing is wider there.
"""

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesicl.score import HeldOut
from bayesicl.stack import at_origin
from bayesicl.study import Study

WIDEST = 10.0  # beyond which bands say nothing at all
GRID = 1001  # factors that are tried
FINEST = 1e-3  # sd of a forecast, in probability or nats: a share of items is not known better


def needed(forecasts: Mapping[int, HeldOut], study: Study) -> float:
    """The factor on spreads that gives the forecasts from a study's origins the best score.

    forecasts: by origin (`stack.mixtures`), of fitted cells of the study. Spreads grow up to the
    factor by `growth` from each origin on. The score is that of Dawid & Sebastiani (1999),
    log(sd^2) + (error / sd)^2, summed over cells, each origin counting as one. Between 1, also
    where there is no forecast, and WIDEST. The laws' weights come of the same cells, and late cells
    count at many origins: it is a rule of thumb, and so low rather than high.
    """
    told = []
    for k, found in forecasts.items():
        drawn = found.measured[np.isfinite(found.measured).all(axis=1)]
        if not len(drawn):
            continue
        cells = found.cells
        z = (cells["y"].to_numpy() - np.median(drawn, axis=0)) / np.maximum(drawn.std(0), FINEST)
        by = growth(
            at_origin(study, k), cells["hypothesis"].to_numpy(), cells["shots"].to_numpy(), 2.0
        )
        told.append((by - 1.0, z))
    if not told:
        return 1.0

    def loss(log_factor: float) -> float:
        spreads = [(1.0 + np.expm1(log_factor) * grown, z) for grown, z in told]
        return sum(float(np.mean(2.0 * np.log(by) + (z / by) ** 2)) for by, z in spreads)

    grid = np.linspace(0.0, np.log(WIDEST), GRID)
    return float(np.exp(grid[np.argmin([loss(x) for x in grid])]))


def growth(study: Study, names: np.ndarray, shots: np.ndarray, factor: float) -> np.ndarray:
    """By what spreads are wider at these shots of these curves: 1 up to the fit's end, then more.

    names: of hypotheses; shots: of each, broadcast against them. It grows over log(1 + shots) from
    1 at the last fitted shots to `factor` where 1 + shots has doubled, so that no curve jumps where
    its fit ends.
    """
    fitted = study.cells[study.cells["fitted"]].groupby("hypothesis")["shots"]
    place = np.vectorize(study.hypotheses.index, otypes=[int])(names)
    beyond = np.log1p(shots) - np.log1p(fitted.max().to_numpy(float)[place])
    return 1.0 + (factor - 1.0) * np.clip(beyond / np.log(2.0), 0.0, 1.0)


def widened(prediction: xr.Dataset, study: Study, factor: float) -> xr.Dataset:
    """A prediction (of `predict`) for a study, wider about its median beyond the fitted shots.

    Draws there lie farther from it by `growth`, cut to what means can be; those of the law's own
    part, of which gains are told, are left as they are. The coordinate `widened` tells
    by how much, and attrs["widened"] is the factor.
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
    return prediction.assign(new).assign_coords(widened=by).assign_attrs(widened=factor)


def widened_cells(found: HeldOut, study: Study, factor: float) -> HeldOut:
    """The same of held-out cells. Their density stays what it was before they were widened."""
    if factor == 1:
        return found
    cells = found.cells
    by = growth(study, cells["hypothesis"].to_numpy(), cells["shots"].to_numpy(), factor)

    def spread(x: np.ndarray) -> np.ndarray:
        middle = np.median(x, axis=0)
        return np.where(by == 1, x, study.scale.cut(middle + by * (x - middle)))

    return HeldOut(cells, spread(found.measured), spread(found.curve), found.log_score)
