"""A learned prior's file, read and checked: what is wrong, and where in it, in one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayesicl.scale import MEAN_NLL, PROBABILITY

SYMMETRIC = 1e-6  # as a correlation: by so much rounding may set two entries apart


class Wrong(Exception):
    """What is wrong, and where."""


def read_record(path: Path) -> dict[str, Any]:
    """What the file holds, with nothing wrong in it.

    Raises Wrong where it is no learned prior.
    """
    return _checked(_parsed(path))


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Wrong(f"cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise Wrong("is not UTF-8 text, as JSON is") from error
    if not text.strip():
        raise Wrong("the file is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Wrong(f"{where}: is not JSON ({error.msg})") from error
    except ValueError as error:  # a number of thousands of digits
        raise Wrong(f"holds what is no number of JSON ({error})") from error
    except RecursionError as error:
        raise Wrong("is nested too deeply") from error


def _checked(record: Any) -> dict[str, Any]:
    needed = ("source", "quantity", "laws", "noises")
    whole = _object(record, "the file", needed, ("seen", "weights"))
    if not isinstance(whole["source"], str):
        raise Wrong(f"`source` must be text, got {_kind(whole['source'])}")
    if whole["quantity"] not in (quantities := [PROBABILITY.name, MEAN_NLL.name]):
        got = _shown(whole["quantity"])
        raise Wrong(f"`quantity`, what curves are of, must be {' or '.join(quantities)}, got {got}")
    for group in ("laws", "noises"):
        for name, usual in _object(whole[group], f"`{group}`").items():
            _check_usual(usual, f"{group}.{name}")
    seen = whole.get("seen", [])
    if not (isinstance(seen, list) and all(isinstance(one, str) for one in seen)):
        raise Wrong("`seen` must be a list of texts, the hashes of curves")
    _check_weights(whole)
    return whole


def _check_usual(usual: Any, where: str) -> None:
    """Sites, centre and scale of a law or a noise."""
    own = _object(usual, where, ("sites", "centre", "scale"), ("curves",))
    if not _is_number(own.get("curves", 1)) or own.get("curves", 1) < 1:
        raise Wrong(f"{where}.curves must be how many there were, got {_shown(own['curves'])}")
    sites = own["sites"]
    if not (isinstance(sites, list) and sites and all(isinstance(one, str) for one in sites)):
        raise Wrong(f"{where}.sites must be a list of names of parameters")
    if len(set(sites)) < len(sites):
        raise Wrong(f"{where}.sites names a parameter twice")
    d = len(sites)
    _numbers(own["centre"], f"{where}.centre", d)
    scale, place = own["scale"], f"{where}.scale"
    if not (isinstance(scale, list) and len(scale) == d):
        rows = f"{len(scale)} rows" if isinstance(scale, list) else _kind(scale)
        raise Wrong(f"{place} must be a list of {d} rows, one for each of its sites, got {rows}")
    for i, row in enumerate(scale):
        _numbers(row, f"{place}, row {i + 1}", d)
    matrix = np.array(scale, float)
    far, sd = np.abs(matrix - matrix.T), np.sqrt(np.abs(np.diag(matrix)))
    if (far > SYMMETRIC * np.outer(sd, sd)).any():
        i, j = np.unravel_index(np.argmax(far), far.shape)
        raise Wrong(
            f"{place} must be symmetric, got {matrix[i, j]:g} in row {i + 1}, column {j + 1}, and "
            f"{matrix[j, i]:g} in row {j + 1}, column {i + 1}"
        )
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError as error:
        least = np.linalg.eigvalsh(matrix).min()
        raise Wrong(
            f"{place} must be positive definite, as variances and covariances are, and its least "
            f"eigenvalue is {least:g}"
        ) from error


def _check_weights(whole: Mapping[str, Any]) -> None:
    weights = _object(whole.get("weights", {}), "`weights`")
    for name, weight in weights.items():
        if name not in whole["laws"]:
            known = ", ".join(whole["laws"]) or "none"
            raise Wrong(f"weights.{name}: no law of that name is among its laws ({known})")
        if not _is_number(weight) or weight < 0:
            raise Wrong(f"weights.{name} must be a number of at least 0, got {_shown(weight)}")
    if weights and not sum(weights.values()) > 0:
        raise Wrong("`weights` are all 0")


def _object(
    value: Any, where: str, needed: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong(f"{where} must be an object, {{...}}, got {_kind(value)}")
    if missing := [name for name in needed if name not in value]:
        raise Wrong(f"{where} lacks {', '.join(f'`{name}`' for name in missing)}")
    if odd := sorted(set(value) - {*needed, *others} if needed else ()):
        raise Wrong(f"{where} has {_shown(odd[0])}, which is none of {', '.join(needed + others)}")
    return value


def _numbers(value: Any, where: str, d: int) -> None:
    if not (isinstance(value, list) and len(value) == d):
        got = f"{len(value)}" if isinstance(value, list) else _kind(value)
        raise Wrong(f"{where} must be a list of {d} numbers, one for each of its sites, got {got}")
    for one in value:
        if not _is_number(one):
            raise Wrong(f"{where} must hold finite numbers, got {_shown(one)}")


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) < 1e300  # which no NaN is, and no whole number beyond floats


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float) else _kind(value)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "nothing (null)" if value is None else kinds.get(type(value), "a number")
