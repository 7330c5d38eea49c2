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


def steepest(y: np.ndarray, scale: Scale) -> np.ndarray:
    """The largest of `drops`, y: (..., cells) of one curve; -inf of curves too short: (...)."""
    if y.shape[-1] < PARTS:
        return np.full(y.shape[:-1], -np.inf)
    return drops(y, scale).max(axis=(-2, -1))


def fall(cells: pd.DataFrame, scale: Scale) -> str:
    """Where a curve is worse than an earlier stretch beyond its errors, in words; or ''.

    Means of the stretches are told; or, where half of what lies between two means is lost from one
    cell to the next, where that is (`step`), and the means before and after it.
    Errors are those that are drawn (`Study.cells`): of mean probabilities the largest that there
    can be, of a mean nll an estimate, and where there are none nothing is said. A stretch's error
    takes its cells for independent.
    """
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
    first, last = parts[i][0], parts[j][-1]
    k = first + step(y[first : last + 1], scale)
    before, after = slice(first, k), slice(k, last + 1)
    abrupt = scale.better * (y[k - 1] - y[k]) >= abs(y[before].mean() - y[after].mean()) / 2
    where = f"between {n[k - 1]:g} and {n[k]:g} shots, " if abrupt else ""
    at = [
        f"a mean of {y[own].mean():.2f} at {_span(n[own])}"
        for own in ((before, after) if abrupt else (parts[i], parts[j]))
    ]
    return f"{where}from {at[0]} to {at[1]} shots"


def step(y: np.ndarray, scale: Scale) -> int:
    """How many of y, (2 or more cells,), lie before its largest step to the worse.

    Of all ways to part it the one that leaves least squares about the means of both parts.

    >>> from bayesicl.scale import PROBABILITY
    >>> step(np.array([0.9, 0.8, 0.9, 0.2, 0.3]), PROBABILITY)
    3
    """
    k, total = np.arange(1, len(y)), np.cumsum(y)
    before, after = total[:-1] / k, (total[-1] - total[:-1]) / k[::-1]
    return int(k[np.argmax(scale.better * (before - after) * np.sqrt(k * k[::-1]))])


def _span(shots: np.ndarray) -> str:
    return f"{shots[0]:g}" if len(shots) == 1 else f"{shots[0]:g} to {shots[-1]:g}"
