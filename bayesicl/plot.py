"""Figures of fits. These plot files are the only ones that import matplotlib.

Every function returns a matplotlib Figure and leaves matplotlib's own settings alone. What a curve
means and how an interval was made is written in the figure.
"""

import json

import matplotlib
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesicl.curves import Study
from bayesicl.errors import InputError
from bayesicl.plot_calibration import plot_calibration
from bayesicl.plot_check import plot_ppc
from bayesicl.plot_many import plot_comparison, plot_forest
from bayesicl.plot_parts import (
    GREY,
    OUTER,
    STYLE,
    chance_lines,
    colour,
    dividers,
    headline,
    key_below,
    marker,
    mean_axis,
    mean_curve,
    measured,
    outcome,
    over_draws,
    save_figure,
    shots_axis,
    split_shots,
    wrap,
)
from bayesicl.plot_stack import plot_stack
from bayesicl.tree import study_of

__all__ = [
    "plot_belief",
    "plot_calibration",
    "plot_comparison",
    "plot_curves",
    "plot_forest",
    "plot_ppc",
    "plot_stack",
    "save_figure",
]


def plot_curves(
    tree: xr.DataTree,
    *,
    prediction: xr.Dataset | None = None,
    log_shots: bool = False,
    band: str = "replicate",
) -> Figure:
    """Measured cells, the posterior of the mean curve, and where a new measurement would fall.

    Args:
        tree: a fit.
        prediction: of `predict`, at two shots or more; None to predict up to the longest measured.
        log_shots: draw shots on the scale of log(1 + shots), which shows 0.
        band: what the outer, dashed 90 % interval is of: "replicate" or, where replicates share
            their test items, "items".

    Raises:
        InputError: a prediction of another study, or one that has no such band.

    Example:
        >>> import pandas as pd
        >>> from bayesicl import Settings, fit, read_curves
        >>> from bayesicl.plot import plot_curves
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 5, 7, 8], "total": 10})
        >>> [tree] = fit(read_curves(table), "power", settings=Settings(warmup=100, draws=100))
        >>> plot_curves(tree).axes[0].get_ylabel()
        'accuracy'
    """
    study = study_of(tree)
    prediction = _prediction(tree, study, prediction)
    names = json.loads(prediction.attrs["bands"])
    if band not in names or band == "mean":
        choices = ", ".join(repr(name) for name in names if name != "mean")
        raise InputError(f"{study.label}: no band {band!r} in this prediction; it has {choices}")
    shots = prediction["shots"].to_numpy()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        ax = figure.add_subplot()
        for h, name in enumerate(study.hypotheses):
            mean_curve(ax, prediction["mean"].isel(hypothesis=h), h, f"hypothesis {name}")
            edges = over_draws(prediction[band].isel(hypothesis=h), OUTER)
            for edge, words in zip(edges, ("5 %", "95 %"), strict=True):
                text = f"{words}, {names[band]}, hypothesis {name}"
                ax.plot(shots, edge, color=colour(h), linewidth=0.8, linestyle="--", label=text)
            own = study.cells.query("hypothesis == @h")
            measured(ax, own, h, f"hypothesis {name}", study.scale)
        cells = study.cells
        mean_axis(ax, outcome(study), ax.dataLim.y1, study.scale.top)
        chance = chance_lines(ax, cells, study.scale)
        longest = max(shots[-1], cells["shots"].max())
        shots_axis(ax, min(shots[0], cells["shots"].min()), longest, log=log_shots)
        dividers(ax, split_shots(cells, log=log_shots, until=shots[-1]))
        held_out = not cells["fitted"].to_numpy().all()
        key_below(figure, _curve_key(study, names["mean"], names[band], held_out, chance))
        headline(figure, tree)
    return figure


def plot_belief(
    tree: xr.DataTree, *, prediction: xr.Dataset | None = None, log_shots: bool = False
) -> Figure:
    """What a Bayesian law says the language model believes, before the query, after n shots.

    One panel for each hypothesis that generated demonstrations; in it the median and 90 % interval
    of the belief in each hypothesis, the unobserved background included. Settings as in
    `plot_curves`.

    Raises:
        InputError: a law that has no belief, or a prediction of another study.

    Example:
        >>> import pandas as pd
        >>> from bayesicl import Settings, fit, read_curves
        >>> from bayesicl.plot import plot_belief
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 5, 7, 8], "total": 10})
        >>> [tree] = fit(read_curves(table), "scoring", settings=Settings(warmup=100, draws=100))
        >>> plot_belief(tree).axes[0].get_title()
        'demonstrations of hypothesis 0'
    """
    study = study_of(tree)
    prediction = _prediction(tree, study, prediction)
    if "belief" not in prediction:
        raise InputError(
            f"{study.label}: law {tree.attrs['law']!r} has no belief over hypotheses to plot; the "
            "Bayesian laws have one"
        )
    H, shots = len(study.hypotheses), prediction["shots"].to_numpy()
    columns = min(H, 3)
    rows = -(-H // columns)
    with matplotlib.rc_context(STYLE):
        size = (max(6.5, 3.6 * columns), 1.4 + 2.9 * rows)
        figure = Figure(figsize=size, layout="constrained")
        for h, name in enumerate(study.hypotheses):
            ax = figure.add_subplot(rows, columns, h + 1)
            ax.set_title(wrap(f"demonstrations of hypothesis {name}", 45))
            for m, other in enumerate(prediction["believed"].to_numpy()):
                draws = prediction["belief"].isel(hypothesis=h, believed=m)
                low, middle, high = over_draws(draws, (OUTER[0], 0.5, OUTER[1]))
                look = _believed_look(m, H)
                ax.fill_between(shots, low, high, color=look["color"], alpha=0.2, linewidth=0)
                ax.plot(shots, middle, label=f"median belief in {other}", **look)
            mean_axis(ax, "belief in a hypothesis (probability)")
            shots_axis(ax, shots[0], shots[-1], log=log_shots)
        names = [f"hypothesis {n}" for n in study.hypotheses]
        names += list(prediction["believed"].to_numpy()[H:])
        looks = [_believed_look(m, H) for m in range(len(names))]
        lines = [
            Line2D([], [], label=wrap(f"median belief in {name}", 50), **look)
            for name, look in zip(names, looks, strict=True)
        ]
        shade = Patch(color=GREY, alpha=0.2, linewidth=0, label="90 % interval")
        key_below(figure, [*lines, shade], columns=2 if H < 3 else 3)
        headline(figure, tree)
    return figure


def _prediction(tree: xr.DataTree, study: Study, prediction: xr.Dataset | None) -> xr.Dataset:
    if prediction is None:
        from bayesicl.forecast import curve_shots, predict

        prediction = predict(tree, curve_shots(int(study.cells["shots"].max())).tolist())
    if prediction["hypothesis"].to_numpy().astype(str).tolist() != list(study.hypotheses):
        raise InputError(f"{study.label}: the prediction is of other hypotheses; predict again")
    if prediction.sizes["shots"] < 2:
        raise InputError(f"{study.label}: a curve is drawn from a prediction at 2 shots or more")
    return prediction


# -- parts of plot_curves -------------------------------------------------------------------------


def _curve_key(study: Study, mean: str, band: str, held_out: bool, chance: str) -> list:
    """Entries of the legend: the hypotheses, if there are several, then what each sign means."""
    one = len(study.hypotheses) == 1
    tone = colour(0) if one else GREY
    dot = {"marker": marker(0), "linestyle": "", "color": tone, "markersize": 5}
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=colour(h), marker=marker(h), label=wrap(f"hypothesis {name}", 50))
        for h, name in enumerate(study.hypotheses)
        if not one
    ]
    entries.append(Line2D([], [], label="measured, ± 1 standard error", **dot))
    if held_out:
        entries.append(Line2D([], [], markerfacecolor="white", label="measured, held out", **dot))
    entries += [
        Line2D([], [], color=tone, linewidth=1.6, label=f"posterior median, {mean}"),
        Patch(color=tone, alpha=0.42, linewidth=0, label=f"50 % interval, {mean}"),
        Patch(color=tone, alpha=0.16, linewidth=0, label=f"90 % interval, {mean}"),
        Line2D([], [], color=tone, linewidth=0.8, linestyle="--", label=f"90 % interval, {band}"),
    ]
    if chance:
        entries.append(Line2D([], [], color=GREY, linewidth=1, linestyle=":", label=chance))
    return entries


def _believed_look(m: int, n_observed: int) -> dict:
    """Observed hypotheses as in `plot_curves`; backgrounds grey, told apart by their dashes."""
    if m < n_observed:
        return {"color": colour(m), "linestyle": "-"}
    return {"color": GREY, "linestyle": ("--", "-.", ":")[(m - n_observed) % 3]}
