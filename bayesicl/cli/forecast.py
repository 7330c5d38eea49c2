"""Predict curves at any number of shots, and score predictions of what was held out.

From saved fits, or from a table: then the first part of each curve is fitted (--fit-shots or
--fit-points), saved in DIR, and the rest is scored. Fits with held-out cells are always scored.
Each band says what it is of: the mean curve is not a new measurement.

Example:
  bayesicl forecast fits --shots 0,10,100,1000 --threshold 0.9
  bayesicl forecast curves.csv --fit-shots 25% --law scoring power --out held-out
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.cli.fit import fit_table
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

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
    add("--out", metavar="DIR", help="folder for the fits of a table")
    common.add_json(parser)
    common.add_table_options(parser)
    common.add_fit_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print scores of what was held out, predictions and, if asked, what reaches the threshold."""
    import pandas as pd

    from bayesicl.forecast import bands, predict, reach
    from bayesicl.score import score, score_cells

    if args.threshold is not None and not 0 < args.threshold < 1:
        raise InputError(f"--threshold must lie between 0 and 1, got {args.threshold:g}")
    parts: dict[str, list[pd.DataFrame]] = {"cells": [], "curves": [], "reached": []}
    complaints: list[str] = []
    failures: list[str] = []
    for tree in _fits(args, failures):
        complaints.append(common.complaint(tree))
        # Beside saved fits --law tells where a law is; a table's fits know it.
        law = args.law[0] if args.law != ["paper"] and args.out is None else None
        if not tree["study"]["fitted"].all():
            parts["cells"].append(score_cells(tree, law=law, seed=args.seed))
        prediction = predict(tree, args.shots, law=law, seed=args.seed)
        words = json.loads(prediction.attrs["bands"])
        table = bands(prediction)
        parts["curves"].append(common.named(tree, table.assign(band=table["band"].map(words))))
        if args.threshold is not None:
            table = reach(prediction, args.threshold).assign(threshold=args.threshold)
            if not args.json:  # so many draws cannot show less, nor certainty
                table["probability"] = table["probability"].map(_hedged)
            parts["reached"].append(common.named(tree, table))
    tables = {name: pd.concat(part, ignore_index=True) for name, part in parts.items() if part}
    if "cells" in tables:
        tables["scores"] = score(tables["cells"])
    if args.json:
        print(json.dumps({name: common.records(table) for name, table in tables.items()}))
    else:
        for name, heading in HEADINGS.items():
            if name in tables:
                print(heading)
                common.show(tables[name])
                print()
        for line in _cautions(tables["scores"]) if "scores" in tables else ():
            print(line)
    return common.finish(complaints, failures)


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
    "scores": "Held-out cells: coverage of the intervals, and errors in probability",
    "curves": "Predictions: medians and intervals, by what each band is of (where within is False, "
    "by the law alone: nothing was fitted there)",
    "reached": "Probability that the mean curve has reached the threshold",
}


def _fits(args: argparse.Namespace, failures: list[str]) -> "Iterable[xr.DataTree]":
    """Saved fits, or the table's once they are made; `failures` takes why some are not."""
    from bayesicl.files import load
    from bayesicl.store import load_each

    first = Path(args.source[0])
    if first.is_dir() or first.suffix in (".nc", ".zarr"):
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
    if len(args.source) > 1:
        raise InputError(f"give saved fits or one table, got {' '.join(args.source)}")
    curves = common.read_table(args, args.source[0])
    if args.fit_shots is None and args.fit_points is None:
        raise InputError(
            f"{first} is a table: say how much of each curve to fit, such as --fit-shots 25%"
        )
    if args.out is None:
        raise InputError(f"{first} is a table: say where its fits go with --out DIR")
    if args.keep_draws == 0:
        raise InputError("--keep-draws none: predictions need draws; leave it out")
    rows = fit_table(curves, args)
    failures.extend(row.failure for row in rows)
    return (load(row.path) for row in rows if not row.failure)
