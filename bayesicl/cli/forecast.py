"""Predict curves at any number of shots, and score predictions of what was held out.

From saved fits, or from a table: then the first part of each curve is fitted (--fit-shots or
--fit-points), saved in DIR, and the rest is scored. Fits with held-out cells are always scored.
Each band says what it is of: the mean curve is not a new measurement.

--law stack, the recommended one, mixes laws under the prior of bayesicl's bank, with the laws'
misfit; each is weighted by how it predicted fitted cells that it had not seen.

Example:
  bayesicl forecast fits --shots 0,10,100,1000 --threshold 0.9
  bayesicl forecast curves.csv --fit-shots 25% --law scoring power --out held-out
  bayesicl forecast curves.csv --law stack --shots 0,100,1000 --threshold 0.9 --out stacked
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.cli.fit import fit_table
from bayesicl.cli.stacks import STACK, stacks
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesicl.curves import Curves

UNLIKELY = 0.01  # so many misses, if the cells of a curve were independent


def add_options(parser: common.Parser) -> None:
    """What to predict, and for a table how to read and fit it."""
    add = parser.add_argument
    add("source", nargs="+", metavar="FIT|TABLE", help="saved fits or their folders, or one table")
    add(
        "--shots", type=common.shot_list, default=[0, 10, 100, 1000], metavar="N,N,...",
        help="where to predict (default 0,10,100,1000)",
    )  # fmt: skip
    add(
        "--threshold", type=float, metavar="P",
        help="also say how probable it is that the mean curve has reached P",
    )  # fmt: skip
    add(
        "--gain", type=float, metavar="P",
        help="also say from how many shots on doubling them gains less than P, 9 times in 10",
    )  # fmt: skip
    add("--out", metavar="DIR", help="folder for the fits of a table")
    common.add_json(parser)
    common.add_table_options(parser)
    common.add_fit_options(parser)


@dataclass
class Told:
    """What is told of one fit or stack: who it is, what it predicts, and how that fared.

    named: study and law. cells: scores of what was held out, if anything was. sensitivity: of
    the mean curve to the prior. complaint: why a fit is not to be relied on. alarms: why its law is
    not.
    """

    named: dict[str, str]
    prediction: "xr.Dataset"
    cells: "pd.DataFrame | None"
    sensitivity: "pd.DataFrame"
    complaint: str
    alarms: list[str]


def run(args: argparse.Namespace) -> int:
    """Print scores of what was held out, predictions and, if asked, what reaches the threshold."""
    import pandas as pd

    from bayesicl.decide import reach, shots_to, useful_shots
    from bayesicl.forecast import bands
    from bayesicl.score import score

    if args.threshold is not None and not 0 < args.threshold < 1:
        raise InputError(f"--threshold must lie between 0 and 1, got {args.threshold:g}")
    if args.gain is not None and not 0 < args.gain < 1:
        raise InputError(f"--gain must lie between 0 and 1, got {args.gain:g}")
    if args.gain is not None and max(args.shots) < 2:
        raise InputError("--gain is of doubling shots: name some beyond 2 with --shots")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("cells", *HEADINGS)}
    complaints: list[str] = []
    failures: list[str] = []
    alarms: list[dict[str, str]] = []

    def add(name: str, told: Told, table: pd.DataFrame) -> None:
        for i, (column, value) in enumerate(told.named.items()):
            table.insert(i, column, value)
        parts[name].append(table)

    for told in _told(args, failures, parts["weights"]):
        complaints.append(told.complaint)
        alarms += [told.named | {"alarm": alarm} for alarm in told.alarms]
        if told.cells is not None:
            parts["cells"].append(told.cells)
        asked = told.prediction.sel(shots=args.shots)
        words = json.loads(told.prediction.attrs["bands"])
        table = bands(asked).merge(told.sensitivity, on=["hypothesis", "shots"])
        add("curves", told, table.assign(band=table["band"].map(words)))
        if args.threshold is not None:
            table = reach(told.prediction, args.threshold).assign(threshold=args.threshold)
            table = table[table["shots"].isin(args.shots)].reset_index(drop=True)
            if not args.json:  # so many draws cannot show less, nor certainty
                table["probability"] = table["probability"].map(_hedged)
            add("reached", told, table)
            add("shots_to", told, shots_to(told.prediction, args.threshold))
        if args.gain is not None:
            add("useful", told, useful_shots(told.prediction, gain=args.gain))
    tables = {name: pd.concat(part, ignore_index=True) for name, part in parts.items() if part}
    if "cells" in tables:
        tables["scores"] = score(tables["cells"])
    if alarms:
        tables["alarms"] = pd.DataFrame(alarms)
    if args.json:
        print(json.dumps({name: common.records(table) for name, table in tables.items()}))
    else:
        for name, heading in HEADINGS.items():
            if name in tables:
                print(heading)
                common.show(tables[name])
                print()
        for row in alarms:
            print(f"{row['study']}, {row['law']}: {row['alarm']}.")
        for line in _cautions(tables["scores"]) if "scores" in tables else ():
            print(line)
    return common.finish(complaints, failures)


def _told(
    args: argparse.Namespace, failures: list[str], weights: "list[pd.DataFrame]"
) -> "Iterator[Told]":
    """One fit after the other, or one stack; `weights` takes those of the stacks' laws."""
    import numpy as np
    import pandas as pd

    from bayesicl.forecast import curve_shots, predict
    from bayesicl.score import held_out, score_cells, scored
    from bayesicl.sensitivity import sensitivity
    from bayesicl.stack import mix, mix_predictions
    from bayesicl.tree import label, law_label

    grid = sorted({*args.shots, *curve_shots(max(args.shots))})  # of paths, to see them cross
    if STACK in args.law and len(args.law) > 1:
        raise InputError(f"--law {STACK} stands alone: it has laws of its own")
    if args.law == [STACK] and (args.noise is not None or args.backgrounds != 1):
        raise InputError(
            f"--law {STACK} has its own noise and one background: leave out --noise and "
            "--backgrounds"
        )
    asked_of = lambda found: [one.sel(shots=args.shots) for one in found]  # noqa: E731
    if args.law == [STACK]:
        for stack in stacks(_table(args), args, failures):
            table = {"study": stack.study, "law": stack.laws, "weight": stack.weights}
            weights.append(pd.DataFrame(table))
            cells = None
            if not stack.trees[0]["study"]["fitted"].all():
                parts = [held_out(tree, seed=args.seed) for tree in stack.trees]
                whole = mix(parts, stack.weights, seed=args.seed)
                cells = scored(whole, STACK, np.random.default_rng(args.seed))
            predictions = [predict(tree, grid, seed=args.seed) for tree in stack.trees]
            complaints = filter(None, map(common.complaint, stack.trees))
            yield Told(
                {"study": stack.study, "law": STACK},
                mix_predictions(predictions, stack.weights, seed=args.seed),
                cells,
                sensitivity(stack.trees, asked_of(predictions), stack.weights),
                "; ".join(complaints),
                [*filter(None, [stack.alarm]), *_odd(stack.trees)],
            )
        return
    for tree in _fits(args, failures):
        # Beside saved fits --law tells where a law is; a table's fits know it.
        law = args.law[0] if args.law != ["paper"] and args.out is None else None
        cells = None
        if not tree["study"]["fitted"].all():
            cells = score_cells(tree, law=law, seed=args.seed)
        prediction = predict(tree, grid, law=law, seed=args.seed)
        named = {"study": label(tree), "law": law_label(tree)}
        moved = sensitivity([tree], asked_of([prediction]), law=law)
        yield Told(named, prediction, cells, moved, common.complaint(tree), _odd([tree]))


def _odd(trees: "Sequence[xr.DataTree]") -> list[str]:
    """What is odd about the data of fits, so that no band beyond them can be trusted; once each."""
    found: dict[str, None] = {}
    for tree in trees:
        falls = [w for w in json.loads(tree.attrs["warnings"]) if "cannot fall" in w]
        found |= dict.fromkeys(f"ALARM: {fall}" for fall in falls)
    return list(found)


def _cautions(scores: "pd.DataFrame") -> list[str]:
    """What a bad hold-out means for the predictions, in words: one line a law."""
    from scipy.stats import binom

    lines = []
    for row in scores.to_dict("records"):
        share, n = row["coverage 90%"], row["cells"]
        inside = round(share * n)
        said = f"{row['law']}: its 90 % intervals held {inside} of {n} held-out cells"
        if row["verdict 90%"] == "not reached":
            wide = "its bands are wider than they need be"
            end = "trust neither its bands nor its probabilities beyond the fit"
            lines.append(f"{said}: {end if share < 0.9 else wide}.")
        elif binom.cdf(inside, n, 0.9) < UNLIKELY:
            lines.append(
                f"{said}: too few curves to blame the law, too many misses to lean on its bands "
                "beyond the fit."
            )
    return lines


def _hedged(probability: float) -> str:
    if 0.001 <= probability <= 0.999:
        return f"{probability:.3f}"
    return "<0.001" if probability < 0.5 else ">0.999"


HEADINGS = {
    "weights": "Weights of the laws, by how each predicted the fitted cells that it had not seen",
    "scores": "Held-out cells: coverage of the intervals, and errors in probability",
    "curves": "Predictions: medians and intervals, by what each band is of (where within is False, "
    "nothing was fitted); how far prior and likelihood move the mean curve",
    "reached": "Probability that the mean curve has reached the threshold",
    "shots_to": "Shots to the threshold, n*: quantiles, and how probable it is that it lies beyond",
    "useful": "The largest useful number of demonstrations: from there on doubling gains less",
}


def _fits(args: argparse.Namespace, failures: list[str]) -> "Iterable[xr.DataTree]":
    """Saved fits, or the table's once they are made; `failures` takes why some are not."""
    from bayesicl.files import load
    from bayesicl.store import load_each

    first = Path(args.source[0])
    if _holds_fits(args.source[0]):
        parser = common.Parser()
        common.add_table_options(parser)
        common.add_fit_options(parser)
        for option, default in {**vars(parser.parse_args([])), "out": None}.items():
            if getattr(args, option) != default and option not in ("law", "seed"):
                flag = "--" + option.replace("_", "-")
                raise InputError(f"{flag} is for a table, and {first} holds fits; leave it out")
        if args.law != ["paper"] and not args.law[0].endswith(".py"):
            raise InputError(
                f"--law {args.law[0]}: beside fits it says where your own law's file is; name the "
                "fits that you want instead"
            )
        return load_each(args.source)
    rows = fit_table(_table(args), args)
    failures.extend(row.failure for row in rows)
    return (load(row.path) for row in rows if not row.failure)


def _table(args: argparse.Namespace) -> "Curves":
    """The table that is to be fitted, once all that it takes is there."""
    first = args.source[0]
    if len(args.source) > 1:
        raise InputError(f"give saved fits or one table, got {' '.join(args.source)}")
    if _holds_fits(first):
        raise InputError(f"--law {STACK} fits a table, and {first} holds fits; give the table")
    curves = common.read_table(args, first)
    if args.fit_shots is None and args.fit_points is None and args.law != [STACK]:
        raise InputError(
            f"{first} is a table: say how much of each curve to fit, such as --fit-shots 25%"
        )
    if args.out is None:
        raise InputError(f"{first} is a table: say where its fits go with --out DIR")
    if args.keep_draws == 0:
        raise InputError("--keep-draws none: predictions need draws; leave it out")
    return curves


def _holds_fits(source: str) -> bool:
    return Path(source).is_dir() or Path(source).suffix in (".nc", ".zarr")
