"""What a mean curve is a number of: the probability of the right answer, or the mean nll.

Every outcome, law and noise is on one scale. What differs between scales is said here, so that
nobody else asks which one it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NEAR = 1e-3  # nats: a mean nll that is nearer to 0 scatters as if it were about here


@dataclass(frozen=True)
class Scale:
    """One scale of mean curves; means are at least 0.

    name: for messages. outcomes: of tables, that are on it. symbol: of the mean curve. unit: for
    messages. prefix: of the kinds of study that are on it.
    top: the largest mean. better: 1 where larger means are better, -1 where smaller ones are.
    worse: what a curve does that gets worse. of_probability: the mean where the probability of the
    right answer is the same for all prompts.
    variance: of one prompt at a mean m, up to a factor c that noises learn. bend: half its second
    derivative. most: the largest c that there can be. error: of a mean over so many prompts, for
    bars where nothing tells of it.
    """

    name: str
    outcomes: tuple[str, ...]
    symbol: str
    unit: str
    prefix: str
    top: float
    better: int
    worse: str
    of_probability: Callable[[Any], Any]
    variance: Callable[[Any], Any]
    bend: Callable[[Any], Any]
    most: float
    error: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def cut(self, y: np.ndarray) -> np.ndarray:
        """Values moved to the nearest that a mean can have."""
        return np.clip(y, 0.0, self.top)


def _binomial_error(p: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Two successes and two failures added (Agresti and Coull), so that no bar has length 0."""
    shrunk = (p * n + 2) / (n + 4)
    return np.sqrt(shrunk * (1 - shrunk) / (n + 4))


PROBABILITY = Scale(
    name="probability",
    outcomes=("counts", "prob"),
    symbol="p",
    unit="probability",
    prefix="",
    top=1.0,
    better=1,
    worse="fall",
    of_probability=lambda p: p,
    variance=lambda m: m * (1.0 - m),
    bend=lambda m: -1.0,
    most=1.0,
    error=_binomial_error,
)
# Of 16 measured curves the variance over prompts goes with the mean nll to the power of 1.0 to 2.3,
# 1.45 at the median.
MEAN_NLL = Scale(
    name="mean_nll",
    outcomes=("mean_nll",),
    symbol="nll",
    unit="nats",
    prefix="nll ",
    top=float("inf"),
    better=-1,
    worse="rise",
    of_probability=lambda p: -np.log(p),
    variance=lambda m: (m + NEAR) ** 1.5,
    bend=lambda m: 0.375 / (m + NEAR) ** 0.5,
    most=float("inf"),
    error=lambda m, n: np.sqrt(MEAN_NLL.variance(m) / n),
)


def scale_of(outcome: str) -> Scale:
    """The scale of an outcome: "counts", "prob" or "mean_nll".

    >>> scale_of("counts").name
    'probability'
    """
    return next(scale for scale in (PROBABILITY, MEAN_NLL) if outcome in scale.outcomes)
