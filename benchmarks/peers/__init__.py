"""Other ways of extending one measured curve, all called alike and scored as bayesicl's laws are.

    forecast(curve, ahead, rng, n_draws) -> measured, mean

curve: Cells that were measured. ahead: Cells to be measured, whose y is not to be looked at (NaN).
measured: draws (n_draws, cells ahead) of the means that will be measured there, in [0, 1]. mean:
draws of the mean curve there, of the same shape. Each sees one curve alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Cells(NamedTuple):
    """Cells of one curve: shots, y (mean probability), total (measurements behind y), each (n,)."""

    shots: np.ndarray
    y: np.ndarray
    total: np.ndarray


Forecast = Callable[[Cells, Cells, np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def binomial(level: np.ndarray, cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """New measurements of cells whose items are answered rightly with these probabilities."""
    total = np.round(cells.total).astype(int)
    return rng.binomial(total, np.clip(level, 0.0, 1.0)) / total
