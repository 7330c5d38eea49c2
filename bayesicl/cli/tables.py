"""Tables in files, written as they come and there as a whole or not at all."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.errors import InputError
from bayesicl.writing import in_one_step

if TYPE_CHECKING:
    import pandas as pd

AT_ONCE = 500  # frames that are held in memory


def check_ending(ending: str) -> None:
    """Raise InputError where tables of this ending cannot be written here."""
    if ending == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise InputError(
                "Parquet needs pyarrow, which is not installed; pip install 'bayesicl[parquet]'"
            ) from error


def write_table(frames: "pd.DataFrame | Iterable[pd.DataFrame]", path: Path) -> Path:
    """Write a table, or the rows of many with the same columns, to .csv or .parquet."""
    import pandas as pd

    frames = iter([frames] if isinstance(frames, pd.DataFrame) else frames)
    write = _write_parquet if path.suffix == ".parquet" else _write_csv
    try:
        with in_one_step(path) as part:
            write(_joined(frames), part)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _joined(frames: "Iterator[pd.DataFrame]") -> "Iterator[pd.DataFrame]":
    import pandas as pd

    while some := list(islice(frames, AT_ONCE)):
        yield pd.concat(some, ignore_index=True)


def _write_csv(frames: "Iterable[pd.DataFrame]", part: Path) -> None:
    with part.open("w", newline="") as file:
        for i, frame in enumerate(frames):
            frame.to_csv(file, index=False, header=i == 0, lineterminator="\n")


def _write_parquet(frames: "Iterator[pd.DataFrame]", part: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = pa.Table.from_pandas(next(frames), preserve_index=False)
    with pq.ParquetWriter(part, first.schema) as writer:
        writer.write_table(first)
        for frame in frames:
            writer.write_table(pa.Table.from_pandas(frame, first.schema, preserve_index=False))
