"""Other tools' logs: finding them, choosing what to read of them, and saying what is wrong."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from bayesicl.errors import CurveWarning, InputError
from bayesicl.table import is_archive, listed


def caution(text: str) -> None:
    """Say that something about the logs limits what can be learnt from them."""
    warnings.warn(text, CurveWarning, stacklevel=3)


def files_in(
    paths: Sequence[str | Path], is_log: Callable[[Path], bool], missing: str
) -> list[Path]:
    """The files named, and the logs in the folders named, each once.

    is_log: which files of a folder are read. missing: what a folder without any lacks, and what to
    do. Raises InputError for such a folder, for an archive, and for a path that is not there.
    """
    files = []
    for path in map(Path, paths):
        with reading(path, "cannot be read", "check the path"):
            if not path.exists():
                raise InputError(f"{path}: no such file or folder; check the path")
            found = [path]
            if path.is_dir():
                found = [one for one in sorted(path.rglob("*")) if is_log(one) and one.is_file()]
            elif not is_log(path) and _packed(path):
                raise InputError(f"{path}: is an archive; unpack it and give the folder")
        if not found:
            raise InputError(f"{path}: {missing}")
        files += found
    return list(dict.fromkeys(files))


def _packed(file: Path) -> bool:
    with file.open("rb") as opened:
        return is_archive(opened.read(512))


@contextmanager
def reading(file: Path, wrong: str, advice: str) -> Iterator[None]:
    """Raise InputError where anything is raised, as by a log that is not made as it should be.

    wrong: what the file then is, such as "is no log". advice: what to do.
    """
    try:
        yield
    except (InputError, CurveWarning, MemoryError):
        raise
    except Exception as error:  # there is no end to what may be in other tools' files
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{file}: {wrong} ({reason}); {advice}") from error


def chosen(names: Sequence[str], wanted: Sequence[str], where: str) -> str | None:
    """The measure to read: the first wanted one that is there (None where none is).

    A wanted name also stands for NAME,MORE where only one such measure is there. Raises InputError
    where there are several measures and none was asked for.
    """
    for want in wanted:
        found = [name for name in names if name == want or name.partition(",")[0] == want]
        if want in found:
            return want
        if len(found) > 1:
            raise InputError(
                f"{where}: --metric {want} may be {listed(found)}; name one of them in full"
            )
        if found:
            return found[0]
    if wanted or not names:
        return None
    if len(names) > 1:
        raise InputError(f"{where}: several measures; choose one of --metric {' | '.join(names)}")
    return names[0]


def check_asked(
    tasks: Sequence[str],
    seen: Iterable[str],
    metric: Sequence[str],
    measures: Collection[str],
    found: Sequence[object],
) -> None:
    """Raise InputError where a task asked for is not there, or none of the measures is.

    seen: the tasks that there are. measures: of those that are read. found: what has a measure.
    """
    if missing := set(tasks) - set(seen):
        raise InputError(
            f"--task {listed(sorted(missing))}: not here; the tasks are {listed(sorted(seen))}"
        )
    if not found and metric and measures:
        raise InputError(
            f"--metric {' '.join(metric)}: no task has it; there are {' | '.join(sorted(measures))}"
        )


def check_scores(scores: pd.Series, measure: str, where: str) -> None:
    """Raise InputError unless all scores lie between 0 and 1."""
    bad = ~scores.between(0.0, 1.0)
    if bad.any():
        raise InputError(
            f"{where}, document {scores.index[bad][0]}: {measure} must lie between 0 and 1 to be "
            f"a curve's outcome, got {scores[bad].iloc[0]:g}; choose another --metric"
        )
