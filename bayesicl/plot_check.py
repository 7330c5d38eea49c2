"""Posterior predictive check: does a fit describe the cells that it was fitted to?"""

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.ecdf_utils import ecdf_pit
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bayesicl.plot_parts import (
    GREY,
    OUTER,
    STYLE,
    colour,
    headline,
    key_below,
    marker,
    mean_axis,
    outcome,
    over_draws,
    shots_axis,
    wrap,
)
from bayesicl.tree import study_of

_SAME = 1e-9  # means of counts nearer than this are the same count
_SIMULATIONS = 2000  # behind the band


def plot_ppc(tree: xr.DataTree, *, log_shots: bool = False, seed: int = 0) -> Figure:
    """Measured cells against what the fit would measure there again, and how they rank in it.

    Left: each fitted cell's mean, with the median and 90 % interval of a new measurement of that
    cell, of its own size. Right: the empirical distribution of the probability integral transform
    (PIT; randomised where counts tie), which is uniform for an ideal forecast, with a 90 % band for
    the whole curve. Cells that helped to fit are not forecasts, and neighbours are correlated: the
    band is a guide, not a test.

    Args:
        tree: a fit.
        log_shots: draw shots on the scale of log(1 + shots), which shows 0.
        seed: of ties and of the band.

    Example:
        >>> import pandas as pd
        >>> from bayesicl import Settings, fit, read_curves
        >>> from bayesicl.plot import plot_ppc
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 5, 7, 8], "total": 10})
        >>> [tree] = fit(read_curves(table), "power", settings=Settings(warmup=100, draws=100))
        >>> [ax.get_title() for ax in plot_ppc(tree, log_shots=True).axes]
        ['fitted cells, and a new measurement of each', 'calibration over the fitted cells']
    """
    study = study_of(tree)
    predicted = tree["posterior_predictive"].to_dataset()["y"]
    cells = study.cells.loc[predicted["cell"].to_numpy()]
    rng = np.random.default_rng(seed)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.8), layout="constrained")
        over_shots, ranks = figure.subplots(1, 2, width_ratios=(1.7, 1))
        for h, name in enumerate(study.hypotheses):
            own = np.flatnonzero(cells["hypothesis"] == h)
            draws = predicted.isel(cell=own)
            _cells(over_shots, cells.iloc[own], draws, h, f"hypothesis {name}")
        shots = cells["shots"]
        mean_axis(over_shots, outcome(study), over_shots.dataLim.y1, study.scale.top)
        shots_axis(over_shots, shots.min(), shots.max(), log=log_shots)
        over_shots.set_title("fitted cells, and a new measurement of each")
        _pit_panel(ranks, pit(predicted, cells["y"].to_numpy(), rng), rng)
        key_below(figure, _key(study.hypotheses), columns=3)
        headline(figure, tree)
    return figure


def pit(draws: xr.DataArray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Probability integral transform of y (cells,) among draws (chain, draw, cell); in [0, 1]."""
    x = draws.transpose("chain", "draw", "cell").to_numpy().reshape(-1, y.size)
    below, same = (x < y - _SAME).mean(0), (np.abs(x - y) <= _SAME).mean(0)
    return below + same * rng.uniform(size=y.size)


def _cells(ax: Axes, cells: pd.DataFrame, draws: xr.DataArray, h: int, name: str) -> None:
    x = cells["shots"].to_numpy()
    low, middle, high = over_draws(draws, (OUTER[0], 0.5, OUTER[1]))
    thin = len(x) > 40
    ax.vlines(
        x, low, high, color=colour(h), alpha=0.3, linewidth=2.0 if thin else 4.0,
        label=f"90 % interval, new measurement, {name}",
    )  # fmt: skip
    ax.plot(
        x, middle, color=colour(h), marker="_", markersize=3 if thin else 8, linestyle="",
        label=f"median, new measurement, {name}",
    )  # fmt: skip
    ax.plot(
        x, cells["y"].to_numpy(), color=colour(h), marker=marker(h), linestyle="",
        markersize=2.5 if thin else 4, label=f"measured, {name}",
    )  # fmt: skip


def _pit_panel(ax: Axes, values: np.ndarray, rng: np.random.Generator) -> None:
    grid, _, low, high = ecdf_pit(values, OUTER[1] - OUTER[0], _SIMULATIONS, rng=rng)
    # An ECDF never falls: between two points it lies above the first and below the second.
    ax.fill_between(
        np.concatenate([[0.0], grid, [1.0]]),
        np.concatenate([[0.0], low, low[-1:]]),
        np.concatenate([high, [1.0, 1.0]]),
        step="post", color=GREY, alpha=0.2, linewidth=0, label="90 % simultaneous band",
    )  # fmt: skip
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="ideal: uniform PIT")
    steps = np.concatenate([[0.0], np.sort(values), [1.0]])
    share = np.append(np.arange(values.size + 1) / values.size, 1.0)
    ax.step(steps, share, where="post", color="black", linewidth=1.3, label="fitted cells")
    ax.set_title("calibration over the fitted cells")
    ax.set_xlabel("PIT: predictive probability\nof a value below the measured one")
    ax.set_ylabel("share of cells with a smaller PIT (probability)")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.01)
    ax.legend(loc="upper left")


def _key(hypotheses: tuple[str, ...]) -> list:
    one = len(hypotheses) == 1
    tone = colour(0) if one else GREY
    entries = [
        Line2D([], [], color=colour(h), marker=marker(h), label=wrap(f"hypothesis {name}", 40))
        for h, name in enumerate(hypotheses)
        if not one
    ]
    return [
        *entries,
        Line2D([], [], color=tone, marker=marker(0), linestyle="", markersize=4, label="measured"),
        Line2D([], [], color=tone, marker="_", linestyle="", label="median, new measurement"),
        Line2D([], [], color=tone, alpha=0.3, linewidth=4, label="90 % interval, new measurement"),
    ]
