"""Other tools' logs: finding them, choosing what to read of them, and saying what is wrong."""

import warnings
from collections.abc import Callable, Iterator, Sequence
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


class Asked:
    """The tasks and measures that are to be read, what logs have of them, and what is left out."""

    def __init__(self, metric: Sequence[str], tasks: Sequence[str]):
        """Names as the user gave them; empty for all tasks, and each one's only measure."""
        self._metric, self._tasks = metric, tasks
        self._seen: set[str] = set()
        self._measures: set[str] = set()
        self._without: list[str] = []

    def wants(self, task: str) -> bool:
        """Whether a task that is there is to be read."""
        self._seen.add(task)
        return not self._tasks or task in self._tasks

    def leave_out(self, text: str) -> None:
        """Keep what to say of a log, until all are known to be what was asked for."""
        self._without.append(text)

    def measure(self, names: Sequence[str], file: Path, task: str, *, kind: str) -> str | None:
        """The measure to read (`chosen`); None, and the task is left out, where none is there."""
        self._measures.update(names)
        found = chosen(names, self._metric, f"{file}, {task}")
        if found is None:
            self.leave_out(f"{file}: {task} has {listed(names) or f'no {kind}'} only; left out")
        return found

    def end(self, found: Sequence[object]) -> None:
        """Say what was left out. found: what has a measure.

        Raises InputError where a task asked for is not there, or none of the measures is.
        """
        if missing := set(self._tasks) - self._seen:
            raise InputError(
                f"--task {listed(sorted(missing))}: not here; the tasks are "
                f"{listed(sorted(self._seen))}"
            )
        if not found and self._metric and self._measures:
            raise InputError(
                f"--metric {' '.join(self._metric)}: no task has it; there are "
                f"{' | '.join(sorted(self._measures))}"
            )
        for text in self._without:
            caution(text)


def check_scores(scores: pd.Series, measure: str, where: str) -> None:
    """Raise InputError unless all scores lie between 0 and 1."""
    bad = ~scores.between(0.0, 1.0)
    if bad.any():
        raise InputError(
            f"{where}, document {scores.index[bad][0]}: {measure} must lie between 0 and 1 to be "
            f"a curve's outcome, got {scores[bad].iloc[0]:g}; choose another --metric"
        )
