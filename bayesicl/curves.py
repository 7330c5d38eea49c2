"""Curves: the tidy table of measurements, read and checked once, here and nowhere else.

A study is one model on one task; it holds a curve for each hypothesis, a curve holds a cell for
each number of shots, and a cell holds one measurement or several replicates.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from bayesicl.checks import Measurements, check
from bayesicl.errors import CurveWarning, InputError
from bayesicl.scale import Scale, scale_of
from bayesicl.study import Study, nothing_left, split
from bayesicl.table import read_table

__all__ = ["Curves", "Study", "read_curves"]


@dataclass(frozen=True, eq=False)
class Curves:
    """Studies in the order in which the table first names them. `read_curves` makes it.

    Attributes:
        studies: one or more.
        table: the rows that were read, under canonical names: keys as text (missing key columns
            filled in), shots and the outcome as numbers, all other columns as they were.
        outcome: "counts", "prob" or "mean_nll".
        source: the file as it was named, or "DataFrame".
    """

    studies: tuple[Study, ...]
    table: pd.DataFrame = field(repr=False)
    outcome: str
    source: str

    @property
    def scale(self) -> Scale:
        """What is measured, in all studies alike."""
        return scale_of(self.outcome)

    def __iter__(self) -> Iterator[Study]:
        """Go through the studies."""
        return iter(self.studies)

    def __len__(self) -> int:
        """Count the studies."""
        return len(self.studies)

    def hold_out(
        self, *, fit_shots: str | int | None = None, fit_points: int | None = None
    ) -> "Curves":
        """`Study.hold_out` for every study; a study may stay whole as long as another is split."""
        studies = tuple(split(study, fit_shots, fit_points) for study in self.studies)
        if all(study.cells["fitted"].to_numpy().all() for study in studies):
            raise InputError(f"{self.source}: {nothing_left(fit_shots, fit_points)}")
        return replace(self, studies=studies)


def read_curves(
    source: str | Path | pd.DataFrame,
    *,
    outcome: str | None = None,
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    by: Sequence[str] = ("model", "variant", "task"),
    items: str | None = None,
) -> Curves:
    """Read a table of measurements, one a row, and check all of it.

    Columns: `shots` (demonstrations before the query, 0 to 10 million) and an outcome must be
    there; `model`, `variant`, `task`, `hypothesis` and `replicate` are keys, and a missing one is
    one constant; `chance` (a probability, constant per curve) is optional; all others are
    covariates.

    Args:
        source: a DataFrame, or a file: CSV, TSV, JSON lines or Parquet, the first three also .gz.
            An unknown ending is told by the first line.
        outcome: which one to read where the table has several. "counts": `correct` of `total` (no
            `total` needed where `correct` is 0 or 1). "prob": `prob`, the probability of the
            answer, in replicates or with `total` (prompts behind it) or `se`. "nll": `nll` >= 0 in
            nats of single prompts. "nll_of_mean": -log of a mean probability, with `total` or with
            `se`, which is then on the scale of probability. "mean_nll": another quantity, the mean
            of nll in nats, with `total` or `se` in nats or with neither, or in replicates; where
            there is no such column, of `nll`. Only laws of mean nll fit it.
        columns: canonical name -> name in the file, as {"shots": "n_demos"}.
        where: a pandas query; only its rows are read.
        by: the columns whose values make a study; with hypothesis among them each curve is one.
        items: for replicated counts, "shared" (the default: replicates share test items) or
            "fresh".

    Returns:
        Curves, one study for each combination of the `by` columns.

    Raises:
        InputError: anything amiss, with the line and column.

    Warns:
        CurveWarning: once a study, where curves are constant or a given `se` goes with the outcome.

    Example:
        >>> import pandas as pd
        >>> from bayesicl.curves import read_curves
        >>> table = pd.DataFrame({"shots": [0, 1, 2], "correct": [2, 5, 7], "total": 10})
        >>> read_curves(table).studies[0].cells["y"].tolist()
        [0.2, 0.5, 0.7]
    """
    if items not in (None, "shared", "fresh"):
        raise InputError(f"--items must be shared or fresh, got {items!r}")
    by = (by,) if isinstance(by, str) else tuple(dict.fromkeys(by))
    table = read_table(source, columns or {}, where)
    measured = check(table, outcome, by)
    cells = _by_study(_cells(measured), len(measured.keys))
    rows = _by_study(measured.rows, len(measured.keys))
    studies = tuple(
        _study(measured, code, cells[code], rows[code], items) for code in range(len(cells))
    )
    if items and not any(study.items for study in studies):
        raise InputError(
            f"{table.source}: --items {items} is for counts with replicates, which these are not; "
            "leave it out, or add a replicate column"
        )
    for study in studies:
        if remarks := _remarks(study):
            warnings.warn(f"{study.label}: {'; '.join(remarks)}", CurveWarning, stacklevel=2)
    return Curves(studies, measured.table, measured.outcome, table.source)


def _cells(measured: Measurements) -> pd.DataFrame:
    """All cells of all studies at once: a Python loop over cells would take minutes."""
    rows, cell = measured.rows, ["study", "hypothesis", "shots"]
    if measured.outcome != "counts":  # rows are means over `total` prompts: the mean over prompts
        weight = rows["total"] / rows.groupby(cell)["total"].transform("mean")
        rows = rows.assign(weighted=rows["y"] * weight)
    else:  # replicates count alike, whatever their number of items
        rows = rows.assign(weighted=rows["y"])
    return (
        rows.groupby(cell)
        .agg(
            y=("weighted", "mean"),
            sd=("y", "std"),
            size=("y", "size"),
            sum=("total", "sum"),
            mean=("total", "mean"),
            se=("se", "first"),
            chance=("chance", "first"),
        )
        .reset_index()
        .assign(y=lambda frame: scale_of(measured.outcome).cut(frame["y"].to_numpy()))
    )


def _by_study(frame: pd.DataFrame, studies: int) -> list[dict[str, np.ndarray]]:
    """Each study's part of a sorted frame, as columns."""
    columns = {str(name): frame[name].to_numpy() for name in frame}
    edges = np.searchsorted(columns["study"], np.arange(studies + 1))
    return [
        {name: values[start:stop] for name, values in columns.items()}
        for start, stop in pairwise(edges)
    ]


def _study(
    measured: Measurements,
    code: int,
    block: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    items: str | None,
) -> Study:
    """One study from its cells (sorted) and its rows (sorted alike)."""
    codes, hypothesis = np.unique(block["hypothesis"], return_inverse=True)
    y, size = block["y"], block["size"]
    replicated = bool(size.max() > 1)
    if measured.outcome == "counts":
        # Prompts of one item each say no more than their count, however they are labelled.
        kind = "replicated counts" if replicated and rows["total"].max() > 1 else "counts"
    elif not np.isnan(block["se"]).any():
        kind = "given se"
    else:
        kind = "prompts" if replicated else "aggregated"
    spread = kind in ("replicated counts", "prompts")
    total = block["mean" if kind == "replicated counts" else "sum"]
    given = kind == "given se"
    if given or (kind == "aggregated" and not measured.batched):
        total = np.full(len(y), np.nan)
    scale = scale_of(measured.outcome)
    error = scale.error(y, total)
    if spread:
        error = np.where(block["sd"] > 0, block["sd"] / np.sqrt(size), error)
    cells = pd.DataFrame(
        {
            "hypothesis": hypothesis,
            "shots": block["shots"],
            "y": y,
            "replicates": size if spread else np.ones_like(size),
            "total": total,
            "se": block["se"],
            "error": block["se"] if given else error,
            "chance": block["chance"],
            "fitted": np.ones(len(y), dtype=bool),
        }
    )
    behind = pd.DataFrame(
        {
            "cell": np.repeat(np.arange(len(y)), size),
            "replicate": np.unique(rows["replicate"], return_inverse=True)[1],
            "y": rows["y"],
            "total": rows["total"],
        }
    )
    study = Study(
        key=measured.keys[code],
        hypotheses=tuple(measured.hypotheses[code] for code in codes),
        kind=f"{scale.prefix}{kind}",
        outcome=measured.outcome,
        items=(items or "shared") if kind == "replicated counts" else None,
        cells=cells,
        rows=behind if spread else behind.head(0),
        covariates=measured.covariates[code],
    )
    _check_cells(study, replicated, measured)
    return study


def _check_cells(study: Study, replicated: bool, measured: Measurements) -> None:
    """What single rows cannot show: InputError where cells are too few or their error unknown."""
    if study.kind.endswith("given se") and replicated:
        raise InputError(
            f"{measured.source}, {study.label}: `se` is of the mean of a cell, but a cell has "
            "several rows; keep one row a cell, or rename se away (--column unused=se)"
        )
    if study.kind == "aggregated" and not measured.batched:
        raise InputError(
            f"{measured.source}, {study.label}: one probability a cell has no known error; add "
            "`total`, the prompts behind it, or `se`, or one row a prompt with a replicate column"
        )
    for curve, number in enumerate(np.bincount(study.cells["hypothesis"].to_numpy())):
        if number < 2:
            raise InputError(
                f"{measured.source}, {study.curve_name(curve)}: a curve needs at least 2 numbers "
                "of shots, got 1; measure more or drop it (--where)"
            )


def _remarks(study: Study) -> list[str]:
    """What will limit the fits of this study, curve by curve."""
    remarks = []
    curves = study.cells["hypothesis"].to_numpy()
    for curve, hypothesis in enumerate(study.hypotheses):
        name = f"hypothesis {hypothesis}: " if len(study.hypotheses) > 1 else ""
        y = study.cells["y"].to_numpy()[curves == curve]
        se = study.cells["se"].to_numpy()[curves == curve]
        if study.outcome == "counts" and y.max() == 0:
            remarks.append(f"{name}all counts are 0")
        elif study.outcome == "counts" and y.min() == 1:
            remarks.append(f"{name}all counts are full")
        elif y.min() == y.max():
            remarks.append(f"{name}the curve is constant at {y[0]:g}")
        elif study.kind.endswith("given se") and (rho := _goes_with(se, y)):
            remarks.append(
                f"{name}`se` goes with the outcome (Spearman {rho:.2f}), which bends the curve; "
                "give `total` instead"
            )
    cells = study.cells
    if study.kind == "prompts" and study.rows["y"].isin([0.0, 1.0]).all():
        remarks.append("`prob` is 0 or 1 throughout: give right answers as `correct` instead")
    elif study.kind == "aggregated" and (cells["total"] > 1).all() and len(cells) > 3:
        count = cells["y"] * cells["total"]
        if np.allclose(count, count.round(), atol=1e-6):
            remarks.append(
                "`prob` times `total` is a whole number throughout: if it is an accuracy, give "
                "`correct` and `total` instead"
            )
    return remarks


def _goes_with(se: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation where it is beyond what chance does in one curve of a hundred, else 0."""
    n = len(y)
    rho = _spearman(se, y) if n >= 6 else 0.0
    return rho if abs(rho) >= max(0.5, min(2.6 / np.sqrt(n - 1), 0.9)) else 0.0


def _spearman(one: np.ndarray, two: np.ndarray) -> float:
    """Rank correlation, 0 where one of the two is constant (pandas' own needs SciPy)."""
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(np.corrcoef(pd.Series(one).rank(), pd.Series(two).rank())[0, 1])
