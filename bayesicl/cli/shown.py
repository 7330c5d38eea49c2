"""The tables of `forecast` for people: decisions first, and no wider than they need be."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = {
    "fits": "Fitted: so many cells, from and to these shots; `fitted` is the share of the longest "
    "shots",
    "shots_to": "Shots to the threshold, n*: quantiles, and how probable it is that it lies beyond",
    "useful": "Useful shots, as the laws have it: from so many on, doubling them gains less than "
    "`gain` with this probability (what the laws miss is not in it; where misfit was fitted the "
    "mean curve's bands have it, and their medians may gain more). > N: not even from N on, the "
    "`last` that was looked at. at_last: how probable it is that doubling these gains less; near 0 "
    "it still gains there",
    "reached": "Probability that the mean curve reaches the threshold at these shots or fewer (it "
    "may lie below again later)",
    "curves": "Predictions: medians and intervals, by what each band is of; outside the fitted "
    "shots they extrapolate",
    "held_out": "Held-out cells of each curve: how many lie within their intervals",
    "scores": "Held-out cells: coverage of the intervals (where an alarm rang, as widened), errors "
    "in probability, or in nats of mean nll, and log scores (as before that). Below "
    "30 curves, standard errors are over models; of fewer than 5 there is none, and no verdict",
    "weights": "Weights of the laws: `usual`, the prior's own (all alike where it has none), moved "
    "by how each law predicted fitted cells that it had not seen, of the table's other studies and "
    "then of its own, to `weight`",
    "sensitivity": "How far the mean curve hangs on the prior: power-scaling sensitivity to prior "
    "and likelihood. Above .05 it does, on the prior alone or with the data; these may disagree. "
    "reached_...: by how much the probability to have reached the threshold would change if prior "
    "or likelihood counted twice",
}
DECISIONS = ("shots_to", "useful", "reached")
REPEATED = ("study", "law", "fitted", "hypothesis")  # not shown where they tell nothing apart


def for_people(tables: "Mapping[str, pd.DataFrame]", last: int) -> None:
    """Print the tables of `HEADINGS` that are there. last: the longest shots that were asked."""
    import numpy as np
    import pandas as pd

    if "curves" not in tables:
        return
    alike = {column for column in REPEATED if tables["curves"][column].nunique() == 1}
    for name, heading in HEADINGS.items():
        if name not in tables:
            continue
        table = WAYS[name](tables[name], last) if name in WAYS else tables[name]
        if name in DECISIONS and "alarms" in tables:
            whose = ["study", "law", "fitted"]
            rung = pd.MultiIndex.from_frame(tables["alarms"][whose])
            own = pd.MultiIndex.from_frame(table[whose]).isin(rung)
            table = table.assign(alarm=np.where(own, "ALARM", ""))
        told = {"fits": {"hypothesis"}, "weights": {"study"}}.get(name, set(REPEATED))
        print(f"\n{heading}")
        common.show(table.drop(columns=list(alike & told & set(table))))


def _fits(table: "pd.DataFrame", last: int) -> "pd.DataFrame":
    return table.assign(converged=table["converged"].map({True: "yes", False: "NO"}))


def _shots_to(table: "pd.DataFrame", last: int) -> "pd.DataFrame":
    quantiles = [column for column in map(str, table) if column.startswith("n* ")]
    never = {c: table[c].map(_hedged) for c in map(str, table) if c.startswith("not_by_")}
    return table.assign(**{c: table[c].map(lambda n: _shots(n, last)) for c in quantiles}, **never)


def _useful(table: "pd.DataFrame", last: int) -> "pd.DataFrame":
    shown = table["useful_shots"].map(lambda n: _shots(n, table["last"].iloc[0]))
    return table.assign(useful_shots=shown, at_last=table["at_last"].map(_hedged))


def _shots(n: Any, last: int) -> str:
    return f"{n:.0f}" if n <= last else f"> {last}"


def _reached(table: "pd.DataFrame", last: int) -> "pd.DataFrame":
    """Probabilities of which so many draws cannot show less, nor certainty."""
    return _placed(table.assign(probability=table["probability"].map(_hedged)))


def _hedged(probability: float) -> str:
    if 0.001 <= probability <= 0.999:
        return f"{probability:.3f}"
    return "<0.001" if probability < 0.5 else ">0.999"


def _curves(table: "pd.DataFrame", last: int) -> "pd.DataFrame":
    for lower in [column for column in map(str, table) if column.startswith("lower ")]:
        level = lower.removeprefix("lower ")
        upper = f"upper {level}"
        ends = [f"{a:.3f} to {b:.3f}" for a, b in zip(table[lower], table[upper], strict=True)]
        table = table.assign(**{lower: ends}).rename(columns={lower: level}).drop(columns=upper)
    return _placed(table)


def _placed(table: "pd.DataFrame") -> "pd.DataFrame":
    """`within`, of the fitted shots, in words."""
    where = table["within"].map({True: "fitted", False: "outside"})
    return table.assign(within=where).rename(columns={"within": "range"})


def _held_out(table: "pd.DataFrame", last: int) -> "pd.DataFrame":
    inside = [column for column in map(str, table) if column.startswith("inside ")]
    return table.assign(
        **{
            c: [f"{k} of {n}" for k, n in zip(table[c], table["cells"], strict=True)]
            for c in inside
        }
    ).drop(columns="cells")


WAYS = {
    "held_out": _held_out,
    "fits": _fits,
    "shots_to": _shots_to,
    "useful": _useful,
    "reached": _reached,
    "curves": _curves,
}
