"""Measured curves, the failures among them, and how they are split."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bayesicl.curves import read_curves
from bayesicl.errors import CurveWarning, InputError
from bayesicl.study import Study, split

FAILURES = Path(__file__).parents[1] / "failures.csv"

# A dense curve of twelve prompts a cell, at about 20 shot counts that grow by a third.
_SPARSE = [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48, 64, 85, 114, 152, 202, 270, 360]
SOURCES = {
    "long_context_icl": {},
    "tabula8b": {},
    "transcendence_gpt": {},
    "measured_small_llms": {"outcome": "counts", "where": f"shots in {_SPARSE}"},
    "task_complexity": {},
}
NO_LEARNING = {"task_complexity"}  # flat, near the ceiling or falling: scored apart
ROLLING = "rolling"  # a split: see `origins`
FOLDS = 5  # of models, for priors that have not seen a model


@dataclass(frozen=True)
class Unit:
    """One study, split: what a side forecasts at a time.

    part: of the tables where it counts: its source, or failures or curves without learning apart.
    splits: how it came to be, such as "10%" and `ROLLING`. fold: see `folds`.
    """

    source: str
    part: str
    study: Study
    splits: tuple[str, ...]
    fold: int


def read_sources(folder: Path, names: Sequence[str]) -> dict[str, list[Study]]:
    """The studies of each source, in the order of SOURCES."""
    found = {}
    for name in filter(set(names).__contains__, SOURCES):
        path = folder / f"{name}.csv"
        if not path.exists():
            raise InputError(f"{path} is not there; name the sources that are with --sources")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CurveWarning)
            found[name] = list(read_curves(path, **SOURCES[name]))
    return found


def failure_rule(source: str, study: Study) -> str:
    """Why this curve is expected to collapse, "" where it is not.

    By its name and the shots that it was measured at, never by what was measured.
    """
    model = study.key["model"]
    trained = re.search(r"_(\d+)_train", model)
    longest = study.cells["shots"].max()
    if source == "transcendence_gpt" and trained and longest > int(trained[1]):
        return "measured beyond the number of shots that it was trained on"
    if source == "long_context_icl" and model == "mistralai/Mistral-7B-v0.1":
        return "base model whose attention window is shorter than the longest prompts"
    return ""


def list_failures(sources: dict[str, list[Study]]) -> pd.DataFrame:
    """Keys of the curves that the rule names: source, model, variant, task, rule."""
    rows = [
        {"source": source, **study.key, "rule": rule}
        for source, studies in sources.items()
        for study in studies
        if (rule := failure_rule(source, study))
    ]
    return pd.DataFrame(rows, columns=["source", "model", "variant", "task", "rule"])


def committed_failures(sources: dict[str, list[Study]]) -> set[tuple[str, ...]]:
    """Keys (source, model, variant, task) on the committed list, which must be the rule's."""
    committed = pd.read_csv(FAILURES, dtype=str, keep_default_na=False)
    committed = committed[committed["source"].isin(list(sources))].reset_index(drop=True)
    if not committed.equals(list_failures(sources).astype(str)):
        raise InputError(
            f"{FAILURES} is not what its rule makes of these tables; see what changed, then "
            "rewrite it with --list-failures"
        )
    keys = committed.drop(columns="rule")
    return set(keys.itertuples(index=False, name=None))


def folds(studies: Sequence[Study]) -> list[int]:
    """Which of `FOLDS` parts of a source each study is in, 0 ...: a model is in one.

    Checkpoints of a training run (`MODEL@STEP`) are one model; of a source with one model, tasks
    are parted.
    """
    models = [study.key["model"].partition("@")[0] for study in studies]
    if len(set(models)) == 1:
        models = [study.key["task"] for study in studies]
    place = {model: i % FOLDS for i, model in enumerate(sorted(set(models)))}
    return [place[model] for model in models]


def units(
    sources: dict[str, list[Study]],
    failures: set[tuple[str, ...]],
    percents: Sequence[float],
    rolling: bool,
) -> list[Unit]:
    """Every study at every split; splits that coincide are one unit."""
    found = []
    for source, studies in sources.items():
        for study, fold in zip(studies, folds(studies), strict=True):
            part = source
            if (source, *study.key.values()) in failures:
                part = f"failures: {source}"
            elif source in NO_LEARNING:
                part = f"no learning: {source}"
            longest = int(study.cells.groupby("hypothesis").size().max())
            asked = [(f"{x:g}%", {"fit_shots": f"{x:g}%", "fit_points": None}) for x in percents]
            asked += [
                (ROLLING, {"fit_shots": None, "fit_points": k}) for k in origins(longest) if rolling
            ]
            made: dict[bytes, tuple[Study, list[str]]] = {}
            for name, how in asked:
                parted = split(study, **how)
                fitted = parted.cells["fitted"].to_numpy()
                if not fitted.all():
                    made.setdefault(fitted.tobytes(), (parted, []))[1].append(name)
            found += [Unit(source, part, own, tuple(names), fold) for own, names in made.values()]
    return found


def origins(cells: int) -> list[int]:
    """How many cells are fitted: 5, 6, 8, 11, 15, ..., growing by a third, below `cells`."""
    grown = [int(5 * (4 / 3) ** i) for i in range(100)]
    return [k for k in grown if k < cells]
