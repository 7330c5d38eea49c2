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
from bayesicl.errors import InputError
from bayesicl.tree import label, law_label
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
SHOTS = "demonstrations before the query (shots)"
INNER, OUTER = (0.25, 0.75), (0.05, 0.95)  # the 50 % and the 90 % interval

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
    return "accuracy" if study.outcome == "counts" else "probability of the right answer"


def wrap(text: str, width: int) -> str:
    """Break a long text into lines; a word longer than a line is cut."""
    return "\n".join(textwrap.wrap(text, width)) or text


def headline(figure: Figure, tree: xr.DataTree) -> None:
    """Title: study and law; below it what the diagnostics found wrong."""
    width = round(11.5 * figure.get_size_inches()[0])  # characters to a line at the title's size
    lines = [f"{label(tree)} — {law_label(tree)}"]
    if len(lines[0]) > width:
        lines = [wrap(f"{label(tree)} —", width), wrap(law_label(tree), width)]
    if failures := not_converged(tree):
        lines.append(wrap(failures, width))
    # One colour for all of it: such a figure should not be taken for a sound one.
    figure.suptitle("\n".join(lines), color=ALERT if failures else "black")


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


def probability_axis(ax: Axes, name: str, largest: float = 1.0) -> None:
    """Lay out the vertical axis from 0 to 1, or to a little above what is drawn if all is low."""
    top = 1.0 if largest > 0.5 else min(1.0, 1.15 * max(largest, 1e-3))
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
