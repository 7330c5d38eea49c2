"""Which law describes the same cells best: leave-one-cell-out, differences, stacking, a verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from bayesicl.errors import InputError
from bayesicl.law import BAYESIAN, Law
from bayesicl.leave_out import Leaving, leave_out
from bayesicl.stack import stacking
from bayesicl.tree import label, law_label, owners

FEW_CELLS = 100  # below this many only an overwhelming difference decides
FEW_STUDIES = 10  # the same for studies
OVERWHELMING = 4.0  # standard errors


@dataclass(frozen=True)
class Comparison:
    """Laws, best first.

    table: one row a law: law, elpd, elpd_se, elpd_diff (to the best, <= 0), elpd_diff_se, weight
    (stacking), p_loo, raw_elpd (PSIS before repair), bad_k (cells with Pareto k above its limit),
    refitted, unrepaired, cells, studies, verdict. studies: one row a study and law. verdict: in
    words.
    """

    table: pd.DataFrame
    studies: pd.DataFrame
    verdict: str


def compare(
    fits: Sequence[xr.DataTree],
    *,
    law: str | Path | Law | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Compare laws by leave-one-cell-out over the same cells.

    Args:
        fits: for each study, one fit under each law: same data, same split, same noise.
        law: where to find a user's law that has moved since the fit.
        progress: called with a line that says what is being done.

    A cell (one curve at one shot count) is the unit: replicates at one shot count share items and
    demonstrations, and counting them apart would flatter every law. Below 30 cells every cell is
    left out by a refit; above, PSIS (Vehtari, Gelman & Gabry 2017) with refits where Pareto k is
    too high.
    Over several studies differences are summed and their standard error is taken over studies,
    or over cells where that is larger.

    Raises InputError where fits differ in data, split, outcome or noise, or a law is missing.
    """
    by_study = _matched(fits)
    left: dict[str, list[Leaving]] = {}
    for study, trees in by_study.items():
        done: dict[str, Leaving] = {}
        for name, tree in trees.items():
            fitted = law_label(tree)
            say = lambda s, at=f"{study}, {fitted}": progress(f"{at}: {s}")  # noqa: E731
            if fitted not in done:
                done[fitted] = leave_out(tree, law=law, progress=say)
            left.setdefault(name, []).append(done[fitted])
    return _tabulate(list(by_study), left, fits)


def _matched(fits: Sequence[xr.DataTree]) -> dict[str, dict[str, xr.DataTree]]:
    """Fits by study and law, laws in one order; refuses what cannot be compared."""
    if not fits:
        raise InputError("nothing to compare: no fits given")
    given: dict[str, list[xr.DataTree]] = {}
    for tree in fits:
        given.setdefault(label(tree), []).append(tree)
    by_study: dict[str, dict[str, xr.DataTree]] = {}
    for study, trees in given.items():
        _same_cells(study, trees)
        by_study[study] = {law_label(tree): tree for tree in trees}
        if len(by_study[study]) < len(trees):
            names = ", ".join(map(law_label, trees))
            raise InputError(f"{study}: a law was given twice ({names}); drop one fit")
    laws = owners((label(tree), law_label(tree)) for tree in fits)
    for law, own in laws.items():
        for study in by_study.keys() - {study for study, _ in own}:
            raise InputError(
                f"{study}: not fitted under {law}, but {min(own)[0]} is; compare studies that "
                "have the same laws"
            )
    if len(laws) < 2:
        raise InputError(f"one law ({next(iter(laws))}) is nothing to compare; fit another too")
    kinds = {tree["study"].attrs["outcome"] for tree in fits}
    noises = {tree.attrs["noise"] for tree in fits}
    if len(kinds) > 1 or len(noises) > 1:
        raise InputError(
            f"studies differ in outcome or noise ({', '.join(sorted(kinds | noises))}): their "
            "log densities cannot be summed; compare them apart"
        )
    fitted = {law: dict(own) for law, own in laws.items()}
    return {
        study: {law: trees[fitted[law][study]] for law in laws} for study, trees in by_study.items()
    }


def _same_cells(study: str, trees: Sequence[xr.DataTree]) -> None:
    """Refuse fits of one study that differ in what they were fitted to."""
    first = trees[0]
    differences = {
        "data_hash": "different data",
        "fitted_hash": "different cells held out",
        "noise": "different noise: densities and probabilities do not compare",
    }
    if any(tree.attrs["law"] in BAYESIAN for tree in trees):
        differences["backgrounds"] = "different numbers of backgrounds"
    for what, words in differences.items():
        for tree in trees[1:]:
            if tree.attrs[what] != first.attrs[what]:
                raise InputError(
                    f"{study}: {law_label(first)} and {law_label(tree)} were fitted to "
                    f"{words}; fit both to the same and compare again"
                )


def _tabulate(studies: list[str], left: dict[str, list[Leaving]], fits) -> Comparison:
    elpd = {law: np.concatenate([x.elpd for x in parts]) for law, parts in left.items()}
    best = max(elpd, key=lambda law: elpd[law].sum())
    weights = dict(zip(elpd, stacking(np.stack(list(elpd.values()), axis=1)), strict=True))
    rows, per_study = [], []
    for law, parts in left.items():
        difference = elpd[law] - elpd[best]
        n = difference.size
        sums = np.array([(a.elpd - b.elpd).sum() for a, b in zip(parts, left[best], strict=True)])
        se = np.sqrt(n) * difference.std()
        if len(sums) > 1:  # a few studies may agree by chance: cells still vary
            se = max(se, np.sqrt(len(sums)) * sums.std(ddof=1))
        rows.append(
            {
                "law": law,
                "elpd": elpd[law].sum(),
                "elpd_se": np.sqrt(n) * elpd[law].std(),
                "elpd_diff": difference.sum(),
                "elpd_diff_se": 0.0 if law == best else se,
                "weight": weights[law],
                "p_loo": sum(x.raw.p for x in parts),
                "raw_elpd": sum(float(x.raw.elpd) for x in parts),
                "bad_k": sum(int((x.raw.pareto_k > x.raw.good_k).sum()) for x in parts),
                "refitted": sum(x.refitted for x in parts),
                "unrepaired": sum(x.unrepaired for x in parts),
                "cells": n,
                "studies": len(studies),
            }
        )
        per_study += [
            {"study": s, "law": law, "elpd": x.elpd.sum(), "elpd_diff": d, "cells": x.elpd.size}
            for s, x, d in zip(studies, parts, sums, strict=True)
        ]
    table = pd.DataFrame(rows).sort_values("elpd", ascending=False, ignore_index=True)
    table["verdict"] = [_decide(row) for row in table.to_dict("records")]
    failed = sorted({law_label(t) for t in fits if not t.attrs["passed"]})
    return Comparison(table, pd.DataFrame(per_study), _verdict(table, failed))


def _decide(row: dict) -> str:
    """One law against the best, in a word or two that claim no more than the data can decide."""
    difference, se = -row["elpd_diff"], row["elpd_diff_se"]
    if difference == 0:
        return "best"
    if difference < 4 or difference < 2 * se:
        return "not told apart"
    few = row["cells"] < FEW_CELLS and row["studies"] == 1
    enough = OVERWHELMING
    if 1 < row["studies"] < FEW_STUDIES:  # Student's t of as small a tail
        few, enough = True, stats.t.isf(stats.norm.sf(OVERWHELMING), row["studies"] - 1)
    if few and difference < enough * se:
        return "too few to decide"
    return "worse"


def _verdict(table: pd.DataFrame, failed: list[str]) -> str:
    best = table["law"][0]
    unit = f"{table['cells'][0]} cells of {table['studies'][0]} studies"
    if table["studies"][0] == 1:
        unit = f"{table['cells'][0]} cells"
    others = table[1:]
    named = {v: ", ".join(g["law"]) for v, g in others.groupby("verdict")}
    parts = [f"Over {unit} left out one at a time, {best} has the highest score."]
    if "worse" in named:
        parts.append(f"It predicts better than {named['worse']}.")
    if "too few to decide" in named:
        parts.append(
            f"It is ahead of {named['too few to decide']}, but too few cells or studies to decide."
        )
    if "not told apart" in named:
        parts.append(f"These data cannot tell it from {named['not told apart']}.")
    if failed:
        parts.append(f"Not converged, so not to be relied on: {', '.join(failed)}.")
    if table["unrepaired"].sum():
        parts.append("Some refits did not converge: see the column unrepaired.")
    parts.append("Weights make the best mixture; none is the probability that a law is right.")
    parts.append(
        "Scores say how well a law predicts a cell from its neighbours, neither how well it "
        "extrapolates nor what the language model does inside."
    )
    return " ".join(parts)
