"""How much of a gain is recognition of the task, and how much is learning of its mapping.

Demonstrations with unpaired (random) labels still show what kind of task it is, its format and its
answers, but not which answer belongs to which question. What the right answer gains from them is
recognition; what it gains from right labels beyond that is learning (Pan et al. 2023, arXiv
2305.09731; Min et al. 2022, arXiv 2202.12837). Both curves are of one study and are fitted
together, so that their common parameters count once and draws of the two belong together.

Without demonstrations gold and random labels are one and the same prompt, so both gains count from
one start: the gold curve's own at 0 shots, or where it alone was not measured there, that of the
curve with random labels. The two are not averaged, for `bayesicl collect` writes what it measured
at 0 shots into both: that would count it twice, and make the start too narrow. Gold comes first,
because its gain is what is shared out. Only where neither curve was measured at 0 shots is the
start the mean of what both say. Intervals are those of the fit, which takes its rows for
independent: that both curves ask the same questions in the same orders, and may share their rows at
0 shots, is ignored.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.collect.labels import POLICIES, named
from bayesicl.errors import CurveWarning, InputError
from bayesicl.forecast import predict
from bayesicl.law import Law
from bayesicl.table import listed
from bayesicl.tree import label, law_label, study_of

# Gains below which there is nothing to share out, by scale; near p = .4 the two are the same.
LEAST = {"probability": 0.02, "mean_nll": 0.05}
SURE = 0.95  # posterior probability that there is
FAILED, EXTRAPOLATED, NOTHING = "not converged", "extrapolated", "no gain to share out"


def recognition(
    fits: Sequence[xr.DataTree],
    *,
    at: int | None = None,
    level: float = 0.9,
    law: str | Path | Law | None = None,
) -> pd.DataFrame:
    """What each label policy gains, and the share of the gain that unpaired labels give.

    Args:
        fits: of studies whose hypotheses are label policies as `bayesicl collect` names them.
            Studies without gold labels, or with them alone, are left out, with a CurveWarning.
        at: shots N >= 1 up to which gains are counted; None for the longest that the curves with
            gold and random labels (or, without random ones, all) were measured at.
        level: of the equal-tailed intervals.
        law: where to find a user's law that has moved since the fits.

    Returns:
        One row a quantity: study, law, behaviour ("" for the only one), quantity, shots (N),
        median, lower, upper, unit, note. Quantities: "start", the mean m(0) before any
        demonstration, common to gold and random labels; "gain, POLICY", how much better m(N) is
        than m(0) of each policy: what a probability gains, what a mean nll loses; "learned", gain
        with gold minus gain with random labels; and "share recognised", the second over the first,
        where the gain with gold labels is above LEAST with probability SURE; else NaN and "no gain
        to share out". The note says, too, where a fit did not converge and where N, or 0, lies
        beyond the shots that were fitted ("extrapolated").

    Raises:
        InputError: no fit has a curve with gold labels and another policy's, or N is not above 0.
    """
    if at is not None and at < 1:
        raise InputError(f"--shots must be at least 1, got {at}")
    found = [(tree, _policies(study_of(tree).hypotheses)) for tree in fits]
    some = [(tree, policies) for tree, policies in found if policies]
    without = {label(tree): study_of(tree).hypotheses for tree, policies in found if not policies}
    texts = [f"{name}: its curves are {', '.join(curves)}" for name, curves in without.items()]
    if texts and not some:
        raise InputError(
            f"{listed(texts)}; measure gold labels and others (bayesicl collect --labels gold "
            "random), and fit both together"
        )
    if texts:
        warnings.warn(
            f"{listed(texts)}; there is nothing to compare, left out", CurveWarning, stacklevel=2
        )
    return pd.DataFrame([row for one in some for row in _of_study(*one, at, level, law)])


def _of_study(tree, found: dict[str, dict[str, str]], at, level, law) -> Iterator[dict]:
    study = study_of(tree)
    scale = study.scale
    head = {"study": label(tree), "law": law_label(tree)}
    fitted = study.cells[study.cells["fitted"]].groupby("hypothesis")["shots"]
    first, longest = fitted.min(), fitted.max()
    failed = "" if tree.attrs["passed"] else FAILED
    for behaviour, names in found.items():
        compared = [p for p in ("gold", "random") if p in names]
        code = {p: study.hypotheses.index(name) for p, name in names.items()}
        last = int(min(longest[code[p]] for p in (compared if len(compared) > 1 else names)))
        shots = last if at is None else at
        curves = predict(tree, [0, shots], law=law)["mean"]
        draws = {p: curves.sel(hypothesis=n).stack(d=("chain", "draw")) for p, n in names.items()}
        start = {p: x.sel(shots=0).to_numpy() for p, x in draws.items()}
        unseen = {p: bool(first[code[p]] > 0) for p in names}
        # One prompt: one curve that was measured without demonstrations, else what both say.
        told = [p for p in compared if not unseen[p]][:1] or compared
        common = np.stack([start[p] for p in told]).mean(axis=0)
        for p in compared:
            start[p], unseen[p] = common, unseen[told[0]]
        gain = {
            p: scale.better * (x.sel(shots=shots).to_numpy() - start[p]) for p, x in draws.items()
        }
        beyond = {p: unseen[p] or bool(shots > longest[code[p]]) for p in names}
        head |= {"behaviour": behaviour}
        far, unit = EXTRAPOLATED, scale.unit
        yield head | _row("start", 0, start["gold"], level, unit, failed, far * unseen["gold"])
        for p in names:
            about = unit, failed, far * beyond[p]
            yield head | _row(f"gain, {p}", shots, gain[p], level, *about)
        if "random" not in gain:
            continue
        notes = failed, far * (beyond["gold"] or beyond["random"])
        learned = gain["gold"] - gain["random"]
        yield head | _row("learned", shots, learned, level, unit, *notes)
        share = np.full(1, np.nan)
        if enough := np.mean(gain["gold"] > LEAST[scale.name]) >= SURE:
            # Where few draws have almost no gain, their ratios are wild but the quantiles are not.
            share = gain["random"] / gain["gold"]
        notes += () if enough else (NOTHING,)
        yield head | _row("share recognised", shots, share, level, "", *notes)


def _policies(hypotheses: Sequence[str]) -> dict[str, dict[str, str]]:
    """Behaviour -> policy -> hypothesis, of behaviours with gold labels and others."""
    behaviours = {name.partition(",")[0] for name in hypotheses} - set(POLICIES) | {""}
    found = {}
    for behaviour in sorted(behaviours):
        own = {p: named(behaviour, p) for p in POLICIES if named(behaviour, p) in hypotheses}
        if "gold" in own and len(own) > 1:
            found[behaviour] = own
    return found


def _row(
    quantity: str, shots: int, draws: np.ndarray, level: float, unit: str, *notes: str
) -> dict:
    lower, median, upper = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2])
    between = {"median": median, "lower": lower, "upper": upper}
    about = {"unit": unit, "note": "; ".join(filter(None, notes))}
    return {"quantity": quantity, "shots": shots} | between | about


def verdict(table: pd.DataFrame, *, level: float = 0.9) -> str:
    """What the shares say, in words that claim no more than the posteriors can."""
    lines = []
    for key, group in table.groupby(["study", "law", "behaviour"], sort=False):
        name = ", ".join(str(part) for part in key if part)  # pyright: ignore[reportGeneralTypeIssues]
        rows = {row["quantity"]: row for row in group.to_dict("records")}
        share = rows.get("share recognised")
        if share is None:
            lines.append(f"{name}: no random labels, so recognition cannot be told apart.")
            continue
        far = " This is extrapolated beyond the measured shots." * (EXTRAPOLATED in share["note"])
        if FAILED in share["note"]:
            lines.append(f"{name}: the fit did not converge, so nothing can be said.")
        elif np.isnan(share["median"]):
            lines.append(
                f"{name}: right labels gain nothing beyond doubt: no gain to share out.{far}"
            )
        else:
            lines.append(
                f"{name}: up to {share['shots']} shots unpaired labels give {_interval(share)} of "
                f"the gain with right labels, which add {_interval(rows['learned'])} in "
                f"{rows['learned']['unit']} ({100 * level:g}% intervals).{far}"
            )
    return "\n".join(lines)


def _interval(row: dict) -> str:
    return f"{row['median']:.2f} ({row['lower']:.2f} to {row['upper']:.2f})"
