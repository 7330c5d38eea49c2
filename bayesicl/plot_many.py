"""Figures over many fits: what was estimated (forest) and which law predicts best (comparison)."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bayesicl.errors import InputError
from bayesicl.identify import FIRST, Element, elements, identified
from bayesicl.plot_parts import (
    ALERT,
    GREY,
    INNER,
    OUTER,
    STYLE,
    colour,
    key_below,
    not_converged,
    over_draws,
    wrap,
)
from bayesicl.summary import meaning
from bayesicl.tree import label, law_label, study_of

_REPEATS = {"P": "gamma", "ceiling": "gamma"}  # say again, where a law has gamma, what gamma says
_DECADES = 2  # positive parameters that span more than this are drawn on a log axis
_COLUMNS = 5  # panels beside each other, at most
FAINT = 0.4


def plot_forest(
    trees: xr.DataTree | Sequence[xr.DataTree], *, parameters: Sequence[str] | None = None
) -> Figure:
    """Medians with 50 % and 90 % intervals: one panel a parameter, one row a fit and hypothesis.

    What the data do not identify (as `summarise` says) is drawn faint, with a hollow median.
    What belongs to a whole study (K) stands on the fit's own row. A single hypothesis has no row
    besides the fit's; where only it and one background can be believed, the background has the
    rest of the belief and no row.

    Args:
        trees: fits, of any studies and laws.
        parameters: names as in the posterior; None for those of the laws, without the noise's and
            without what repeats gamma.

    Raises:
        InputError: no fits, or a parameter that none of them has.

    Example:
        >>> import pandas as pd
        >>> from bayesicl import Settings, fit, read_curves
        >>> from bayesicl.plot import plot_forest
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 5, 7, 8], "total": 10})
        >>> trees = fit(read_curves(table), "power", settings=Settings(warmup=100, draws=100))
        >>> [ax.get_xlabel() for ax in plot_forest(trees, parameters=["alpha"]).axes]
        ['alpha\\nexponent of the power, no unit']
    """
    trees = [trees] if isinstance(trees, xr.DataTree) else list(trees)
    if not trees:
        raise InputError("a forest needs at least one fit")
    shown = _parameters(trees, parameters)
    found = [_bars(tree, shown) for tree in trees]
    # "" is a fit's own row, which comes first and bears its name.
    named = [dict.fromkeys(["", *(row for own in of.values() for row in own)]) for of in found]
    rows = [(i, row) for i, own in enumerate(named) for row in own]
    fits = _fit_names(trees)
    names = [wrap(row or fits[i], 48) for i, row in rows]
    heights = np.array([1.0 + 0.6 * name.count("\n") for name in names])
    ys = np.cumsum(heights) - heights / 2
    lines = -(-len(shown) // _COLUMNS)
    columns = -(-len(shown) // lines)
    widest = max(len(line) for name in names for line in name.split("\n"))
    with matplotlib.rc_context(STYLE):
        size = (0.6 + 0.065 * widest + 2.1 * columns, 0.6 + lines * (0.9 + 0.24 * heights.sum()))
        figure = Figure(figsize=(max(size[0], 5.5), size[1]), layout="constrained")
        for j, parameter in enumerate(shown):
            ax = figure.add_subplot(lines, columns, j + 1)
            of = [found[i].get(parameter, {}).get(row) for i, row in rows]
            for y, one in zip(ys, of, strict=True):
                if one is not None:
                    _draw_bar(ax, y, one, label=f"{parameter}, ")
            drawn = np.array([one.quantiles for one in of if one is not None])
            laws = [
                tree.attrs["law"]
                for tree, own in zip(trees, found, strict=True)
                if parameter in own
            ]
            _value_axis(ax, parameter, drawn, laws)
            _row_axis(ax, ys, heights, [i for i, _ in rows])
            if j % columns:
                ax.tick_params(labelleft=False)
            else:
                failed = [not row and not_converged(trees[i]) != "" for i, row in rows]
                _name_rows(ax, ys, names, failed)
        bars = [bar for own in found for of in own.values() for bar in of.values()]
        key_below(figure, _key(faint=not all(bar.known for bar in bars)), columns=3)
    return figure


def plot_comparison(table: pd.DataFrame, *, title: str = "") -> Figure:
    """How far each law falls behind the best in expected log predictive density (elpd).

    Args:
        table: one row a law, from `compare(...).table`. Used: law, elpd_diff (nats, to the best,
            <= 0), elpd_diff_se, weight (stacking) and verdict.
        title: what was compared.

    Raises:
        InputError: no rows, or a column that is missing.

    Example:
        >>> import pandas as pd
        >>> from bayesicl.plot import plot_comparison
        >>> table = pd.DataFrame(
        ...     {"law": ["power", "scoring"], "elpd_diff": [0.0, -9.5], "elpd_diff_se": [0.0, 3.1],
        ...      "weight": [0.9, 0.1], "verdict": ["best", "worse"]})
        >>> plot_comparison(table, title="trec").get_suptitle()
        'trec'
    """
    needed = ("law", "elpd_diff", "elpd_diff_se", "weight", "verdict")
    if missing := [name for name in needed if name not in table]:
        raise InputError(f"a comparison has a column {missing[0]!r}; give the table of compare")
    if table.empty:
        raise InputError("the comparison has no laws")
    table = table.sort_values("elpd_diff", ascending=False)
    names = [wrap(str(law), 32) for law in table["law"]]
    verdicts = [wrap(str(verdict), 32) for verdict in table["verdict"]]
    tallest = max(text.count("\n") + 1 for text in (*names, *verdicts))
    ys = [float(y) for y in range(len(table))]
    with matplotlib.rc_context(STYLE):
        size = (8.5, 1.5 + len(table) * max(0.34, 0.18 * tallest))
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.add_subplot()
        ax.axvline(0, color=GREY, linewidth=0.8, linestyle=":", label="best")
        ax.errorbar(
            table["elpd_diff"].to_numpy(), ys, xerr=2 * table["elpd_diff_se"].fillna(0).to_numpy(),
            fmt="o", color=colour(0), capsize=3, label="elpd difference, ± 2 standard errors",
        )  # fmt: skip
        ax.set_yticks(ys, names)
        ax.set_ylim(len(table) - 0.4, -0.6)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.set_xlabel("elpd difference to the best law (nats), ± 2 standard errors")
        weights = ["n/a" if pd.isna(w) else f"{w:.2f}" for w in table["weight"]]
        for points, head, texts in (
            (14, "stacking\nweight", weights),
            (74, "against\nthe best", verdicts),
        ):
            beside: dict[str, Any] = {"xytext": (points, 0), "textcoords": "offset points"}
            ax.annotate(head, (1, 1), xycoords="axes fraction", va="bottom", color=GREY, **beside)
            for y, text in zip(ys, texts, strict=True):
                ax.annotate(text, (1, y), xycoords=ax.get_yaxis_transform(), va="center", **beside)
        if title:
            figure.suptitle(wrap(title, 95))
    return figure


# -- the numbers of a forest ----------------------------------------------------------------------


def _parameters(trees: Sequence[xr.DataTree], asked: Sequence[str] | None) -> list[str]:
    """Which panels to draw, in the order in which the laws report their parameters."""
    have = [[str(name) for name in tree["posterior"].data_vars] for tree in trees]
    known = list(dict.fromkeys(name for names in have for name in names))
    if asked is None:
        curve = set(FIRST).union(*(json.loads(t.attrs["law_parameters"]) for t in trees))
        repeated = {
            name
            for name, other in _REPEATS.items()
            if all(other in names for names in have if name in names)
        }
        return [name for name in known if name in curve - repeated]
    chosen = [asked] if isinstance(asked, str) else list(asked)
    for name in chosen:
        if name not in known:
            raise InputError(f"no fit has a parameter {name!r}: choose from {', '.join(known)}")
    if not chosen:
        raise InputError(f"no parameters to plot: choose from {', '.join(known)}")
    return chosen


class _Bar(NamedTuple):
    """One number of one fit: quantiles from low to high, (5,), colour, and if it is identified."""

    quantiles: np.ndarray
    tone: str
    known: bool


def _bars(tree: xr.DataTree, shown: Sequence[str]) -> dict[str, dict[str, _Bar]]:
    """By parameter and row of the fit."""
    levels = (OUTER[0], INNER[0], 0.5, INNER[1], OUTER[1])
    posterior, names = tree["posterior"].to_dataset(), study_of(tree).hypotheses
    shown = [name for name in shown if name in posterior]
    known = identified(tree, shown)
    bars: dict[str, dict[str, _Bar]] = {}
    for name in shown:
        bars[name] = {}
        for element, draws in elements(posterior[name]).items():
            rest = posterior[name].dims[2:] == ("believed",) and posterior.sizes["believed"] == 2
            if rest and element.believed not in names:
                continue  # 1 - pi
            row, tone = _row(element, name, names)
            bars[name][row] = _Bar(over_draws(draws, levels), tone, known[element])
    return bars


def _row(element: Element, name: str, hypotheses: Sequence[str]) -> tuple[str, str]:
    """Name and colour of an element's row; a single hypothesis has the row of its fit, ""."""

    def called(label: str) -> str:
        if label not in hypotheses:
            return label
        return f"hypothesis {label}" if len(hypotheses) > 1 else ""

    owner = element.hypothesis or element.believed
    row = called(owner)
    if element.hypothesis and element.believed not in ("", element.hypothesis):
        row = f"{row or 'its examples'} under {called(element.believed)}"
    row += element.parameter.removeprefix(name)
    return row, colour(hypotheses.index(owner)) if owner in hypotheses else GREY


def _fit_names(trees: Sequence[xr.DataTree]) -> list[str]:
    """Study, law where fits differ in it, how much was fitted if not all, and what failed."""
    many = len({law_label(tree) for tree in trees}) > 1
    names = []
    for tree in trees:
        name, share = label(tree), study_of(tree).fraction
        name += f" — {law_label(tree)}" if many else ""
        name += f", first {100 * share:.0f}\u00a0% of shots" if share < 1 else ""
        names.append(name + (" (not converged)" if not_converged(tree) else ""))
    return names


# -- the axes of a forest -------------------------------------------------------------------------


def _draw_bar(ax: Axes, y: float, bar: _Bar, *, label: str) -> None:
    low, inner_low, middle, inner_high, high = bar.quantiles
    look = {"color": bar.tone, "alpha": 1.0 if bar.known else FAINT}
    ax.plot([low, high], [y, y], linewidth=1.0, label=f"{label}90 % interval", **look)
    half = [inner_low, inner_high]
    ax.plot(half, [y, y], linewidth=3.0, label=f"{label}50 % interval", **look)
    ax.plot(
        middle, y, marker="o", markersize=4.5, label=f"{label}median", color=bar.tone,
        markerfacecolor=bar.tone if bar.known else "white",
        markeredgecolor="white" if bar.known else bar.tone,
        markeredgewidth=0.5 if bar.known else 1.0,
    )  # fmt: skip


def _value_axis(ax: Axes, parameter: str, quantiles: np.ndarray, laws: Sequence[str]) -> None:
    """quantiles: all that is drawn, (rows, 5). laws: those whose parameter it is."""
    if quantiles.min() > 0 and quantiles.max() / quantiles.min() > 10**_DECADES:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=5))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    meanings = {meaning(parameter, law) for law in laws}
    unit = meanings.pop() if len(meanings) == 1 else ""  # laws may mean different things
    ax.set_xlabel(parameter + ("\n" + wrap(unit, 30) if unit else ""))


def _row_axis(ax: Axes, ys: np.ndarray, heights: np.ndarray, fits: Sequence[int]) -> None:
    """Rows from the top; every other fit is shaded."""
    ax.set_ylim(heights.sum(), 0)
    ax.set_yticks(ys, [""] * len(ys))
    ax.tick_params(axis="y", length=0)
    for y, height, fit in zip(ys, heights, fits, strict=True):
        if fit % 2:
            ax.axhspan(y - height / 2, y + height / 2, color=GREY, alpha=0.07, linewidth=0)


def _name_rows(ax: Axes, ys: np.ndarray, names: Sequence[str], failed: Sequence[bool]) -> None:
    ax.set_yticks(ys, names)
    for text, bad in zip(ax.get_yticklabels(), failed, strict=True):
        text.set_color(ALERT if bad else "black")


def _key(faint: bool) -> list[Line2D]:
    hollow = {"color": GREY, "marker": "o", "markerfacecolor": "white", "alpha": FAINT}
    return [
        Line2D([], [], color=GREY, marker="o", linestyle="", label="posterior median"),
        Line2D([], [], color=GREY, linewidth=3, label="50 % interval"),
        Line2D([], [], color=GREY, linewidth=1, label="90 % interval"),
        *([Line2D([], [], label="not identified by the data", **hollow)] if faint else []),
    ]
