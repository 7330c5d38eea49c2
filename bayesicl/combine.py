"""The recipe of a stack, the same for forecasts and for the benchmark that judges them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr

from bayesicl.alarm import Heard, judge
from bayesicl.stack import STRENGTH, Ahead, Foretold, by_origin, foretold, mixtures, weigh
from bayesicl.tree import study_of
from bayesicl.widen import needed


class Combined(NamedTuple):
    """weights: of the laws; they sum to 1. heard: what speaks against all of them together.

    factor: by which bands are wider beyond the fit for that.
    """

    weights: dict[str, float]
    heard: Heard
    factor: float


def combine(
    trees: Mapping[str, xr.DataTree],
    forecasts: Sequence[Ahead],
    usual: Mapping[str, float],
    others: Sequence[Foretold] = (),
    *,
    strength: float = STRENGTH,
    seed: int = 0,
) -> Combined:
    """Weigh the laws of a stack, and judge whether any of them will do.

    trees: fits of one study, by law. forecasts: of its fitted cells from the origins (`ahead`),
    their laws named as in `trees`. usual: weights of these laws without any forecasts; strength:
    how many origins these count for. others: what the laws, as in `trees`, foretold of the other
    studies of the table. seed: of everything random.
    """
    own = foretold(forecasts, list(trees))
    weights = weigh(own, {law: usual[law] for law in trees}, others, strength=strength)
    early = list(by_origin(forecasts, trees).values())
    heard = judge(list(trees.values()), [weights[law] for law in trees], early, seed=seed)
    study = study_of(next(iter(trees.values())))
    factor = needed(mixtures(forecasts, weights, seed=seed), study) if heard.rung else 1.0
    return Combined(weights, heard, factor)
