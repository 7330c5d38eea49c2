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
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common, tables
from bayesicl.cli.chosen import chosen_laws, learned_noise
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from bayesicl.curves import Curves
    from bayesicl.execute import Job
    from bayesicl.law import Law
    from bayesicl.plan import Task
    from bayesicl.settings import Settings

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
    rows = fit_table(common.read_table(args, args.table), args)
    made = [row for row in rows if not row.failure]
    shown = made if args.json or len(made) <= MANY else [row for row in made if row.complaint]
    if shown or args.json:
        common.show(pd.DataFrame([row.gates for row in shown]), as_json=args.json)
    if made:
        path = tables.write_table(_parameters(made), Path(args.out, f"summary.{args.summary}"))
        if not args.json:
            print(f"\n{len(made)} fits in {args.out}; their parameters in {path}")
    return common.finish((row.complaint for row in made), (row.failure for row in rows))


@dataclass(frozen=True)
class Row:
    """What is kept of a fit while others are made. number: of its task. path: where it was saved.

    gates: how it went, in one row. complaint: why it is not to be relied on. failure: why there is
    none. remarks: what is odd about its data. Each is "" where all is well.
    """

    number: int
    path: Path
    gates: dict[str, Any]
    complaint: str = ""
    failure: str = ""
    remarks: str = ""


def _parameters(rows: Sequence[Row]) -> "Iterator[pd.DataFrame]":
    """The summaries of fits, read one at a time."""
    from bayesicl.files import read_summary

    for row in rows:
        table, head = read_summary(row.path), {k: row.gates[k] for k in ("study", "law")}
        names = [*head, *table.columns, "passed"]
        whole = table.assign(**head, passed=row.gates["passed"]).loc[:, names]
        yield whole.assign(missed_cells=row.gates["missed_cells"], warnings=row.remarks)


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


def fit_and_save(
    curves: "Curves",
    laws: "Sequence[Law]",
    out: str | Path,
    *,
    settings: "Settings",
    noise: str | None = None,
    backgrounds: int = 1,
    seed: int = 0,
    device: str = "cpu",
    ending: str = "nc",
    keep: int | None = None,
    executor: str = "auto",
    remark: bool = True,
) -> list[Row]:
    """Fit every study under every law into a folder, but for what is finished there.

    Whatever can be wrong with the input is found before the folder is touched; a fit under
    another noise or prior is not replaced. remark: say what fits find odd about their data.
    """
    from tqdm import tqdm

    from bayesicl.device import precision
    from bayesicl.execute import Job, executor_of
    from bayesicl.files import check_ending
    from bayesicl.fit import attributes
    from bayesicl.plan import plan
    from bayesicl.store import Store

    tasks = plan(curves, laws, noise=noise, backgrounds=backgrounds)
    spread = executor_of(executor, len(tasks), device)
    check_ending(ending)
    with precision(device):
        pass
    store = Store(Path(out).resolve(), ending, keep)
    for task in tasks:
        store.spare(task.study, task.law, task.noise)
    common.writable_folder(out)
    store.prepare()
    rows: dict[int, Row] = {}
    kept = 0

    def jobs() -> "Iterator[Job]":
        nonlocal kept
        for number, task in enumerate(tasks):
            path = store.place(task.study, task.law.name)
            try:
                found = store.finished(path, attributes(task, settings, seed, device))
            except InputError as error:
                found = None
                common.say(f"fitting again: {error}")
            if found is None:
                yield Job(number, task, settings, seed, device, store, path)
            else:
                kept += 1
                rows[number] = _made(number, path, task, found)
                told(rows[number], "kept from before")

    def told(row: Row, how: str) -> None:
        bar.update()
        if bar.disable and not row.failure:  # no terminal
            passed = "passed" if row.gates["passed"] else "NOT CONVERGED"
            common.say(f"{row.gates['study']}, {row.gates['law']}: {passed} ({how})")

    with tqdm(
        total=len(tasks), file=sys.stderr, disable=None, dynamic_ncols=True,
        bar_format="{bar:20} {n_fmt}/{total_fmt} {elapsed} {desc}",
    ) as bar:  # fmt: skip
        for outcome in spread(jobs(), bar.set_description_str):
            number, task = outcome.number, tasks[outcome.number]
            path = store.place(task.study, task.law.name)
            if outcome.bad_input:
                raise InputError(outcome.failure)
            if outcome.attrs is None:
                what = f"failed: {task.study.label}, {task.law.name}: {outcome.failure}"
                rows[number] = Row(number, path, {}, failure=what)
            else:
                if remark:
                    warn(outcome.attrs)
                rows[number] = _made(number, path, task, outcome.attrs)
            told(rows[number], f"{outcome.seconds:.1f} s")
    if kept:
        common.say(f"{kept} of {len(tasks)} fits were finished before and are kept")
    odd = sum(bool(row.remarks) for row in rows.values())
    if remark and odd and len(tasks) > 1:
        common.say(f"{odd} of {len(tasks)} fits have warnings: see that column of the summary")
    return [rows[number] for number in sorted(rows)]


def _made(number: int, path: Path, task: "Task", attrs: Mapping[str, Any]) -> Row:
    gates = gate_row(task.study.label, attrs)
    remarks = "; ".join(json.loads(attrs["warnings"]))
    return Row(number, path, gates, common.unreliable(task.study.label, attrs), remarks=remarks)


def warn(attrs: Mapping[str, Any]) -> None:
    """Warn of what a fit found odd about its data."""
    import warnings

    from bayesicl.errors import CurveWarning

    for remark in json.loads(attrs["warnings"]):
        warnings.warn(remark, CurveWarning, stacklevel=2)


def gate_row(study: str, attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """How the fit of a study went, in one row."""
    from bayesicl.tree import same_laws

    checks = json.loads(attrs["diagnostics"])
    return {
        "study": study,
        "law": same_laws(attrs),
        "passed": bool(attrs["passed"]),
        "worst_rhat": checks["rhat"],
        "ess_bulk": checks["ess_bulk"],
        "ess_tail": checks["ess_tail"],
        "divergences": checks["divergences"],
        "missed_cells": int(attrs["missed_cells"]),
        "warnings": len(json.loads(attrs["warnings"])),
        "fitted": float(attrs["fitted"]),
    }
