"""Checks: a `Table` becomes measurements with keys, of which every value can be relied on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import pandas as pd

from bayesicl.alike import check_alike
from bayesicl.errors import InputError
from bayesicl.scale import MEAN_NLL, PROBABILITY
from bayesicl.table import Table, label, listed, show

_OPTIONAL_KEYS = ("model", "variant", "task")  # study columns that may be missing
_COLUMN_OF = {"counts": "correct", "prob": "prob", "nll": "nll", "nll_of_mean": "nll_of_mean"}
_COLUMN_OF |= {"mean_nll": "mean_nll"}
_MEASURED = ("correct", "total", "prob", "nll", "nll_of_mean", "mean_nll", "se")
_NOT_STUDY = ("shots", "replicate", "chance", *_MEASURED)
MAX_SHOTS = 10_000_000
MIN_SE = 1e-6  # smaller ones make energies so large that no chain finds a start


@dataclass(frozen=True, eq=False)
class Measurements:
    """Checked rows, sorted by study, hypothesis, shots and replicate.

    Attributes:
        rows: study, hypothesis and replicate (codes), shots, y (in [0, 1]; mean_nll: >= 0),
            total (1 where the table has none), se and chance (NaN where the table has none).
        keys: the key of each study, by code.
        hypotheses: the label of each hypothesis, by code.
        covariates: the columns constant within each study, by code.
        outcome: "counts", "prob" or "mean_nll".
        batched: whether the table has a `total`.
        source: the file as it was named, or "DataFrame".
        table: the frame as it was read, with its keys as text and its shots as integers.
    """

    rows: pd.DataFrame
    keys: list[dict[str, str]]
    hypotheses: list[str]
    covariates: list[dict[str, str]]
    outcome: str
    batched: bool
    source: str
    table: pd.DataFrame


def check(table: Table, outcome: str | None, by: Sequence[str]) -> Measurements:
    """Check the rows as `bayesicl.curves.read_curves` promises; InputError at the first bad one."""
    known = dict.fromkeys((*by, *_OPTIONAL_KEYS, "hypothesis", *_NOT_STUDY))
    for canonical in table.names:  # one that is not known is a covariate's, or "unused"
        meant = get_close_matches(canonical, known, n=1, cutoff=0.7)
        if canonical not in known and meant:
            raise InputError(
                f"{table.source}: --column {canonical}={table.names[canonical]}: nothing reads "
                f"`{canonical}`; write {meant[0]}={table.names[canonical]}"
            )
    texts, study = _studies(table, by)
    starts = np.unique(study, return_index=True)[1]
    hypothesis, hypotheses = table.labels("hypothesis", "0")
    if "hypothesis" not in by:
        check_alike(table, "hypothesis", hypothesis, hypotheses)
    replicate, replicates = table.labels("replicate", "0")
    shots = _shots(table)
    outcome = _choose_outcome(table, outcome)
    measured = _counts(table) if outcome == "counts" else _means(table, outcome)
    rows = pd.DataFrame(
        {"study": study, "hypothesis": hypothesis, "shots": shots, "replicate": replicate}
        | {"se": np.nan}
        | measured
    )
    _check_repeats(table, rows, by)
    rows["chance"] = _chance(table, rows)
    keys = {str(name): texts[name].array for name in texts} | {
        "hypothesis": np.array(hypotheses, dtype=object)[hypothesis],
        "replicate": np.array(replicates, dtype=object)[replicate],
    }
    clean = table.frame.assign(**keys, shots=shots)
    others = [str(name) for name in table.frame if name not in {*by, "hypothesis", *_NOT_STUDY}]
    return Measurements(
        rows=rows.sort_values(["study", "hypothesis", "shots", "replicate"]),
        keys=[{name: str(texts[name].iloc[start]) for name in by} for start in starts],
        hypotheses=hypotheses,
        covariates=_covariates(table.frame, others, study, len(starts)),
        outcome=outcome if outcome in ("counts", "mean_nll") else "prob",
        batched="total" in table.frame,
        source=table.source,
        table=clean.reset_index(drop=True),
    )


def _studies(table: Table, by: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """The study columns as text, and the code of each row's study, in order of appearance."""
    for name in by:
        if name in _NOT_STUDY:
            raise InputError(
                f"{table.source}: --by {name} cannot tell studies apart, it varies within them; "
                "name columns such as model, variant, task"
            )
        if name not in table.frame and name not in _OPTIONAL_KEYS:
            raise InputError(
                f"{table.source}: no column `{name}` as --by asks; the columns are "
                f"{listed(table.frame)}"
            )
    texts = pd.DataFrame(index=range(len(table.frame)))
    for name in by:
        codes, labels = table.labels(name, "")
        check_alike(table, name, codes, labels)
        texts[name] = np.array(labels, dtype=object)[codes]
    if not by:
        return texts, np.zeros(len(texts), dtype=np.int64)
    return texts, texts.groupby(list(by), sort=False).ngroup().to_numpy()


def _shots(table: Table) -> np.ndarray:
    if "shots" not in table.frame:
        raise InputError(
            f"{table.source}: no column `shots` (demonstrations before the query); the columns are "
            f"{listed(table.frame)}; name yours with --column shots=NAME"
        )
    advice = "shots count the demonstrations before the query"
    shots = table.whole_numbers("shots", 0, advice)
    table.reject(
        shots > MAX_SHOTS, "shots", "at most 10 million", f"{advice}: is this a number of tokens?"
    )
    return shots.astype(np.int64)


def _choose_outcome(table: Table, outcome: str | None) -> str:
    """The outcome to read: of a table that has several, the one that is asked for."""
    present = [name for name, column in _COLUMN_OF.items() if column in table.frame]
    if outcome is not None and outcome not in _COLUMN_OF:
        raise InputError(f"--outcome must be one of {listed(_COLUMN_OF)}, got {outcome!r}")
    if outcome is not None and (column := _column(table, outcome)) not in table.frame:
        needed = f"`{column}`" + ", or `nll` of single prompts" * (outcome == "mean_nll")
        raise InputError(
            f"{table.source}: --outcome {outcome} needs a column {needed}; the columns are "
            f"{listed(table.frame)}; name yours with --column {column}=NAME"
        )
    if outcome is None and not present:
        raise InputError(
            f"{table.source}: no outcome: give a column `correct` (with `total`), `prob`, "
            f"`nll`, `nll_of_mean` or `mean_nll`; the columns are {listed(table.frame)}; name "
            "yours with --column correct=NAME"
        )
    if outcome is None and len(present) > 1:
        flags = " or ".join(f"--outcome {name}" for name in present)
        raise InputError(f"{table.source}: holds several outcomes; choose one with {flags}")
    return outcome or present[0]


def _column(table: Table, outcome: str) -> str:
    """Where an outcome is read; the mean of nll is taken here where single prompts have theirs."""
    averaged = outcome != "mean_nll" or "mean_nll" in table.frame or "nll" not in table.frame
    return _COLUMN_OF[outcome] if averaged else "nll"


def _totals(table: Table) -> np.ndarray:
    if "total" not in table.frame:
        return np.ones(len(table.frame))
    return table.whole_numbers("total", 1, "drop rows that measured nothing (--where 'total > 0')")


def _counts(table: Table) -> dict[str, np.ndarray]:
    correct = table.whole_numbers(
        "correct",
        0,
        "turn an accuracy into a number of items, accuracy times `total`",
    )
    if "total" not in table.frame:
        table.reject(
            correct > 1,
            "correct",
            "0 or 1 where there is no column `total`",
            "add `total`, the number of items (--column total=NAME)",
        )
    total = _totals(table)
    table.reject(
        correct > total, "correct", "at most `total`", "check which column counts what (--column)"
    )
    return {"y": correct / total, "total": total}


def _means(table: Table, outcome: str) -> dict[str, np.ndarray]:
    """Probabilities or, if they are the outcome, mean nll: of prompts, or means over them."""
    column = _column(table, outcome)
    has_total, has_se = "total" in table.frame, "se" in table.frame
    if has_total and has_se:
        raise InputError(
            f"{table.source}: has both `total` and `se`, two statements of one error; drop one, or "
            "rename it away (--column unused=total)"
        )
    if outcome == "prob":
        y = table.numbers(column, "a probability in [0, 1]", _decimals(table, column))
        advice = "divide percentages by 100; read -log p as nll (--column nll=NAME)"
        table.reject((y < 0) | (y > 1), column, "a probability in [0, 1]", advice)
    else:
        nll = table.numbers(column, "at least 0 (nats)", _decimals(table, column))
        advice = "it is -log of a probability; change the sign of log-probabilities"
        table.reject(nll <= -1e-9, column, "at least 0 (nats)", advice)
        y = np.maximum(nll, 0.0) if outcome == "mean_nll" else np.exp(-np.maximum(nll, 0.0))
    total = _totals(table)
    if column == "nll":
        if has_se:
            raise InputError(
                f"{table.source}: `nll` is of single prompts and takes no `se`; call -log(mean p) "
                "`nll_of_mean` (--column nll_of_mean=nll) and a mean of nll `mean_nll`, or rename "
                "se away (--column unused=se)"
            )
        table.reject(
            total > 1,
            "total",
            "1 beside `nll`, which is of single prompts",
            "if nll is -log(mean p), read it as --column nll_of_mean=nll, if it is a mean of nll, "
            "as --column mean_nll=nll; if total belongs to another outcome, rename it away "
            "(--column unused=total)",
        )
    if not has_se:
        return {"y": y, "total": total}
    se = table.numbers("se", "above 0")
    table.reject(se <= 0, "se", "above 0", "no mean is known exactly; give `total` instead of se")
    must = f"at least {MIN_SE:g}"
    unit = (MEAN_NLL if outcome == "mean_nll" else PROBABILITY).unit
    table.reject(se < MIN_SE, "se", must, f"it is in {unit}, and none is so exact")
    return {"y": y, "total": total, "se": se}


def _decimals(table: Table, column: str) -> str:
    """Advice on numbers with a percent sign or a decimal comma, where a text looks like one."""
    texts = table.frame[column].astype(str).str.strip()
    if texts.str.fullmatch(r"[\d.,]+ *%").any():
        return "write shares of 1 without a percent sign, as 0.45"
    if texts.str.fullmatch(r"-?\d+,\d+").any():
        return "write decimals with a point, as 0.45"
    return ""


def _check_repeats(table: Table, rows: pd.DataFrame, by: Sequence[str]) -> None:
    keys = rows[["study", "hypothesis", "shots", "replicate"]]
    repeated = keys.duplicated().to_numpy()
    if not repeated.any():
        return
    second = int(np.argmax(repeated))
    first = int(np.argmax((keys == keys.iloc[second]).all(axis=1).to_numpy()))
    one, two = table.frame.iloc[first], table.frame.iloc[second]
    apart = [
        name for name in one.index if name not in _MEASURED and show(one[name]) != show(two[name])
    ]
    names = " ".join([*by, *(apart[:1] or ["NAME"])])
    hint = f" (they differ in {listed(apart)})" if apart else ""
    raise InputError(
        f"{table.source}, {table.place(first)} and {table.place(second)}: two rows with one key, "
        f"{rows['shots'].iloc[second]} shots of one curve{hint}; add a replicate column, or tell "
        f"the studies apart with --by {names}"
    )


def _chance(table: Table, rows: pd.DataFrame) -> np.ndarray:
    """Chance level of each row, NaN where a whole curve has none."""
    chance = np.full(len(rows), np.nan)
    if "chance" not in table.frame:
        return chance
    given = table.frame["chance"].notna().to_numpy()
    part = replace(table, frame=table.frame[given])
    values = part.numbers("chance", "a probability between 0 and 1")
    advice = "leave it empty where there is no chance level"
    part.reject((values <= 0) | (values >= 1), "chance", "a probability between 0 and 1", advice)
    chance[given] = values
    curves = [rows["study"], rows["hypothesis"]]
    first = pd.Series(chance).groupby(curves).transform("first").to_numpy()
    differs = (chance != first) & ~np.isnan(first)
    table.reject(differs, "chance", "constant within a curve", "give each row the same value")
    return chance


def _covariates(
    frame: pd.DataFrame, names: list[str], study: np.ndarray, studies: int
) -> list[dict[str, str]]:
    """For each study, the columns that hold one value throughout it."""
    found: list[dict[str, str]] = [{} for _ in range(studies)]
    for name in names:
        try:
            codes, values = pd.factorize(frame[name])
        except TypeError:  # lists and the like, from JSON: nothing to label a study with
            continue
        low, high = np.full(studies, len(codes)), np.full(studies, -1)
        np.minimum.at(low, study, codes)
        np.maximum.at(high, study, codes)
        values = list(values)
        for code in np.flatnonzero((low == high) & (low >= 0)):
            found[code][name] = label(values[low[code]])
    return found
