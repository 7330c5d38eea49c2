"""Forecasts of the shots at which a curve reaches a threshold: P(n* <= N) at fixed N.

Thresholds are fixed before what follows is seen: a quarter and a half of the way from the last
fitted value to 1 (a curve that stands at 1 has none). N are powers of two beyond the fitted shots,
moved down to a measured number of shots, and the longest, so that a crossing between two measured
ones, whose place nobody knows, is never asked for. All curves count, whether they cross or not.
What happened is read off the measured means after isotonic regression, lest one noisy cell be a
crossing.
"""

from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from bayesicl.study import Study

WAY = (0.25, 0.5)
HORIZONS = 2 ** np.arange(2, 13)


def events(study: Study, curve: np.ndarray) -> list[dict[str, Any]]:
    """One row a curve, threshold and N; `curve`: draws (n, held-out cells) of the mean curve."""
    rows = []
    cells = study.cells
    held = cells.index[~cells["fitted"]]
    for h, hypothesis in enumerate(study.hypotheses):
        own = cells[cells["hypothesis"] == h]
        shots, y = own["shots"].to_numpy(), own["y"].to_numpy()
        fitted = own["fitted"].to_numpy()
        smooth = isotonic_regression(y, weights=_weights(own)).x
        ahead_of = curve[:, held.isin(own.index)]
        ahead, last = shots[~fitted], y[fitted][-1]
        N = [*HORIZONS[shots[-1] >= HORIZONS], shots[-1]]
        at = np.searchsorted(ahead, N, side="right") - 1
        for i in np.unique(at[at >= 0]):
            for way in WAY if last < 1 else ():
                threshold = last + way * (1 - last)
                there = (ahead_of >= threshold).mean(axis=0)
                rows.append(
                    {
                        "hypothesis": hypothesis,
                        "way": way,
                        "threshold": float(threshold),
                        "N": int(ahead[i]),
                        "probability": float(there[: i + 1].max()),
                        "happened": bool(smooth[~fitted][i] >= threshold),
                    }
                )
    return rows


def _weights(cells) -> np.ndarray:
    return (cells["total"].fillna(1.0) * cells["replicates"]).to_numpy(float)
