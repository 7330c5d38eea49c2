"""How much of a gain is recognition of the task, and how much is learning of its mapping.

Demonstrations with unpaired (random) labels still show what kind of task it is, its format and its
answers, but not which answer belongs to which question. What the right answer gains from them is
recognition; what it gains from right labels beyond that is learning (Pan et al. 2023, arXiv
2305.09731; Min et al. 2022, arXiv 2202.12837). Both curves are of one study and are fitted
together, so that their common parameters count once and draws of the two belong together.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.collect.labels import POLICIES, named
from bayesicl.errors import InputError
from bayesicl.forecast import predict
from bayesicl.law import Law
from bayesicl.tree import label, law_label, study_of

LEAST = 0.02  # a gain in probability below which there is nothing to share out
SURE = 0.95  # posterior probability that there is


def recognition(
    fits: Sequence[xr.DataTree],
    *,
    at: int | None = None,
    level: float = 0.9,
    law: str | Path | Law | None = None,
) -> pd.DataFrame:
    """What each label policy gains, and the share of the gain that unpaired labels give.

    Args:
        fits: of studies whose hypotheses are label policies as `bayesicl collect` names them, gold
            among them.
        at: shots N >= 1 up to which gains are counted; None for the longest that the curves with
            gold and random labels (or, without random ones, all) were measured at.
        level: of the equal-tailed intervals.
        law: where to find a user's law that has moved since the fits.

    Returns:
        One row a quantity: study, law, behaviour ("" for the only one), quantity, shots (N),
        median, lower, upper, note. Quantities: "start" p(0) with gold labels; "gain, POLICY"
        p(N) - p(0) of each policy; "learned" gain with gold minus gain with random labels; and
        "share recognised", the second over the first, where the gain with gold labels is above
        LEAST with probability SURE; else NaN and "no gain to share out".

    Raises:
        InputError: a fit has no curve with gold labels and another policy's, or N is not above 0.
    """
    if at is not None and at < 1:
        raise InputError(f"--shots must be at least 1, got {at}")
    rows = [row for tree in fits for row in _of_study(tree, at, level, law)]
    return pd.DataFrame(rows)


def _of_study(tree, at, level, law) -> Iterator[dict]:
    study = study_of(tree)
    found = _policies(study.hypotheses)
    if not found:
        raise InputError(
            f"{label(tree)}: its curves are {', '.join(study.hypotheses)}; measure gold labels and "
            "others (bayesicl collect --labels gold random), and fit both together"
        )
    head = {"study": label(tree), "law": law_label(tree)}
    fitted = study.cells[study.cells["fitted"]]
    longest = fitted.groupby("hypothesis")["shots"].max()
    for behaviour, names in found.items():
        compared = [n for p, n in names.items() if p in ("gold", "random")]
        compared = compared if len(compared) > 1 else list(names.values())
        last = int(min(longest[study.hypotheses.index(name)] for name in compared))
        shots = last if at is None else at
        curves = predict(tree, [0, shots], law=law)["mean"]
        draws = {p: curves.sel(hypothesis=n).stack(d=("chain", "draw")) for p, n in names.items()}
        start = {p: x.sel(shots=0).to_numpy() for p, x in draws.items()}
        gain = {p: x.sel(shots=shots).to_numpy() - start[p] for p, x in draws.items()}
        head |= {"behaviour": behaviour}
        note = "" if tree.attrs["passed"] else "not converged"
        beyond = "extrapolated" if shots > last else ""
        yield head | _row("start", 0, start["gold"], level, note)
        for policy in names:
            yield head | _row(f"gain, {policy}", shots, gain[policy], level, note or beyond)
        if "random" not in gain:
            continue
        yield head | _row("learned", shots, gain["gold"] - gain["random"], level, note or beyond)
        if np.mean(gain["gold"] > LEAST) >= SURE:
            # Where few draws have almost no gain, their ratios are wild but the quantiles are not.
            share = gain["random"] / gain["gold"]
            yield head | _row("share recognised", shots, share, level, note or beyond)
        else:
            nothing = np.full(1, np.nan)
            yield head | _row("share recognised", shots, nothing, level, "no gain to share out")


def _policies(hypotheses: Sequence[str]) -> dict[str, dict[str, str]]:
    """Behaviour -> policy -> hypothesis, of behaviours with gold labels and others."""
    behaviours = {name.partition(",")[0] for name in hypotheses} - set(POLICIES) | {""}
    found = {}
    for behaviour in sorted(behaviours):
        own = {p: named(behaviour, p) for p in POLICIES if named(behaviour, p) in hypotheses}
        if "gold" in own and len(own) > 1:
            found[behaviour] = own
    return found


def _row(quantity: str, shots: int, draws: np.ndarray, level: float, note: str) -> dict:
    lower, median, upper = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2])
    between = {"median": median, "lower": lower, "upper": upper}
    return {"quantity": quantity, "shots": shots} | between | {"note": note}


def verdict(table: pd.DataFrame, *, level: float = 0.9) -> str:
    """What the shares say, in words that claim no more than the posteriors can."""
    lines = []
    for key, group in table.groupby(["study", "law", "behaviour"], sort=False):
        name = ", ".join(str(part) for part in key if part)  # pyright: ignore[reportGeneralTypeIssues]
        rows = {row["quantity"]: row for row in group.to_dict("records")}
        share = rows.get("share recognised")
        if share is None:
            lines.append(f"{name}: no random labels, so recognition cannot be told apart.")
        elif share["note"] == "not converged":
            lines.append(f"{name}: the fit did not converge, so nothing can be said.")
        elif np.isnan(share["median"]):
            lines.append(f"{name}: right labels gain nothing beyond doubt: no gain to share out.")
        else:
            lines.append(
                f"{name}: up to {share['shots']} shots unpaired labels give {_interval(share)} of "
                f"the gain with right labels, which add {_interval(rows['learned'])} in "
                f"probability ({100 * level:g}% intervals)."
            )
    return "\n".join(lines)


def _interval(row: dict) -> str:
    return f"{row['median']:.2f} ({row['lower']:.2f} to {row['upper']:.2f})"
