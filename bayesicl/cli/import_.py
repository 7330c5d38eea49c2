"""Turn what other tools logged into a table of curves.

FORMAT is lm-eval (result folders of lm-evaluation-harness), inspect (logs of Inspect, .eval or
.json) or authors (the CSV files of Arora et al.'s code). Runs at several numbers of shots are
joined on model, task and document. What was left out, and why, is said.

Example:
  bayesicl import lm-eval out --metric acc --out table.csv
  bayesicl import inspect logs --shots-key fewshot --out table.csv
  bayesicl import authors real-lms/gemma___creak___means.csv --prompts 50 --out table.csv
  bayesicl fit table.csv --out fits --outcome counts
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.cli import common, tables
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = {
    "lm-eval": "result folders (--output_path) of lm-evaluation-harness",
    "inspect": "logs of Inspect, .eval or .json, or folders of them",
    "authors": "CSV files of Arora et al.'s llm.py or train.py",
}


def add_options(parser: common.Parser) -> None:
    """FORMAT PATH..., --out and what each format needs to be told."""
    formats = parser.add_subparsers(metavar="FORMAT", dest="format", required=True)
    for name, what in FORMATS.items():
        command = formats.add_parser(name, help=what, description=f"Import {what}.")
        add = command.add_argument
        add("paths", nargs="+", metavar="PATH", help=what)
        add("--out", required=True, metavar="FILE", help="the table: .csv or .parquet")
        if name == "authors":
            add(
                "--prompts", type=int, metavar="N",
                help="prompts behind each row, which the files do not say",
            )  # fmt: skip
            continue
        add(
            "--metric", nargs="+", default=[], metavar="M",
            help="what to read, where there are several; of each task the first that it has",
        )  # fmt: skip
        add("--task", nargs="+", default=[], metavar="T", help="read these tasks only")
        if name == "inspect":
            add(
                "--shots-key", metavar="NAME",
                help="the task argument, solver parameter or metadata that is the number of "
                "demonstrations (default: a usual name, such as fewshot)",
            )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Read, write in one step, and say what the table holds."""
    out = Path(args.out)
    if out.suffix not in (".csv", ".parquet") or out.is_dir():
        raise InputError(f"--out {out}: name a file that ends in .csv or .parquet")
    tables.check_ending(out.suffix[1:])
    table = _read(args)
    tables.write_table(table, out)
    common.show(_curves(table))
    outcomes = [name for name in ("counts", "prob", "nll") if _OUTCOMES[name] in table]
    either = f" --outcome {'|'.join(outcomes)}" if len(outcomes) > 1 else ""
    if args.format != "authors" and _unrepeated(table):
        print(
            "\nmostly the same documents are behind every number of shots, and noise takes cells "
            "as independent: intervals of a curve's height are too narrow for other documents, "
            "those of its rise, if anything, too wide"
        )
    print(f"\n{len(table)} rows in {out}; next: bayesicl fit {out} --out fits{either}")
    return 0


_OUTCOMES = {"counts": "correct", "prob": "prob", "nll": "nll"}


def _read(args: argparse.Namespace) -> "pd.DataFrame":
    from bayesicl.importers import authors, inspect_logs, lm_eval, runs

    if args.format == "authors":
        return authors.read(args.paths, args.prompts)
    if args.format == "inspect":
        logged = inspect_logs.read(args.paths, args.metric, args.task, args.shots_key)
    else:
        logged = lm_eval.read(args.paths, args.metric, args.task)
    return runs.join(logged)


def _unrepeated(table: "pd.DataFrame") -> bool:
    """Whether some curve has one run at each number of shots: rows of a document, or one row."""
    cell = ["model", "task", "shots"]
    again = table["total"].gt(1) & table.duplicated(cell)
    return not again.groupby([table["model"], table["task"]]).any().all()


def _curves(table: "pd.DataFrame") -> "pd.DataFrame":
    """What the table holds, a row a study."""
    keys = [key for key in ("model", "variant", "task") if key in table]
    return (
        table.groupby(keys, sort=False)
        .agg(
            shots=("shots", lambda shots: ",".join(map(str, sorted(set(shots))[:12]))),
            rows=("shots", "size"),
        )
        .reset_index()
    )
