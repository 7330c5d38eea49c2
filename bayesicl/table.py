"""Reading: a file or a DataFrame becomes a `Table`, which knows where each of its rows came from.

Nothing here knows what a curve is. The line numbers are kept beside the rows, so that whoever finds
a bad value later can point at it in the user's own file.
"""

import csv
import gzip
import io
import math
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bayesicl.errors import InputError
from bayesicl.parse import parse_json

_EXCEL = {".xlsx", ".xls", ".ods"}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = {".jsonl", ".ndjson", ".json"}
_PARQUET = {".parquet", ".pq"}
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"(\xb5/\xfd")
_SHEETS = (b"[Content_Types].xml", b"opendocument.spreadsheet")  # in archives that are Excel's


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with canonical column names, and what an error message needs to find them again.

    Attributes:
        frame: one row a measurement; the index holds the line in the file (the header is line 1)
            or, for a DataFrame and Parquet, the row counted from 0, as the index's name says.
        source: the file as the user named it, or "DataFrame".
        names: canonical column name -> name in the file, where they differ.
    """

    frame: pd.DataFrame
    source: str
    names: Mapping[str, str]

    def place(self, position: int) -> str:
        """Where a row (by position in `frame`) came from: "line 7" or "row 5"."""
        return f"{self.frame.index.name} {self.frame.index[position]}"

    def title(self, column: str) -> str:
        """A column as messages call it, with its name in the file if that is another."""
        renamed = self.names.get(column, column) != column
        return f"`{column}` (column `{self.names[column]}`)" if renamed else f"`{column}`"

    def reject(self, bad: np.ndarray, column: str, must: str, advice: str) -> None:
        """Raise InputError about the first row where `bad` (bool, one a row) holds, if any does."""
        if not bad.any():
            return
        first = int(np.argmax(bad))
        others = f" and {bad.sum() - 1} more" if bad.sum() > 1 else ""
        got = show(self.frame[column].iloc[first])
        raise InputError(
            f"{self.source}, {self.place(first)}{others}: {self.title(column)} must be {must}, "
            f"got {got}; {advice}"
        )

    def numbers(self, column: str, must: str, advice: str = "") -> np.ndarray:
        """A column as finite floats; InputError at the first value that is none."""
        values = pd.Series(pd.to_numeric(self.frame[column], errors="coerce"))
        values = values.to_numpy(dtype=float, na_value=np.nan)
        advice = advice or "correct the value or drop the row (--where)"
        self.reject(~np.isfinite(values), column, must, advice)
        return values

    def whole_numbers(self, column: str, low: int, advice: str) -> np.ndarray:
        """A column as floats that are whole and at least `low`; InputError at the first other."""
        must = f"a whole number of at least {low}"
        values = self.numbers(column, must)
        self.reject((values < low) | (values != np.floor(values)), column, must, advice)
        return values

    def labels(self, column: str, default: str) -> tuple[np.ndarray, list[str]]:
        """A key column as codes (int, one a row) into its sorted labels (numbers first, by value).

        A column that is not there is one constant, `default`; a missing value is an InputError.
        """
        if column not in self.frame:
            return np.zeros(len(self.frame), dtype=np.int64), [default]
        try:
            codes, unique = pd.factorize(self.frame[column])
        except TypeError as error:
            raise InputError(
                f"{self.source}: {self.title(column)} must hold text or numbers, not lists or "
                f"nested objects; flatten it, or choose another column (--column {column}=NAME)"
            ) from error
        self.reject(
            codes < 0,
            column,
            "filled in",
            "write a name in each row (empty, NA, NaN, null and None all read as missing) or drop "
            "the rows (--where)",
        )
        texts = [label(value) for value in unique]
        ordered = sorted(set(texts), key=_by_number_then_text)
        rank = {text: code for code, text in enumerate(ordered)}
        return np.array([rank[text] for text in texts], dtype=np.int64)[codes], ordered


def show(value: object) -> str:
    """A value as messages print it: text in quotes, numbers plain, nothing as "nothing"."""
    if isinstance(value, str):
        return repr(value)
    missing = value is None or value is pd.NA or value != value
    return "nothing (a missing value)" if missing else str(value)


def label(value: object) -> str:
    """A key as text: 3, 3.0 and "3" are one label, because readers differ in how they type them."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def listed(names: Iterable[object]) -> str:
    """Column names for a message, at most 20 of them."""
    texts = [text if (text := str(name)).isprintable() else repr(text) for name in names]
    return ", ".join(texts[:20]) + (", ..." if len(texts) > 20 else "")


def is_archive(content: bytes) -> bool:
    """Whether a file that begins so (with 512 bytes, if it has as many) is packed."""
    return content.startswith(_ARCHIVES) or content[257:262] == b"ustar"


def _by_number_then_text(text: str) -> tuple[bool, float, str]:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (False, number, text) if math.isfinite(number) else (True, 0.0, text)


def read_table(
    source: str | Path | pd.DataFrame, columns: Mapping[str, str], where: str | None
) -> Table:
    """Read `source`, give its columns their canonical names and keep the rows of `where`.

    `where` may use a renamed column under either name. See `bayesicl.curves.read_curves`.
    """
    if isinstance(source, pd.DataFrame):
        name, frame = "DataFrame", source.copy(deep=False)
        frame.index = pd.RangeIndex(len(frame), name="row")
    else:
        name, frame = str(source), _read_file(Path(source))
    frame.columns = [str(column).strip() for column in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise InputError(f"{name}: two columns are called `{repeated[0]}`; rename or drop one")
    for canonical, column in columns.items():
        if column not in frame:
            raise InputError(
                f"{name}: no column `{column}` to read as `{canonical}`; the columns are "
                f"{listed(frame.columns)}; correct --column {canonical}=NAME"
            )
    frame = frame.assign(**{new: frame[old] for new, old in columns.items()})
    if where is not None:
        frame = frame.loc[_selected(frame, where, name)]
    frame = frame.drop(columns=[old for old in set(columns.values()) if old not in columns])
    if frame.empty:
        left = (
            f"no rows are left after --where {where!r}; loosen it" if where else "no rows; add some"
        )
        raise InputError(f"{name}: {left}")
    return Table(frame, name, columns)


def _selected(frame: pd.DataFrame, where: str, name: str) -> np.ndarray:
    try:
        # The Python engine: results must not depend on whether numexpr happens to be installed.
        chosen = frame.eval(where, engine="python", local_dict={}, global_dict={})
    except Exception as error:  # pandas lets through whatever the expression raises
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name}: --where {where!r} cannot be evaluated ({reason}); it is a pandas query such "
            f"as \"task == 'imdb' and shots <= 10\" over the columns {listed(frame.columns)}"
        ) from error
    if not isinstance(chosen, pd.Series) or not pd.api.types.is_bool_dtype(chosen):
        raise InputError(
            f"{name}: --where {where!r} must be true or false for each row; write a condition such "
            "as 'shots <= 10'"
        )
    return chosen.to_numpy(dtype=bool, na_value=False)


def _read_file(path: Path) -> pd.DataFrame:
    """The table in a file, by its ending, else by its first line."""
    endings = [ending.lower() for ending in path.suffixes]
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name one file in it")
        content = path.read_bytes()
        if endings[-1:] == [".gz"]:
            content = gzip.decompress(content)
            endings.pop()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the file") from error
    ending = endings[-1] if endings else ""
    if ending in _PARQUET:
        return _read_parquet(content, path)
    old = content.startswith(b"\xd0\xcf\x11\xe0")
    if ending in _EXCEL or old or (is_archive(content) and any(s in content for s in _SHEETS)):
        raise InputError(f"{path}: is an Excel file; save the sheet as CSV and give that")
    if is_archive(content):
        raise InputError(f"{path}: is an archive; unpack it and give the table in it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{path}: is not UTF-8 text; save the table as CSV in UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    filled = [number for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        raise InputError(f"{path}: the file is empty; it needs a header line and rows")
    first = lines[filled[0] - 1]
    if ending in _JSON_LINES or (ending not in _DELIMITERS and first.startswith("{")):
        return _read_json_lines([(number, lines[number - 1]) for number in filled], path)
    delimiter = _DELIMITERS.get(ending, "\t" if "\t" in first else ",")
    header = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))
    if len(header) < 2:
        semicolons = "it is separated by semicolons: save it with commas, or " * (";" in first)
        raise InputError(
            f"{path}: is not a table: the first line has one field only; {semicolons}"
            "give a file with a header and columns that ends in .csv, .tsv, .jsonl or .parquet"
        )
    return _read_delimited(text, delimiter, header, filled[1:], path)


def _read_delimited(
    text: str, delimiter: str, header: list[str], numbers: list[int], path: Path
) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # fields that would be lost
            frame = pd.read_csv(
                io.StringIO(text),
                sep=delimiter,
                skipinitialspace=True,
                low_memory=False,
                index_col=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:  # ParserError is a ValueError
        raise InputError(
            f"{path}: is not a table ({' '.join(str(error).split())}); each line needs as many "
            f"fields as the header, {len(header)}"
        ) from error
    if len(header) == len(frame.columns):
        frame.columns = header  # pandas renames the second of two equal names; let it be seen
    # A quoted field that spans lines makes the lengths differ: then count rows as if it did not.
    lines = numbers if len(numbers) == len(frame) else range(2, len(frame) + 2)
    frame.index = pd.Index(lines, name="line")
    return frame


def _read_json_lines(lines: list[tuple[int, str]], path: Path) -> pd.DataFrame:
    records = []
    for number, line in lines:
        example = '{"shots": 0, "correct": 3, "total": 10}'
        record = parse_json(line, f"{path}, line {number}", example)
        if not isinstance(record, dict):
            raise InputError(
                f"{path}, line {number}: must be one JSON object, got {type(record).__name__}; "
                "write one object a line, not an array of them"
            )
        records.append(record)
    return pd.DataFrame(records, index=pd.Index([number for number, _ in lines], name="line"))


def _read_parquet(content: bytes, path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    except ImportError as error:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow; run: pip install 'bayesicl[parquet]'"
        ) from error
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(f"{path}: is not a Parquet file ({error}); check the file") from error
    frame.index = pd.RangeIndex(len(frame), name="row")
    return frame
