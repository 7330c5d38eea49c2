"""Calibration: how far the ranks of simulated truths stray from uniform ones."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesicl.plot_parts import ALERT, COLOURS, GREY, STYLE, key_below, wrap
from bayesicl.ranks import LEVEL, Calibration
from bayesicl.uniformity import RANKED, band

_COLUMNS = 4  # panels beside each other, at most


def plot_calibration(found: Calibration) -> Figure:
    """ECDF of each quantity's ranks less that of uniform ranks, with the simultaneous band.

    One panel a quantity. Below 0 in the middle: truths lie above what the fit says, its estimates
    are too low. A slope that is steep at both ends: intervals are too narrow. Quantities that leave
    the band are red.

    Args:
        found: from `bayesicl.calibrate.calibrate`.

    Example:
        >>> from bayesicl import Settings
        >>> from bayesicl.calibrate import calibrate
        >>> from bayesicl.plot import plot_calibration
        >>> found = calibrate("power", simulations=2, settings=Settings(warmup=100, draws=100))
        >>> [ax.get_title() for ax in plot_calibration(found).axes][:3]
        ['C', 'alpha', 'L']
    """
    n, names = len(found.ranks), list(found.ranks)
    lines = -(-len(names) // _COLUMNS)
    columns = -(-len(names) // lines)
    low, high = band(n, level=found.level)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.5 * columns + 0.8, 2.0 * lines + 1.6), layout="constrained")
        axes = np.ravel(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False))
        for ax, name in zip(axes, names, strict=False):
            _panel(ax, found.ranks[name].to_numpy(), low, high, name in found.strays)
            ax.set_title(name)
        for ax in axes[len(names) :]:
            ax.remove()
        for ax in axes[max(0, len(names) - columns) : len(names)]:
            ax.tick_params(labelbottom=True)  # also where the panel below is missing
            ax.set_xlabel("rank of the truth\namong draws (share)")
        for ax in axes[: len(names) : columns]:
            ax.set_ylabel("ECDF of ranks,\nless uniform")
        width = round(11.5 * figure.get_size_inches()[0])
        word = {True: "calibrated", False: "NOT calibrated", None: "too few to tell"}
        head = f"{found.title}: {n} simulations, {word[found.calibrated]}"
        bad = found.calibrated is False
        figure.suptitle(wrap(head, width), color=ALERT if bad else "black")
        key_below(figure, _key(found.strays), columns=1)
    return figure


def _panel(ax: Axes, ranks: np.ndarray, low: np.ndarray, high: np.ndarray, stray: bool) -> None:
    size = RANKED + 1
    share = np.arange(1, size) / size
    ecdf = np.cumsum(np.bincount(ranks, minlength=size))[:-1] / len(ranks)
    ends = (np.concatenate([[0.0], x, [0.0]]) for x in (low - share, high - share, ecdf - share))
    x = np.concatenate([[0.0], share, [1.0]])
    lower, upper, own = ends
    ax.fill_between(x, lower, upper, color=GREY, alpha=0.2, linewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    ax.plot(x, own, color=ALERT if stray else COLOURS[0], linewidth=1.3)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], labels=["0", ".5", "1"])


def _key(strays: list[str]) -> list:
    entries = [
        Line2D([], [], color=COLOURS[0], label="ranks found, less uniform ranks"),
        Patch(
            color=GREY, alpha=0.2, linewidth=0,
            label=f"{100 * LEVEL:g} % band, for all quantities at once",
        ),
    ]  # fmt: skip
    if strays:
        entries.insert(1, Line2D([], [], color=ALERT, label="the same, of ranks outside the band"))
    return entries
