"""What differs between two variants or models: belief before, knowledge, or efficiency."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from bayesicl.errors import InputError
from bayesicl.forecast import predict
from bayesicl.identify import Element, elements, identified, ordered, unconstrained
from bayesicl.law import Law
from bayesicl.tree import label, study_of

NOT_CONVERGED = "not converged"
ALPHA = 0.05  # of any false finding in one contrast, both directions, over its parameters


def contrast(
    fits: Sequence[xr.DataTree],
    *,
    between: tuple[str, str, str],
    at: Sequence[int] | None = None,
    level: float = 0.9,
    law: str | Path | Law | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Differences, second minus first, between fits of one law that match on task and hypothesis.

    Args:
        fits: of both sides, under one law and one noise.
        between: a key column and its two values, such as ("variant", "base", "instruct").
        at: shots at which the curves are compared; None for 0 and the longest that both fitted.
        level: of the equal-tailed intervals.
        law: where to find a user's law that has moved since the fits.
        seed: of the pairing of the two independent posteriors' draws.

    Returns:
        One row a difference: task (all keys but the two sides), first, second, hypothesis,
        believed, quantity ("logit pi", "log K", "gamma", "beta", "P", "p(n)" or "nll(n)", ...),
        shots, median, lower, upper, probability_of_direction (that the sign is the median's), sds
        (distance of the two means in posterior sds of the difference), identified, note.

    Raises InputError where nothing matches, a match is not unique, or laws or noise differ.
    """
    pairs = _pairs(fits, between)
    rows = [row for pair in pairs for row in _differences(*pair, at, level, law, seed)]
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame) -> str:
    """What changed, in words that claim no more than the posteriors can."""
    lines = []
    # Over all that is contrasted, or one of many would always look sure; and by the distance in
    # sds as well, since draws cannot show so small a tail.
    m = max((table["identified"] & table["shots"].isna()).sum(), 1)
    bar, far = 1 - ALPHA / (2 * m), norm.isf(ALPHA / (2 * m))
    for key, group in table.groupby(["task", "first", "second"], sort=False):
        task, first, second = tuple(key)  # pyright: ignore[reportArgumentType]
        if (group["note"] == NOT_CONVERGED).any():
            lines.append(
                f"{task or 'task'}, {first} to {second}: a fit did not converge, so nothing can "
                "be said."
            )
            continue
        parameters = group[group["shots"].isna()]
        known = parameters["identified"]
        sure = known & (parameters["probability_of_direction"] >= bar) & (parameters["sds"] >= far)
        words = [
            f"{_element(row)} {'rose' if row['median'] > 0 else 'fell'}"
            for row in parameters[sure].to_dict("records")
        ]
        lost = [str(_element(row)) for row in parameters[~known].to_dict("records")]
        said = ", ".join(words) or "no identified parameter differs beyond doubt"
        said += f" (probability of direction at least {bar:.3f}, for {m} parameters in all)"
        lines.append(f"{task or 'task'}, {first} to {second}: {said}.")
        if lost:
            lines.append(f"  Not identified, so nothing is known of a change in {', '.join(lost)}.")
    return "\n".join(lines)


def _element(row: dict) -> Element:
    return Element(row["quantity"], row["hypothesis"], row["believed"])


def _pairs(fits, between) -> list[tuple[xr.DataTree, xr.DataTree, str, str, str]]:
    column, *values = between
    laws = {tree.attrs["law"] for tree in fits}
    noises = {tree.attrs["noise"] for tree in fits}
    if len({tree.attrs["backgrounds"] for tree in fits}) > 1:
        raise InputError(
            "a contrast needs the same number of backgrounds: they change what pi means"
        )
    if len(laws) > 1 or len(noises) > 1:
        raise InputError(
            f"a contrast needs one law and one noise, got {', '.join(sorted(laws | noises))}; "
            "give the fits of one law"
        )
    keys = [json.loads(tree["study"].attrs["key"]) for tree in fits]
    if column not in (known := sorted({name for key in keys for name in key})):
        raise InputError(f"--between {column}: no such key; these fits have {', '.join(known)}")
    sides = [
        [(k, t) for k, t in zip(keys, fits, strict=True) if k.get(column) == value]
        for value in values
    ]
    for value, side in zip(values, sides, strict=True):
        if not side:
            there = ", ".join(sorted({k[column] for k in keys if k.get(column)}))
            what = f"there are {there}" if there else f"these fits have no {column}"
            raise InputError(f"--between {column}={value}: no such fit; {what}")
    pairs = []
    if len({tuple(k.items()) for k, _ in sides[0]}) < len(sides[0]):
        raise InputError("more than one fit of a study was given: give each study once")
    for key, first in sides[0]:
        # The same model under two variants, else whatever else is the same for the two sides.
        same = [(k, t) for k, t in sides[1] if _rest(k, {column}) == _rest(key, {column})]
        loose = {"model", "variant"}
        same = same or [(k, t) for k, t in sides[1] if _rest(k, loose) == _rest(key, loose)]
        rivals = [k for k, _ in sides[0] if _rest(k, loose) == _rest(key, loose)]
        other_model = bool(same) and same[0][0].get("model") != key.get("model")
        if len(same) > 1 or (other_model and len(rivals) > 1):
            raise InputError(
                f"{label(first)}: more than one fit to set beside it; name two models "
                "(--between model=A,B) or give fewer fits"
            )
        for _, second in same:
            if not _shared(first, second):
                raise InputError(
                    f"{label(first)} and {label(second)} have no hypothesis in common: nothing to "
                    "contrast"
                )
            task = " | ".join(v for v in _rest(key, loose | {column}).values() if v)
            pairs.append((first, second, task, label(first), label(second)))
    if not pairs:
        raise InputError(
            f"no two fits with {column} {values[0]} and {values[1]} share a task: "
            "nothing to contrast"
        )
    return pairs


def _rest(key: dict[str, str], without: set[str]) -> dict[str, str]:
    return {name: value for name, value in key.items() if name not in without}


def _differences(first, second, task, name_first, name_second, at, level, law, seed):
    head = {"task": task, "first": name_first, "second": name_second}
    converged = bool(first.attrs["passed"] and second.attrs["passed"])
    own = json.loads(first.attrs["law_parameters"])
    names = [name for name in ordered(first) if name in own]
    if {"gamma", "L", "P"} & set(names) and "ceiling" in names:
        names.remove("ceiling")  # their function: one finding is not to be counted twice
    symbol = study_of(first).scale.symbol
    known = [identified(tree, [*names, f"{symbol}_zero"]) for tree in (first, second)]
    n_believed = first["posterior"].sizes.get("believed", 0)
    for name in names:
        one, two = (elements(tree["posterior"][name]) for tree in (first, second))
        for element in filter(two.__contains__, one):
            if name == "pi" and n_believed == 2 and element.believed == "background":
                continue  # of two hypotheses it has the rest of the belief, and no news of its own
            draws = [of[element].to_numpy().ravel() for of in (one, two)]
            quantity, scaled = _scale(element.parameter, draws, first["prior"][name])
            place = {"hypothesis": element.hypothesis, "believed": element.believed}
            what = {"quantity": quantity, "shots": np.nan}
            note = {"identified": converged and all(k[element] for k in known), "note": ""}
            if not note["identified"]:
                note["note"] = "not identified" if converged else NOT_CONVERGED
            yield head | place | what | _difference(scaled, level, seed) | note
    start = lambda h: all(k[Element(f"{symbol}_zero", h, "")] for k in known)  # noqa: E731
    for row in _curves(first, second, head, start, at, level, law, seed):
        yield row if converged else row | {"identified": False, "note": NOT_CONVERGED}


def _scale(name: str, draws: list[np.ndarray], prior: xr.DataArray) -> tuple[str, list[np.ndarray]]:
    """Log-odds for pi, logs for what is positive, plain differences for probabilities."""
    before = prior.to_numpy().ravel()
    if name == "pi":
        return "logit pi", [unconstrained(x, before) for x in draws]
    if before.min() >= 0 and before.max() > 1:
        return f"log {name}", [unconstrained(x, before) for x in draws]
    return name, draws


def _difference(draws: Sequence[np.ndarray], level: float, seed: int) -> dict[str, float]:
    first, second = draws
    # The posteriors are independent: any pairing of draws will do, but not by iteration.
    rng = np.random.default_rng(seed)
    n = min(first.size, second.size)
    d = rng.permutation(second)[:n] - rng.permutation(first)[:n]
    lower, median, upper = np.quantile(d, [(1 - level) / 2, 0.5, (1 + level) / 2])
    # For the direction all pairs count.
    above = np.searchsorted(np.sort(first), second, side="left").mean() / first.size
    direction = max(above, np.searchsorted(np.sort(second), first).mean() / second.size)
    sds = abs(second.mean() - first.mean()) / np.hypot(first.std(), second.std())
    return {
        "median": median,
        "lower": lower,
        "upper": upper,
        "probability_of_direction": direction,
        "sds": sds,
    }


def _curves(first, second, head, known, at, level, law, seed):
    """Differences of the curves; `known` tells of a hypothesis whether both know p at 0 shots."""
    symbol = study_of(first).scale.symbol
    cells = [study_of(tree).cells for tree in (first, second)]
    longest = int(min(c.loc[c["fitted"], "shots"].max() for c in cells))
    shots = [0, longest] if at is None else sorted(set(at))
    curves = [predict(tree, shots, law=law) for tree in (first, second)]
    for hypothesis in _shared(first, second):
        for n in shots:
            pair = [c.sel(hypothesis=hypothesis, shots=n) for c in curves]
            draws = [c["mean"].to_numpy().ravel() for c in pair]
            place = {
                "hypothesis": hypothesis,
                "believed": "",
                "quantity": f"{symbol}(n)",
                "shots": n,
            }
            told = n > 0 or known(hypothesis)
            note = "" if all(bool(c["within"]) for c in pair) else "extrapolated"
            about = {"identified": told, "note": note if told else "not identified"}
            yield head | place | _difference(draws, level, seed) | about


def _shared(first: xr.DataTree, second: xr.DataTree) -> list[str]:
    other = study_of(second).hypotheses
    return [name for name in study_of(first).hypotheses if name in other]
