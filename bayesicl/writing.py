"""Files that appear as a whole or not at all, whoever is killed."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = socket.gethostname().replace(".", "-")


def part_of(path: Path) -> Path:
    """Where this process writes what is to be moved to `path`: beside it, .NAME.HOST.PID.part."""
    return path.with_name(f".{path.name}.{HERE}.{os.getpid()}.part")


def spelled(text: str) -> str:
    """A text as part of a file's name: what may be odd in one becomes a dash.

    >>> spelled("org/model v1.0")
    'org-model-v1.0'
    """
    return "".join(c if c.isalnum() or c in "-._=" else "-" for c in text)


@contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which is moved to `path` in the end.

    Folders that are missing are made. Where anything is raised, `path` stays as it was.

    >>> import tempfile
    >>> with in_one_step(Path(tempfile.mkdtemp(), "a.txt")) as part:
    ...     _ = part.write_text("all of it")
    """
    part = part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
