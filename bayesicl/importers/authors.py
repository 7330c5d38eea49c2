"""The CSV files of Arora et al.'s own code (arXiv 2410.16531).

Two scripts write them. `llm.py` measures language models: MODEL___DATASET___means.csv has dataset,
shots, model, hmm, nll, prob, nll_avg; its shots count the query, too: one is taken off. `train.py`
measures transformers trained on GINC: in_context_probs.csv has shots, k, hmm, sft, sft_amount,
prob, acc, nll; its shots are demonstrations before the query. Its nll is a mean of nll, which is
another quantity than -log of a mean, and is left out.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bayesicl.errors import InputError
from bayesicl.table import Table, listed, read_table

_MEANS = ("dataset", "shots", "model", "hmm", "nll", "prob")
_GINC = ("shots", "k", "hmm", "sft", "sft_amount", "prob")


def read(paths: Sequence[str | Path], prompts: int | None) -> pd.DataFrame:
    """The files as one table of mean probabilities: a row a curve and number of shots.

    Columns: model, variant (GINC: documents of tuning), task (GINC: the example's length),
    hypothesis, shots, prob, total.

    Args:
        paths: files of either kind; not both in one table.
        prompts: prompts behind each row, which the files do not say. It is 50 in `llm.py` at the
            first shots, and fewer where prompts reached the end of the window.

    Raises:
        InputError: a file of another kind, or values that cannot be.
    """
    if prompts is None or prompts < 1:
        raise InputError(
            "the authors' files do not say how many prompts are behind a row; give --prompts N "
            "(llm.py made 50 unless it was told another number)"
        )
    parts = [_read(Path(path)) for path in paths]
    if len({tuple(part) for part in parts}) > 1:
        raise InputError(
            "files of llm.py and of train.py make no table together; import them apart"
        )
    table = pd.concat(parts, ignore_index=True).assign(total=prompts)
    keys = ["model", *table.columns.intersection(["variant"]), "task", "hypothesis", "shots"]
    if (twice := table.duplicated(keys)).any():
        row = ", ".join(f"{key} {table.loc[twice, key].iloc[0]}" for key in keys)
        raise InputError(f"two rows for {row}; give each file once")
    return table


def _read(path: Path) -> pd.DataFrame:
    table = read_table(path, {}, None)
    if set(_MEANS) <= set(table.frame):
        _check(table, _MEANS)
        return _means(table)
    if set(_GINC) <= set(table.frame):
        _check(table, _GINC)
        return _ginc(table, path)
    raise InputError(
        f"{path}: is no file of the authors' code: it needs the columns {listed(_MEANS)} (llm.py) "
        f"or {listed(_GINC)} (train.py), and has {listed(table.frame.columns)}"
    )


def _check(table: Table, columns: Sequence[str]) -> None:
    for column in columns:
        missing = table.frame[column].isna().to_numpy()
        table.reject(missing, column, "filled in", "check the file")
    table.numbers("shots", "a whole number", "check the file")


def _means(table: Table) -> pd.DataFrame:
    prob = _prob(table)
    nll = table.numbers("nll", "a number", "check the file")
    table.reject(
        np.abs(np.exp(-nll) - prob) > 1e-6, "nll", "-log of prob (llm.py writes nll of the mean)",
        "is it a file of single prompts, or of another script?",
    )  # fmt: skip
    shots = table.whole_numbers("shots", 1, "llm.py counts the query as a shot")
    return pd.DataFrame(
        {
            "model": table.frame["model"].to_numpy(),
            "task": table.frame["dataset"].to_numpy(),
            "hypothesis": table.frame["hmm"].to_numpy(),
            "shots": shots.astype(int) - 1,
            "prob": prob,
        }
    )


def _ginc(table: Table, path: Path) -> pd.DataFrame:
    shots = table.whole_numbers("shots", 0, "train.py counts demonstrations before the query")
    frame = pd.DataFrame(
        {
            "model": path.resolve().parent.name,
            "variant": "tuned on " + table.frame["sft_amount"].astype(str) + " documents",
            "task": "examples of " + table.frame["k"].astype(str) + " tokens",
            "hypothesis": table.frame["hmm"],
            "shots": shots.astype(int),
            "prob": _prob(table),
        }
    )
    # Tuning was measured at several steps, and at its end (True): the last one counts.
    texts = table.frame["sft"].astype(str).replace({"True": "inf", "False": "0"})
    step = pd.Series(pd.to_numeric(texts, errors="coerce"))
    table.reject(step.isna().to_numpy(), "sft", "True, False or a step", "check the file")
    return frame[step == step.groupby(frame["variant"]).transform("max")]


def _prob(table: Table) -> np.ndarray:
    prob = table.numbers("prob", "a probability", "check the file")
    table.reject((prob < 0) | (prob > 1), "prob", "from 0 to 1", "check the file")
    return prob
