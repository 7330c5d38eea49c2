"""Fit laws to every study of a table.

Each study and law is written to DIR as soon as it is finished, and summary.csv (or .parquet) holds
all parameters of the command's fits in the end. The same command run again keeps the fits that it
finds finished, however it ended. A fit that breaks down is named, and costs no other: exit code 4.

On a cluster: start `dask scheduler` and `dask worker ADDRESS --nthreads 1`, and keep DIR, and a law
of your own, where all workers see them. Draws are the same for every executor.

Example:
  bayesicl fit curves.csv --out fits --law scoring power --outcome nll --where "shots <= 64"
  bayesicl fit curves.csv --out fits --executor processes=8 --keep-draws 250 --summary parquet
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.cli import common, tables
from bayesicl.cli.batch import Row, fit_and_save
from bayesicl.cli.chosen import chosen_laws, learned_noise

if TYPE_CHECKING:
    import pandas as pd

    from bayesicl.curves import Curves

MANY = 200  # fits: of more, only those that did not pass are shown


def add_options(parser: common.Parser) -> None:
    """TABLE, --out and how to read and fit it."""
    parser.add_argument("table", metavar="TABLE", help="CSV, TSV, JSON lines or Parquet")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the fits")
    common.add_json(parser)
    common.add_table_options(parser)
    common.add_fit_options(parser)
    parser.add_argument(
        "--summary", choices=("csv", "parquet"), default="csv",
        help="of all parameters, DIR/summary.csv (default) or .parquet",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Fit, save and tabulate."""
    import pandas as pd

    tables.check_ending(args.summary)
    curves = common.read_table(args, args.table)
    tell_share(args.fit_shots, curves)
    rows = fit_table(curves, args)
    made = [row for row in rows if not row.failure]
    shown = made if args.json or len(made) <= MANY else [row for row in made if row.complaint]
    if shown or args.json:
        common.show(pd.DataFrame([row.gates for row in shown]), as_json=args.json)
    if made:
        path = tables.write_table(_parameters(made), Path(args.out, f"summary.{args.summary}"))
        if not args.json:
            print(f"\n{len(made)} fits in {args.out}; their parameters in {path}")
    return common.finish((row.complaint for row in made), (row.failure for row in rows))


def _parameters(rows: Sequence[Row]) -> "Iterator[pd.DataFrame]":
    """The summaries of fits, read one at a time."""
    from bayesicl.files import read_summary

    for row in rows:
        table, head = read_summary(row.path), {k: row.gates[k] for k in ("study", "law")}
        names = [*head, *table.columns, "passed"]
        whole = table.assign(**head, passed=row.gates["passed"]).loc[:, names]
        yield whole.assign(missed_cells=row.gates["missed_cells"], warnings=row.remarks)


def tell_share(asked: str | None, curves: "Curves") -> None:
    """Say where another share of the shots is fitted than --fit-shots asks for."""
    from bayesicl.study import FIRST_CELLS

    if asked is None or not asked.strip().endswith("%"):
        return
    percent = float(asked.strip().removesuffix("%"))
    used = [100 * study.fraction for study in curves]
    if off := [share for share in used if abs(share - percent) >= 0.5]:
        span = dict.fromkeys(f"{share:.0f}" for share in (min(off), max(off)))
        common.say(
            f"--fit-shots {asked}: of {len(off)} of {len(used)} studies {' to '.join(span)} % of "
            f"the longest shots are fitted, for there are whole cells alone, and at least the "
            f"first {FIRST_CELLS} are taken; `fitted` tells the share of each"
        )


def fit_table(curves: "Curves", args: argparse.Namespace) -> list[Row]:
    """Fit and save as the options ask, in the order of studies and laws."""
    from bayesicl.settings import Settings

    settings = Settings(chains=args.chains, warmup=args.warmup, draws=args.draws)
    laws, noise = chosen_laws(args.law, curves.scale, args.prior), args.noise
    if args.prior is not None:
        noise = learned_noise(curves, noise or "misfit", args.prior)
    return fit_and_save(
        curves, laws, args.out, settings=settings, noise=noise,
        backgrounds=args.backgrounds, seed=args.seed, device=args.device, ending=args.format,
        keep=args.keep_draws, executor=args.executor,
    )  # fmt: skip
