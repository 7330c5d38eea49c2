"""Names in a table that look alike, and so make two studies where one was meant."""

import unicodedata
import warnings

import numpy as np

from bayesicl.errors import CurveWarning, InputError
from bayesicl.table import Table


def check_alike(table: Table, column: str, codes: np.ndarray, labels: list[str]) -> None:
    """Look at the labels of a key column; codes: the label of each row.

    Raises InputError where two differ by nothing that can be seen (spaces, characters without
    width, or how accents are put together). Warns where they differ in upper and lower case alone,
    which may be meant.
    """
    plain = [" ".join(_seen(label).split()) for label in labels]
    if same := _pairs(plain):
        raise InputError(
            f"{_told(table, column, codes, labels, same)}: they look alike and are two names; "
            "write them alike, or give them names that differ to the eye"
        )
    if same := _pairs([text.casefold() for text in plain]):
        warnings.warn(
            f"{_told(table, column, codes, labels, same)}: two names; if one is meant, write them "
            "alike",
            CurveWarning,
            stacklevel=5,
        )


# Zero-width space, word joiner, byte order mark, soft hyphen, marks of direction.
UNSEEN = "\u200b\u2060\ufeff\u00ad\u200e\u200f"


def _seen(label: str) -> str:
    """A label without characters that take no room, and with its accents in one way."""
    shown = "".join(c for c in label if c not in UNSEEN)
    return unicodedata.normalize("NFC", shown)


def _pairs(texts: list[str]) -> list[tuple[int, int]]:
    """Places of texts that are there before, each with that of the first one."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(text, i), i) for i, text in enumerate(texts)]
    return [(one, two) for one, two in pairs if one != two]


def _told(
    table: Table, column: str, codes: np.ndarray, labels: list[str], same: list[tuple[int, int]]
) -> str:
    """The first such pair with its rows, in the order of the table, and how many others are."""
    rows = sorted((int(np.argmax(codes == code)), code) for code in same[0])
    names = [f"{labels[code]!r} ({table.place(row)} first)" for row, code in rows]
    others = f" and {len(same) - 1} more such pairs" if len(same) > 1 else ""
    return f"{table.source}: {table.title(column)} holds {' and '.join(names)}{others}"
