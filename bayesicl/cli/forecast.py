"""Predict curves at any number of shots, and score predictions of what was held out.

From saved fits, or from a table: then the first part of each curve is fitted (--fit-shots or
--fit-points; of a stack, all of it without these), saved in DIR, and the rest is scored. Fits with
held-out cells are always scored.
Each band says what it is of: the mean curve is not a new measurement.

A table is forecast by --law stack, unless laws, --noise or --backgrounds are named. It mixes laws
under the prior of bayesicl's bank (or --prior FILE), with the laws' misfit. Each starts with its
weight in the prior (`usual`; all alike where that has none), and its `weight` is how it predicted
fitted cells that it had not seen, of the table's other studies and then of its own. A fit to such
first cells that does not converge is left out with its origin, and that is a caution. Each
hypothesis of a study is forecast on its own. --law stack my_law.py: with a law of your own, of
which FILE knows. --plot draws it.

An ALARM tells that no law here is adequate under its prior: the fitted cells conflict with that,
fall as the law cannot and noise would not or, which the stack alone looks at, were not foreseen
from those before them. The stack's bands are then as much wider beyond the fit as forecasts of
fitted cells needed. One law among others that are adequate gets a caution.

Exit codes: 0 all is well, cautions or not; 3 an ALARM, a fit of what is to be fitted that did not
converge, or a stack of which no origin is left to weigh its laws by; 2 bad input; 4 a fit broke
down and was not made.

Example:
  bayesicl forecast fits --shots 0,10,100,1000 --threshold 0.9
  bayesicl forecast curves.csv --fit-shots 25% --law scoring power --out held-out
  bayesicl forecast curves.csv --shots 0,100,1000 --out stacked --plot figures
"""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common
from bayesicl.cli.shown import HEADINGS, for_people
from bayesicl.cli.stacks import SHOTS, STACK
from bayesicl.cli.told import Told, Verdict, told_of
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ALARMED = 3  # exit code: as where a check came out badly
UNLIKELY = 0.01  # so many misses, if the cells of a curve were independent


def add_options(parser: common.Parser) -> None:
    """What to predict, and for a table how to read and fit it."""
    add = parser.add_argument
    add("source", nargs="+", metavar="FIT|TABLE", help="saved fits or their folders, or one table")
    add(
        "--shots", type=common.shot_list, metavar="N,N,...",
        help="where to predict (default 0,10,100,1000; of a stack, those of them within 30 times "
        "the shots that were fitted of every curve)",
    )  # fmt: skip
    add(
        "--threshold", type=float, metavar="P",
        help="also say how probable it is that the mean curve has reached P, a probability, or "
        "a mean nll that it falls to",
    )  # fmt: skip
    add(
        "--gain", type=float, metavar="P",
        help="also say from how many shots on doubling them gains less than P, 9 times in 10; "
        "looked for up to half of the last of --shots",
    )  # fmt: skip
    add("--out", metavar="DIR", help="folder for the fits of a table")
    add(
        "--plot", metavar="DIR",
        help="draw each stack's forecast, up to the last of --shots, as a PNG in this folder (fits "
        "are drawn by bayesicl plot)",
    )  # fmt: skip
    common.add_json(parser)
    common.add_table_options(parser)
    common.add_fit_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print scores of what was held out, predictions and, if asked, what reaches the threshold."""
    import pandas as pd

    from bayesicl.decide import reach, shots_to, useful_shots
    from bayesicl.forecast import bands
    from bayesicl.law import AT
    from bayesicl.scale import PROBABILITY, scale_of
    from bayesicl.score import score

    if args.gain is not None and max(args.shots or SHOTS) < 2:
        raise InputError("--gain is of doubling shots: name some beyond 2 with --shots")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("cells", *HEADINGS)}
    failures: list[str] = []
    verdicts: list[Verdict] = []
    may_stack: list[bool] = []  # of single laws under declared priors: our own prior knows such

    def add(name: str, told: Told, table: pd.DataFrame) -> None:
        whose = told.verdict.named | {"fitted": told.verdict.share}
        for i, (column, value) in enumerate(whose.items()):
            table.insert(i, column, value)
        parts[name].append(table)

    for told in told_of(args, failures, parts["weights"]):
        verdicts.append(told.verdict)
        if told.verdict.named["law"] != STACK and AT not in told.verdict.named["law"]:
            may_stack.append(scale_of(told.prediction.attrs["outcome"]) == PROBABILITY)
        add("fits", told, told.fitted)
        if told.cells is not None:
            parts["cells"].append(told.cells)
        words = json.loads(told.prediction.attrs["bands"])
        table = bands(told.prediction.sel(shots=args.shots))
        add("curves", told, table.assign(band=table["band"].map(words)))
        add("sensitivity", told, told.sensitivity)
        if args.threshold is not None:
            table = reach(told.prediction, args.threshold).assign(threshold=args.threshold)
            table = table[table["shots"].isin(args.shots)].reset_index(drop=True)
            add("reached", told, table)
            add("shots_to", told, shots_to(told.prediction, args.threshold))
        if args.gain is not None:
            add("useful", told, useful_shots(told.prediction, gain=args.gain))
    tables = {name: pd.concat(part, ignore_index=True) for name, part in parts.items() if part}
    if "widened" in tables.get("curves", ()):
        tables["curves"] = tables["curves"].fillna({"widened": 1.0})
    if "cells" in tables:
        tables["scores"] = score(tables["cells"])
        tables["held_out"] = _held_out(tables["cells"])
    alarms, cautions, lines = _rung(verdicts)
    tables |= {
        name: pd.DataFrame(rows)
        for name, rows in (("alarms", alarms), ("cautions", cautions))
        if rows
    }
    if args.json:
        print(json.dumps({name: common.records(table) for name, table in tables.items()}))
    else:
        for line in [*lines, *(_misses(tables["scores"]) if "scores" in tables else ())]:
            print(line)
        for_people(tables, max(args.shots))
        if may_stack:
            print(
                "\nOf single laws under declared priors, bands beyond the fit were too narrow on "
                f"real curves; the recommended forecast is that of a table with --law {STACK}"
                + ("." if any(may_stack) else ", under a prior of your own (bayesicl learn).")
            )
    return common.finish([v.complaint for v in verdicts], failures) or (ALARMED if alarms else 0)


def _rung(
    verdicts: "Sequence[Verdict]",
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Rows of alarms and of cautions, and both in words.

    A study, as far as it was fitted, rings where no law's fit that passed and was judged is sound.
    """
    from bayesicl.alarm import in_words

    alarms, cautions, lines = [], [], []
    fits = [((v.named["study"], v.split), v) for v in verdicts]
    sound = {part for part, v in fits if not v.complaint and v.heard.judged and not v.heard.rung}
    for part, verdict in fits:
        heard, factor = verdict.heard, verdict.factor
        who, beware = ", ".join(verdict.named.values()), heard.cautions
        named = verdict.named | {"fitted": verdict.share}
        if heard.rung and part in sound:
            why = "; ".join(heard.rung)
            beware = [f"this law is not adequate: {why}; lean on none of its bands", *beware]
        elif heard.rung:
            alarms += [named | {"alarm": why, "widened": factor} for why in heard.rung]
            lines.append(f"{who}: {in_words(heard.rung, factor)}")
        cautions += [named | {"caution": text} for text in beware]
        lines += [f"{who}: caution: {text}." for text in beware]
    studies, rang = {v.named["study"] for v in verdicts}, {row["study"] for row in alarms}
    if rang and len(studies) > 1:
        lines.append(
            f"{len(rang)} of {len(studies)} studies rang; of sound ones whose cells are of "
            "different prompts up to 3 in 100 may."
        )
    return alarms, cautions, lines


def _held_out(cells: "pd.DataFrame") -> "pd.DataFrame":
    """How many of each curve's held-out cells lie within their intervals."""
    inside = [name for name in map(str, cells) if name.startswith("inside ")]
    curves = cells.groupby(["study", "law", "fitted", "hypothesis"], sort=False)
    counts = curves[inside].sum().astype(int)
    return counts.assign(cells=curves.size()).reset_index()


def _misses(scores: "pd.DataFrame") -> list[str]:
    """What a bad hold-out means for the predictions, in words: one line a law."""
    from scipy.stats import binom

    from bayesicl.score import TOLERANCE

    lines = []
    for row in scores.to_dict("records"):
        share, n = row["coverage 90%"], row["cells"]
        inside = round(share * n)
        said = f"90 % intervals held {inside} of {n} held-out cells, where {0.9 * n:.0f} were due"
        beyond = "its bands, n* or probabilities beyond the fit as if they held"
        if row["verdict 90%"] == "not reached" and share >= 0.9:
            said += ": its bands are wider than they need be"
        elif row["verdict 90%"] == "not reached" and 0.9 - share <= TOLERANCE[0.9]:
            said += ": its bands are a little too narrow"
        elif row["verdict 90%"] == "not reached":
            said = f"HOLD-OUT FAILED: {said}. Do not report {beyond}"
        elif row["verdict 90%"] == "not decided" and binom.cdf(inside, n, 0.9) < UNLIKELY:
            said = (
                f"HOLD-OUT IN DOUBT: {said}. On these curves they did not hold; cells of a curve "
                "miss together, so these few cannot tell whether the law fails elsewhere, too. "
                f"Hold out cells of more curves or models before you report {beyond}"
            )
        else:
            continue
        lines.append(f"{row['law']}: {said}.")
    return lines
