"""The forecast of a stack: its laws, their weights, the mixture's bands, and its alarm."""

import json
from collections.abc import Mapping, Sequence

import matplotlib
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesicl.decide import shots_to
from bayesicl.plot_parts import (
    ALERT,
    GREY,
    OUTER,
    SHADES,
    STYLE,
    chance_lines,
    colour,
    dividers,
    key_below,
    marker,
    mean_axis,
    mean_curve,
    measured,
    not_converged,
    outcome,
    over_draws,
    shots_axis,
    split_shots,
    titled,
    wrap,
)
from bayesicl.tree import label, law_label, study_of

LEVELS = (0.9, 0.8, 0.5)
WIDE = 52  # characters to a line of the legend's two columns


def plot_stack(
    trees: Sequence[xr.DataTree],
    predictions: Sequence[xr.Dataset],
    weights: Sequence[float],
    prediction: xr.Dataset,
    *,
    threshold: float | None = None,
    wrong: Sequence[str] = (),
) -> Figure:
    """Measured cells, the mixture's mean curve with its bands, and each law's own median.

    Shots stand on the scale of log(1 + shots), over which the laws' misfit grows.

    Args:
        trees: fits of one study of one curve, a law each.
        predictions: of each (`predict`), at the same two shots or more.
        weights: of the laws; they sum to 1.
        prediction: the mixture's (`mix_predictions`, `widened`).
        threshold: level for which n*, the shots to it, is marked by its median and 90 % interval,
            as far as they lie on the predictions' shots.
        wrong: what to say where no law is adequate, or may not be (`alarm.in_words`, `caution`).

    Example:
        >>> import pandas as pd
        >>> from bayesicl import Settings, fit, predict, read_curves
        >>> from bayesicl.plot import plot_stack
        >>> from bayesicl.stack import mix_predictions
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 5, 7, 8], "total": 10})
        >>> short = Settings(warmup=100, draws=100)
        >>> trees = fit(read_curves(table), ["power", "constant"], settings=short)
        >>> parts = [predict(tree, [0, 4, 16]) for tree in trees]
        >>> whole = mix_predictions(parts, [0.9, 0.1])
        >>> plot_stack(trees, parts, [0.9, 0.1], whole).get_suptitle().split("\\n")[0]
        'study — stack'
    """
    study, shots = study_of(trees[0]), prediction["shots"].to_numpy()
    words = _words(prediction)
    cells, held_out = study.cells, not study.cells["fitted"].to_numpy().all()
    tones = [colour(i) for i in range(1, 1 + len(trees))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.6), layout="constrained")
        ax = figure.add_subplot()
        mean_curve(ax, prediction["mean"].isel(hypothesis=0), 0, "stack", levels=LEVELS)
        for edge in over_draws(prediction["replicate"].isel(hypothesis=0), OUTER):
            ax.plot(shots, edge, color=colour(0), linewidth=0.8, linestyle="--", label="replicate")
        for one, tone in zip(predictions, tones, strict=True):
            middle = over_draws(one["mean"].isel(hypothesis=0), 0.5)
            ax.plot(shots, middle, color=tone, linewidth=1.1, linestyle="-.", label="law")
        measured(ax, cells, 0, "stack", study.scale)
        mean_axis(ax, outcome(study), ax.dataLim.y1, study.scale.top)
        chance = chance_lines(ax, cells, study.scale)
        reached = "" if threshold is None else _threshold(ax, prediction, threshold)
        shots_axis(ax, 0, max(shots[-1], cells["shots"].max()), log=True)
        dividers(ax, split_shots(cells, log=True, until=shots[-1]))
        key = _key(words, bool(held_out))
        for tree, weight, tone in zip(trees, weights, tones, strict=True):
            text = wrap(f"median, {law_label(tree)}, weight {weight:.2f}", WIDE)
            key.append(Line2D([], [], color=tone, linewidth=1.1, linestyle="-.", label=text))
        if reached:
            text = wrap(reached, WIDE)
            key.append(Line2D([], [], color=ALERT, linewidth=1.1, marker="|", label=text))
        if chance:
            key.append(Line2D([], [], color=GREY, linewidth=1, linestyle=":", label=chance))
        key_below(figure, key)
        failed = [f"{law_label(t)} {why}" for t in trees if (why := not_converged(t))]
        titled(figure, label(trees[0]), "stack", [*wrong, *failed])
    return figure


def _threshold(ax: Axes, prediction: xr.Dataset, threshold: float) -> str:
    """A line at the threshold, thick from one end of n*'s 90 % interval to the other; in words."""
    [n] = shots_to(prediction, threshold).to_dict("records")
    low, middle, high = (n[f"n* {q}%"] for q in (5, 50, 95))
    last = float(prediction["shots"][-1])
    ax.axhline(threshold, color=ALERT, linewidth=0.8, linestyle=(0, (1, 3)), label="threshold")
    if low <= last:
        ax.plot([low, min(high, last)], [threshold] * 2, color=ALERT, linewidth=2.2, label="n*")
        if high > last:
            ax.plot(last, threshold, color=ALERT, marker=">", markersize=8, label="n*, beyond")
    if middle <= last:
        tick = {"color": ALERT, "marker": "|", "markersize": 15, "markeredgewidth": 2, "zorder": 5}
        ax.plot(middle, threshold, label="n*, median", **tick)
    beyond = f"beyond\u00a0{last:.0f}"  # on one line of the legend
    told = [f"{x:.0f}" if x <= last else beyond for x in (middle, low, high)]
    span = f"{told[1]} to {told[2]}" if low <= last else beyond
    return f"shots to {threshold:g}, n*: median {told[0]}, 90 % interval {span}"


def _words(prediction: xr.Dataset) -> dict[str, str]:
    """What each band is of, and by how much it is wider for an alarm."""
    words, factor = json.loads(prediction.attrs["bands"]), prediction.attrs.get("widened", 1.0)
    wider = f", up to x {factor:.2g} beyond the fit" if factor > 1 else ""
    return {name: text + wider for name, text in words.items()}


def _key(words: Mapping[str, str], held_out: bool) -> list[Line2D | Patch]:
    """Entries of the legend but for laws. words: what each band is of."""
    tone, mean = colour(0), words["mean"]
    dot = {"marker": marker(0), "linestyle": "", "color": tone, "markersize": 5}
    entries: list[Line2D | Patch] = [Line2D([], [], label="measured, ± 1 standard error", **dot)]
    if held_out:
        entries.append(Line2D([], [], markerfacecolor="white", label="measured, held out", **dot))
    entries.append(Line2D([], [], color=tone, linewidth=1.6, label="median of the mean curve"))
    light = 1.0
    for level in LEVELS:  # the narrower lie on the wider
        light *= 1 - SHADES[level]
        text = wrap(f"{100 * level:g} % interval, {mean}", WIDE)
        entries.append(Patch(color=tone, alpha=1 - light, linewidth=0, label=text))
    text = wrap(f"90 % interval, {words['replicate']}", WIDE)
    entries.append(Line2D([], [], color=tone, linewidth=0.8, linestyle="--", label=text))
    return entries
