"""Questions and their answers, read verbatim and checked once.

A file is JSON lines, a JSON array, CSV or TSV. It has the fields `input` and `output`, or those of
a persona set, `question`, `answer_matching_behavior` and `answer_not_matching_behavior`: the same
questions with two behaviours.
"""

import csv
import hashlib
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayesicl.errors import CurveWarning, InputError
from bayesicl.parse import parse_json

PERSONA = {
    "matching": "answer_matching_behavior",
    "not_matching": "answer_not_matching_behavior",
}
ENDINGS = (".json", ".jsonl", ".csv", ".tsv")
EXAMPLE = '{"input": "2 + 2", "output": "4"}'


@dataclass(frozen=True)
class Task:
    """One set of questions.

    name: of the task. inputs: (n,) distinct questions, n >= 2. answers: behaviour -> (n,) answers;
    "" is the one behaviour of a set that is no persona set.
    """

    name: str
    inputs: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]

    @property
    def hash(self) -> str:
        """SHA-256 of the questions and answers."""
        content = json.dumps([self.inputs, dict(self.answers)], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()


def read_task(path: str | Path, *, columns: Mapping[str, str] | None = None) -> Task:
    """Read one file of questions; the task is named after the file.

    Spaces around questions and answers are dropped, for the template puts its own. A question that
    comes twice is kept once, with a CurveWarning: in one prompt its answer would be given away.

    Args:
        path: .json, .jsonl, .csv or .tsv, in UTF-8.
        columns: canonical field -> its name in the file, as {"input": "word"}.

    Raises:
        InputError: with file, line and field, where one is missing or empty.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "sums.csv")
    >>> _ = path.write_text("input,output\\n1 + 1,2\\n1 + 2,3\\n")
    >>> read_task(path).answers[""]
    ('2', '3')
    """
    path, columns = Path(path), columns or {}
    if unknown := columns.keys() - {"input", "output"}:
        name = min(unknown)
        raise InputError(
            f"--column {name}={columns[name]}: nothing reads `{name}`; write "
            f"input={columns[name]} or output={columns[name]}"
        )
    records = list(_records(path))
    if not records:
        raise InputError(f"{path}: no questions; write one a line")
    first = records[0][1]
    persona = "output" not in columns and "output" not in first and PERSONA["matching"] in first
    fields = {"input": columns.get("input", "question" if persona else "input")}
    fields |= PERSONA if persona else {"": columns.get("output", "output")}
    rows = [
        [_text(record, field, f"{path}, {place}") for field in fields.values()]
        for place, record in records
    ]
    first_of: dict[str, list[str]] = {}
    for row in rows:
        first_of.setdefault(row[0], row)
    unique = list(first_of.values())
    if len(unique) < 2:
        raise InputError(f"{path}: at least 2 different questions are needed, got {len(unique)}")
    if len(unique) < len(rows):
        warnings.warn(
            f"{path}: {len(rows) - len(unique)} of {len(rows)} questions come again and are left "
            "out: their answers would be given away",
            CurveWarning,
            stacklevel=2,
        )
    inputs, *answers = zip(*unique, strict=True)
    return Task(path.stem, inputs, dict(zip(list(fields)[1:], answers, strict=True)))


def read_tasks(
    paths: list[str] | tuple[str, ...], *, columns: Mapping[str, str] | None = None
) -> list[Task]:
    """`read_task` for every path, which must have different stems; a folder is all files in it."""
    files = [file for path in map(Path, paths) for file in (_files(path))]
    tasks = [read_task(file, columns=columns) for file in files]
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two question files are called {name!r}: rename one, it is the task")
    return tasks


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(p for p in path.iterdir() if p.suffix in ENDINGS)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not found:
        raise InputError(f"{path}: no question files ({', '.join(ENDINGS)}) in this folder")
    return found


def _records(path: Path) -> Iterator[tuple[str, dict]]:
    """Each record with its place, "line 3" or "entry 3", counted from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as text ({error}); save it as CSV or JSON lines in UTF-8"
        ) from error
    if path.suffix in (".csv", ".tsv"):
        yield from _delimited(text, path)
    elif text.lstrip().startswith("["):
        for number, record in enumerate(parse_json(text, str(path), EXAMPLE), 1):
            yield f"entry {number}", _object(record, f"{path}, entry {number}")
    else:
        table = "" if path.suffix in ENDINGS else " (a table must end in .csv or .tsv)"
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                place = f"{path}, line {number}"
                yield f"line {number}", _object(parse_json(line, place, EXAMPLE + table), place)


def _delimited(text: str, path: Path) -> Iterator[tuple[str, dict]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    try:
        reader.fieldnames = _header(reader.fieldnames or (), path)
        for record in reader:
            place = f"line {reader.line_num}"
            if None in record:
                raise InputError(
                    f"{path}, {place}: more fields than the header has; put quotes around a text "
                    "with commas"
                )
            yield place, record
    except csv.Error as error:
        raise InputError(
            f"{path}, after line {reader.line_num}: cannot be read ({error}); a quote may not be "
            "closed there, or write it as JSON lines"
        ) from error


def _header(fields: Sequence[str], path: Path) -> list[str]:
    """The fields' names; InputError where they were not told apart, or two have one name."""
    names = [name.strip() for name in fields]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise InputError(f"{path}: two columns are called `{name}`; rename or drop one")
    signs = {";": "semicolons", "\t": "tabs", ",": "commas"}
    if len(names) == 1 and (other := next((s for s in signs if s in fields[0]), None)):
        wanted = "tabs" if path.suffix == ".tsv" else "commas"
        raise InputError(f"{path}: is separated by {signs[other]}; save it with {wanted}")
    return names


def _object(record: object, place: str) -> dict:
    if not isinstance(record, dict):
        raise InputError(f"{place}: must be a JSON object, got {type(record).__name__}")
    return record


def _text(record: dict, field: str, place: str) -> str:
    """The field as text; InputError where it is missing, empty, or neither text nor number."""
    if field not in record:
        there = ", ".join(map(str, record)) or "none"
        raise InputError(
            f"{place}: no field `{field}`; the fields are {there}. Name it with --column "
            "input=NAME or --column output=NAME"
        )
    value = record[field]
    odd = isinstance(value, float) and not math.isfinite(value)
    if odd or isinstance(value, bool) or not isinstance(value, str | int | float):
        got = "nothing" if value is None else value if odd else type(value).__name__
        raise InputError(f"{place}: `{field}` must be text or a number, got {got}")
    if not str(value).strip():
        raise InputError(f"{place}: `{field}` is empty; fill it in or drop the question")
    return str(value).strip()
