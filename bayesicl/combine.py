"""The recipe of a stack, the same for forecasts and for the benchmark that judges them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr

from bayesicl.alarm import Heard, judge
from bayesicl.stack import STRENGTH, Ahead, Told, by_origin, mixtures, told, weigh
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
    table: Told | None = None,
    *,
    strength: float = STRENGTH,
    seed: int = 0,
) -> Combined:
    """Weigh the laws of a stack, and judge whether any of them will do.

    trees: fits of one study, by law. forecasts: of its fitted cells from the origins (`ahead`),
    their laws named as in `trees`. usual: weights without any forecasts, of these laws and of those
    that broke down here; strength: how many origins these count for. table: what the laws of
    `usual` foretold of all the studies of the table; None where there is one study. seed: of
    everything random.
    """
    if table is not None:
        kept = [place for place, law in enumerate(usual) if law in trees]
        table = table._replace(log_score=table.log_score[:, kept])
    usual = {law: weight for law, weight in usual.items() if law in trees}
    weights = weigh(told(forecasts, list(usual)), usual, table, strength=strength)
    early = list(by_origin(forecasts, trees).values())
    heard = judge(list(trees.values()), [weights[law] for law in trees], early, seed=seed)
    study = study_of(next(iter(trees.values())))
    factor = needed(mixtures(forecasts, weights, seed=seed), study) if heard.rung else 1.0
    return Combined(weights, heard, factor)
