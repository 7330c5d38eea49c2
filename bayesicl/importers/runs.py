"""Runs of a model on a task at one number of shots, joined into curves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from bayesicl.errors import InputError
from bayesicl.importers.logs import caution

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Run:
    """What a tool logged of one model on one task at one number of shots.

    Attributes:
        place: the file, for messages.
        model, task: as the tool calls them.
        shots: demonstrations before the query, at least 0.
        replicate: what tells repeated runs apart, such as the seed of the demonstrations.
        when: when it was made; a later run sorts behind an earlier one.
        settings: what must be the same along a curve, such as the template, as text.
        mean: the mean score over documents, from 0 to 1.
        size: number of documents, at least 1.
        scores: one row a document, which the index names: `score`, from 0 to 1, and where all
            documents have it `nll` of the right answer, >= 0, in nats. None where the tool kept no
            documents.
    """

    place: str
    model: str
    task: str
    shots: int
    replicate: str
    when: str
    settings: Mapping[str, str]
    mean: float
    size: int
    scores: pd.DataFrame | None

    @property
    def curve(self) -> tuple[str, str]:
        """The curve that it is a point of."""
        return self.model, self.task


def join(runs: Iterable[Run]) -> pd.DataFrame:
    """Runs as a table of curves, one row a document, or one a run where runs are repeated.

    Columns: model, task, shots, replicate, then `correct` and `total`, or `prob` and `total` where
    scores are not all 0 or 1, and `nll` (of a document) or `prob` (mean probability of the right
    answer over a run's documents) where it was logged for all.

    Without repeats the same documents are behind every number of shots. That some are easy and some
    hard then moves all cells of a curve together, and the noises, of counts and of probabilities,
    take it as independent from cell to cell. So intervals of how high a curve lies are too narrow
    for other documents than these, and those of how much it rises, if anything, too wide.

    Of runs that differ in nothing the newest counts. Documents that not all runs of a curve have
    are left out, and so are curves at one number of shots. Each of these is warned of
    (CurveWarning). Raises InputError where runs of a curve were made in different ways, share no
    document, or where nothing is left.

    Example:
        >>> import pandas as pd
        >>> from bayesicl.importers.runs import Run, join
        >>> def run(shots, *right):
        ...     scores = pd.DataFrame({"score": right}, index=["a", "b"])
        ...     mean = scores["score"].mean()
        ...     return Run("log", "m", "t", shots, "0", "1", {}, mean, 2, scores)
        >>> join([run(0, 0.0, 0.0), run(4, 1.0, 0.0)])["correct"].tolist()
        [0, 0, 1, 0]
    """
    tables = []
    for (model, task), curve in _groups(runs, lambda run: run.curve).items():
        name = f"{model} on {task}"
        _check_settings(name, curve)
        curve = _newest(name, curve)
        shots = sorted({run.shots for run in curve})
        if len(shots) < 2:
            caution(f"{name}: only runs at {shots[0]} shots, which make no curve; left out")
            continue
        tables.append(_rows(name, curve))
    if not tables:
        raise InputError("no model was run on any task at two numbers of shots or more; run more")
    if len({"correct" in table for table in tables}) > 1:
        raise InputError(
            "scores are right or wrong for some tasks and shares for others; import them apart "
            "(--task)"
        )
    table = pd.concat(tables, ignore_index=True)
    return table.astype({"correct": int}) if "correct" in table else table


def _groups(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _check_settings(name: str, curve: Sequence[Run]) -> None:
    first = curve[0]
    for other in curve[1:]:
        for setting in {**first.settings, **other.settings}:
            one, two = first.settings.get(setting, "none"), other.settings.get(setting, "none")
            if one != two:
                raise InputError(
                    f"{name}: runs differ in {setting}: {one!r} in {first.place}, {two!r} in "
                    f"{other.place}; these are different curves: import them apart"
                )


def _newest(name: str, curve: Sequence[Run]) -> list[Run]:
    """One run for each number of shots and replicate."""
    kept = []
    for (shots, _), same in _groups(curve, lambda run: (run.shots, run.replicate)).items():
        newest = max(same, key=lambda run: run.when)
        kept.append(newest)
        if len(same) > 1:
            caution(
                f"{name}: {len(same)} runs alike at {shots} shots; the newest counts, "
                f"{newest.place}"
            )
    return sorted(kept, key=lambda run: run.shots)


def _rows(name: str, curve: Sequence[Run]) -> pd.DataFrame:
    frames = [run.scores for run in curve]
    documents = [frame for frame in frames if frame is not None]
    if len(documents) < len(frames):
        if documents:
            caution(f"{name}: some runs kept no documents; means of whole runs are read instead")
        sizes = {run.size for run in curve}
        if len(sizes) > 1:
            caution(
                f"{name}: runs are of {min(sizes)} to {max(sizes)} documents, not the same ones"
            )
        return _keyed(curve, [_of_mean(run) for run in curve])
    shared = documents[0].index
    for frame in documents[1:]:
        shared = shared[shared.isin(frame.index)]
    if shared.empty:
        raise InputError(f"{name}: no document is in all runs; were they made on different data?")
    most = max(len(frame) for frame in documents)
    if len(shared) < most:
        caution(f"{name}: {len(shared)} documents of up to {most} are in all runs; only they count")
    documents = [frame.loc[shared] for frame in documents]
    whole = all(frame["score"].isin([0.0, 1.0]).all() for frame in documents)
    if not all("nll" in frame for frame in documents):
        documents = [frame[["score"]] for frame in documents]
    repeated = len({run.shots for run in curve}) < len(curve)
    return _keyed(curve, [(_of_run if repeated else _of_documents)(f, whole) for f in documents])


def _keyed(curve: Sequence[Run], parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all runs with their keys in front."""
    rows = []
    for run, part in zip(curve, parts, strict=True):
        keys = {"model": run.model, "task": run.task, "shots": run.shots}
        replicate = part.index if part.index.name == "document" else run.replicate
        part = part.assign(**keys, replicate=replicate)
        rows.append(part.loc[:, [*keys, "replicate", *part.columns.drop([*keys, "replicate"])]])
    return pd.concat(rows, ignore_index=True)


def _of_mean(run: Run) -> pd.DataFrame:
    right = run.mean * run.size
    if abs(right - round(right)) > 1e-6 * run.size:
        raise InputError(
            f"{run.place}: {run.task}: a mean of {run.mean:g} over {run.size} documents is no "
            "number of right answers; choose another --metric, or run again with samples logged"
        )
    return pd.DataFrame({"correct": [round(right)], "total": run.size})


def _of_documents(frame: pd.DataFrame, whole: bool) -> pd.DataFrame:
    outcome = "correct" if whole else "prob"
    part = frame.rename(columns={"score": outcome}).assign(total=1).rename_axis("document")
    return part.loc[:, [outcome, "total", *frame.columns.drop("score")]]


def _of_run(frame: pd.DataFrame, whole: bool) -> pd.DataFrame:
    """Documents are shared by repeated runs: they are one measurement each, not many."""
    import numpy as np

    size = len(frame)
    if not whole:
        return pd.DataFrame({"prob": [frame["score"].mean()], "total": size})
    part = pd.DataFrame({"correct": [frame["score"].sum()], "total": size})
    return part.assign(prob=np.exp(-frame["nll"]).mean()) if "nll" in frame else part
