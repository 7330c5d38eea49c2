"""What all figures share: style, colours, words, the axis of shots, and writing files."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bayesicl.curves import Study
from bayesicl.errors import FALL, InputError
from bayesicl.scale import Scale
from bayesicl.tree import label, law_label, remarks
from bayesicl.writing import in_one_step

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same widths everywhere
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 11,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "text.usetex": False,
    "text.parse_math": False,  # names of models and tasks may hold a dollar sign
    "pdf.fonttype": 42,
    "svg.hashsalt": "bayesicl",  # the same figure gives the same file
}
# Okabe & Ito (2008), without black and yellow: told apart with any common colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#555555"
ALERT = "#B00020"
CAUTION = "#7A5200"  # brown: to be read, but no alarm
SHOTS = "demonstrations before the query (shots)"
INNER, OUTER = (0.25, 0.75), (0.05, 0.95)  # the 50 % and the 90 % interval
SHADES = {0.9: 0.16, 0.8: 0.16, 0.5: 0.3}  # of the intervals of a curve, one above the other

# Creation times would make two files of one figure differ.
_FILES = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def colour(i: int) -> str:
    """The colour of hypothesis i, the same in every figure."""
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> str:
    """The marker of hypothesis i: a second way to tell curves apart, in print and beyond six."""
    return MARKERS[i % len(MARKERS)]


def outcome(study: Study) -> str:
    """The axis of what was measured."""
    return {
        "counts": "accuracy",
        "prob": "probability of the right answer",
        "mean_nll": "mean nll of the right answer (nats)",
    }[study.outcome]


def wrap(text: str, width: int) -> str:
    """Break a long text into lines; a word longer than a line is cut."""
    return "\n".join(textwrap.wrap(text, width)) or text


def headline(figure: Figure, tree: xr.DataTree) -> None:
    """Title: study and law; below it what the diagnostics found wrong, and falls."""
    falls = [f"caution: {fall}" for fall in remarks(tree.attrs, FALL)]
    titled(figure, label(tree), law_label(tree), [not_converged(tree), *falls])


def titled(figure: Figure, study: str, law: str, troubles: Sequence[str]) -> None:
    """Title: study and law; below it what is wrong, if anything is, in a strip of its own."""
    inches, height = figure.get_size_inches()
    width = round(11.5 * inches)  # characters to a line at the title's size
    lines = [f"{study} — {law}"]
    if len(lines[0]) > width:
        lines = [wrap(f"{study} —", width), wrap(law, width)]
    wrong = "\n".join(wrap(trouble, round(14 * inches)) for trouble in troubles if trouble)
    if not wrong:
        figure.suptitle("\n".join(lines))
        return
    figure.set_size_inches(inches, height + 0.15 * (1 + wrong.count("\n")))  # axes keep theirs
    # One colour for all of it: such a figure should not be taken for a sound one.
    calm = all(trouble.startswith("caution") for trouble in troubles if trouble)
    tone = CAUTION if calm else ALERT
    figure.suptitle("\n".join([*lines, wrong]), color=tone, fontsize=9)


def not_converged(tree: xr.DataTree) -> str:
    """What the diagnostics found wrong, in one line; "" where the fit may be trusted."""
    if tree.attrs["passed"]:
        return ""
    return "not converged: " + "; ".join(json.loads(tree.attrs["diagnostics"])["failures"])


def over_draws(draws: xr.DataArray, levels: float | Sequence[float]) -> np.ndarray:
    """Quantiles over chains and draws: the other dimensions, with the levels, if several, first."""
    return draws.quantile(levels, dim=("chain", "draw")).to_numpy()


def key_below(figure: Figure, handles: Sequence[Any], *, columns: int = 2) -> None:
    """The figure's legend, below its axes, where it hides nothing."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)


# -- axes -----------------------------------------------------------------------------------------


def to_scale(shots, log: bool):
    """Where shots lie along the axis: log(1 + shots), which has room for 0, or shots itself."""
    return np.log1p(np.maximum(shots, -0.99)) if log else np.asarray(shots, dtype=float)


def from_scale(x, log: bool):
    """Inverse of `to_scale`."""
    return np.expm1(x) if log else x


def shots_axis(ax: Axes, first: float, last: float, *, log: bool) -> None:
    """Lay out the horizontal axis for shots from `first` to `last`; a log axis starts at 0."""
    ax.set_xlabel(SHOTS)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    if log:
        first = 0.0
        ax.set_xscale(
            "function", functions=(lambda x: to_scale(x, True), lambda x: from_scale(x, True))
        )
        ax.xaxis.set_major_locator(FixedLocator(_round_numbers(last)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    lo, hi = to_scale(first, log), to_scale(last, log)
    pad = 0.02 * (hi - lo) or 0.5
    ax.set_xlim(float(from_scale(lo - pad, log)), float(from_scale(hi + pad, log)))


def _round_numbers(last: float) -> list[float]:
    """0 and round numbers that lie about evenly on a log axis."""
    steps = (1, 2, 5) if last < 200 else (1, 3) if last < 20_000 else (1,)
    return [0.0] + [s * 10.0**k for k in range(9) for s in steps if s * 10**k <= max(last, 1)]


def mean_axis(ax: Axes, name: str, largest: float = 1.0, top: float = 1.0) -> None:
    """Lay out the vertical axis from 0 to `top`, or to a little above the largest if all is low."""
    top = top if largest > 0.5 * top else min(top, 1.15 * max(largest, 1e-3))
    ax.set_ylabel(name)
    ax.set_ylim(-0.02 * top, 1.02 * top)  # room for markers at 0 and 1


def split_shots(cells: pd.DataFrame, *, log: bool, until: float = 0.0) -> dict[int, float]:
    """Where the fitted part of each curve ends, if it is drawn beyond that, up to `until`.

    Midway, on the axis, to the first held-out cell, or at the last cell if none was held out.
    """
    found = {}
    curve, fitted = cells["hypothesis"].to_numpy(), cells["fitted"].to_numpy()
    x = to_scale(cells["shots"].to_numpy(), log)
    for h in np.unique(curve):
        if not fitted[curve == h].any():
            continue
        last = x[(curve == h) & fitted].max()
        after = x[(curve == h) & ~fitted & (x > last)]
        if after.size:
            found[int(h)] = float(from_scale((last + after.min()) / 2, log))
        elif until > (end := float(from_scale(last, log))) + 0.5:
            found[int(h)] = end
    return found


# -- curves ----------------------------------------------------------------------------------------


def mean_curve(
    ax: Axes, mean: xr.DataArray, h: int, name: str, *, levels: Sequence[float] = (0.9, 0.5)
) -> None:
    """Median and central intervals of a curve over (chain, draw, shots), the widest level first."""
    shots = mean["shots"].to_numpy()
    for level in levels:
        edges = over_draws(mean, ((1 - level) / 2, (1 + level) / 2))
        text = f"{100 * level:g} % interval, mean curve, {name}"
        shade = {"color": colour(h), "alpha": SHADES[level], "linewidth": 0}
        ax.fill_between(shots, *edges, label=text, **shade)
    ax.plot(shots, over_draws(mean, 0.5), color=colour(h), linewidth=1.6, label=f"median, {name}")


def measured(ax: Axes, cells: pd.DataFrame, h: int, name: str, scale: Scale) -> None:
    """Cells with bars of one standard error, cut at 0 and at the top; held-out ones are hollow."""
    crowded = len(cells) > 40  # bars would hide the curve
    for fitted, words in ((True, "fitted"), (False, "held out")):
        own = cells["fitted"].to_numpy() == fitted
        if not own.any():
            continue
        shots, y, error = (cells[column].to_numpy()[own] for column in ("shots", "y", "error"))
        ax.errorbar(
            shots,
            y,
            yerr=[np.minimum(error, y), np.minimum(error, scale.top - y)],
            fmt=marker(h),
            markersize=3.0 if crowded else 5.0,
            markeredgewidth=0.9,
            color=colour(h),
            markerfacecolor=colour(h) if fitted else "white",
            elinewidth=0.3 if crowded else 0.8,
            alpha=0.7 if crowded else 1.0,
            zorder=1 if crowded else 3,
            label=f"measured, {words}, {name}",
        )


def chance_lines(ax: Axes, cells: pd.DataFrame, scale: Scale) -> str:
    """Dotted lines at chance; returns the legend's word for them, "" where no chance is given."""
    known = cells.dropna(subset=["chance"])
    curve = known["hypothesis"].to_numpy()
    chance = scale.of_probability(known["chance"].to_numpy())
    one = np.unique(chance).size == 1  # constant per curve, and here the same for all
    for h in np.unique(curve)[: 1 if one else None]:
        tone, level = GREY if one else colour(h), float(chance[curve == h][0])
        ax.axhline(level, color=tone, linewidth=1.0, linestyle=":", label="chance level")
    if one:
        return f"chance level ({chance[0]:.3g})"
    return "chance level of each hypothesis" if chance.size else ""


def dividers(ax: Axes, where: dict[int, float]) -> None:
    """A line where fitting ends: one for all curves, or one in the colour of each."""
    common = len(set(where.values())) == 1
    for i, (h, x) in enumerate(where.items()):
        if common and i > 0:
            break
        ax.axvline(x, color=GREY if common else colour(h), linewidth=0.9, label="divider")
        if i == 0:
            # Shifted by what "predicted" is longer than "fitted", so that the bar is on the line.
            ax.annotate(
                "fitted | predicted", (x, 1.0), (9, 2), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", fontsize=8, color=GREY,
            )  # fmt: skip


# -- files ----------------------------------------------------------------------------------------


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .png (150 dots an inch), .svg or .pdf, in one step: all of it or nothing.

    Folders that are missing are made. The same figure gives the same bytes.

    Raises:
        InputError: another ending, or a place that cannot be written to.

    Example:
        >>> from tempfile import mkdtemp
        >>> from matplotlib.figure import Figure
        >>> save_figure(Figure(), mkdtemp() + "/curves.png").name
        'curves.png'
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in _FILES:
        raise InputError(f"{path}: a figure is saved as .png, .svg or .pdf")
    try:
        with in_one_step(path) as part, matplotlib.rc_context(STYLE):
            figure.savefig(part, format=ending[1:], dpi=150, metadata=_FILES[ending])
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path
