"""Where a measured curve gets worse: a later stretch of it against an earlier one."""

import numpy as np
import pandas as pd

from bayesicl.scale import Scale

PARTS = 4  # stretches of a curve: one noisy cell is no fall
LEAST = 0.02  # of a fall
ERRORS = 4.0  # beyond which it is told


def stretched(n: int) -> list[np.ndarray]:
    """Positions of the stretches of a curve of n cells, as long as each other."""
    return np.array_split(np.arange(n), PARTS)


def drops(y: np.ndarray, scale: Scale) -> np.ndarray:
    """By how much each later stretch is worse than each earlier one: (..., PARTS, PARTS).

    y: (..., cells) of one curve, PARTS cells or more. -inf where the second is not the later.
    """
    mean = np.stack([y[..., part].mean(axis=-1) for part in stretched(y.shape[-1])], axis=-1)
    drop = scale.better * (mean[..., :, None] - mean[..., None, :])
    return np.where(np.tri(PARTS, k=-1, dtype=bool).T, drop, -np.inf)


def steepest(y: np.ndarray, hypothesis: np.ndarray, scale: Scale) -> np.ndarray:
    """The largest of `drops` of any curve of a study: (...).

    y: (..., cells). hypothesis: (cells,) to which curve each belongs. -inf of curves too short.
    """
    curves = [y[..., hypothesis == h] for h in np.unique(hypothesis)]
    found = [drops(one, scale).max(axis=(-2, -1)) for one in curves if one.shape[-1] >= PARTS]
    return np.max(found, axis=0) if found else np.full(y.shape[:-1], -np.inf)


def fall(cells: pd.DataFrame, scale: Scale) -> str:
    """Where a curve is worse than an earlier stretch beyond its errors, in words; or ''."""
    if len(cells) < PARTS:
        return ""
    y, e, n = (cells[name].to_numpy() for name in ("y", "error", "shots"))
    parts = stretched(len(cells))
    error = np.array([np.sqrt((e[p] ** 2).sum()) / len(p) for p in parts])
    drop = drops(y, scale)
    beyond = (drop > ERRORS * np.hypot(error[:, None], error)) & (drop > LEAST)
    if not beyond.any():
        return ""
    i, j = np.unravel_index(np.argmax(np.where(beyond, drop, -1.0)), drop.shape)
    at = [
        f"a mean of {y[parts[k]].mean():.2f} at {n[parts[k][0]]:g} to {n[parts[k][-1]]:g} shots"
        for k in (i, j)
    ]
    return f"from {at[0]} to {at[1]}"
