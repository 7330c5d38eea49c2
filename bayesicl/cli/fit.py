"""Fit laws to every study of a table.

Each study and law becomes one file in DIR as soon as it is finished, and summary.csv holds all
parameters in the end. The same command run again keeps the fits that it finds finished.

Example:
  bayesicl fit curves.csv --out fits --law scoring power --outcome nll --where "shots <= 64"
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from bayesicl.curves import Curves
    from bayesicl.engine import Settings
    from bayesicl.law import Law
    from bayesicl.study import Study


def add_options(parser: common.Parser) -> None:
    """TABLE, --out and how to read and fit it."""
    parser.add_argument("table", metavar="TABLE", help="CSV, TSV, JSON lines or Parquet")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the fits")
    common.add_json(parser)
    common.add_table_options(parser)
    common.add_fit_options(parser)


def run(args: argparse.Namespace) -> int:
    """Fit, save and tabulate."""
    import pandas as pd

    from bayesicl.summary import summarise

    gates, parameters, complaints = [], [], []
    for tree in fit_table(common.read_table(args, args.table), args):
        gates.append(gate_row(tree))
        table = common.named(tree, summarise(tree).table)
        parameters.append(table.assign(passed=bool(tree.attrs["passed"])))
        complaints.append(common.complaint(tree))
    path = common.write_csv(pd.concat(parameters, ignore_index=True), Path(args.out, "summary.csv"))
    common.show(pd.DataFrame(gates), as_json=args.json)
    if not args.json:
        print(f"\n{len(gates)} fits in {args.out}; all parameters in {path}")
    return common.finish(complaints)


def fit_table(curves: "Curves", args: argparse.Namespace) -> "Iterator[xr.DataTree]":
    """Fit as the options ask; saved before they are yielded, one at a time."""
    from bayesicl.engine import Settings

    settings = Settings(chains=args.chains, warmup=args.warmup, draws=args.draws)
    return fit_and_save(
        curves, chosen_laws(args.law), args.out, settings=settings, noise=args.noise,
        backgrounds=args.backgrounds, seed=args.seed, device=args.device, ending=args.format,
    )  # fmt: skip


def chosen_laws(names: Sequence[str]) -> "list[Law]":
    """The laws of these names and files, each once; "all" stands for those of bayesicl."""
    from bayesicl.law import LAWS, load_law

    names = [law for name in names for law in (LAWS if name == "all" else [name])]
    laws = {name: load_law(name) for name in names}
    paths: dict[str, str] = {}
    for name, law in laws.items():
        if paths.setdefault(law.name, str(law.path)) != str(law.path):
            raise InputError(
                f"law file {name}: the law of {paths[law.name]} has the same name, {law.name!r}; "
                "rename one of them, or fit them into two folders"
            )
    return list({law.name: law for law in laws.values()}.values())


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
) -> "Iterator[xr.DataTree]":
    """Fit every study under every law into a folder, but for what is finished there.

    Whatever can be wrong with the input is found before the folder is touched.
    """
    from tqdm import tqdm

    from bayesicl.device import precision
    from bayesicl.fit import fits
    from bayesicl.plan import plan
    from bayesicl.tree import file_name, label, law_label, save, study_of

    tasks = plan(curves, laws, noise=noise, backgrounds=backgrounds)
    with precision(device):
        pass
    folder = common.writable_folder(out)
    kept: set[Path] = set()

    def place(study: "Study", law: str) -> Path:
        return folder / f"{file_name(study, law)}.{ending}"

    def done(attrs: dict[str, Any], study: "Study") -> "xr.DataTree | None":
        path = place(study, attrs["law"])
        tree = same_fit(path, attrs)
        if tree is not None:
            kept.add(path)
        return tree

    with tqdm(
        total=len(tasks), file=sys.stderr, disable=None, dynamic_ncols=True,
        bar_format="{bar:20} {elapsed} {desc}",
    ) as bar:  # fmt: skip
        start = time.monotonic()
        progress = bar.set_description_str
        for tree in fits(
            tasks, settings=settings, seed=seed, device=device, progress=progress, done=done
        ):
            path = place(study_of(tree), tree.attrs["law"])
            if path not in kept:
                save(tree, path)
            bar.update()
            if bar.disable:  # no terminal
                passed = "passed" if tree.attrs["passed"] else "NOT CONVERGED"
                how = "kept from before" if path in kept else f"{time.monotonic() - start:.1f} s"
                common.say(f"{label(tree)}, {law_label(tree)}: {passed} ({how})")
            yield tree
            start = time.monotonic()
    if kept:
        common.say(f"{len(kept)} of {len(tasks)} fits were finished before and are kept")


def same_fit(path: Path, attrs: dict[str, Any]) -> "xr.DataTree | None":
    """The fit in this file, if there is one, it can be read, and it is of the same content."""
    from bayesicl.tree import content_key, load

    if not path.exists():
        return None
    try:
        tree = load(path)
    except InputError as error:
        common.say(f"fitting again: {error}")
        return None
    if content_key({str(name): value for name, value in tree.attrs.items()}) != content_key(attrs):
        common.say(f"fitting again, with other data or settings than before: {path}")
        return None
    return tree


def gate_row(tree: "xr.DataTree") -> dict[str, Any]:
    """How a fit went, in one row."""
    from bayesicl.summary import missed
    from bayesicl.tree import label, law_label, study_of

    checks = json.loads(tree.attrs["diagnostics"])
    return {
        "study": label(tree),
        "law": law_label(tree),
        "passed": bool(tree.attrs["passed"]),
        "worst_rhat": checks["rhat"],
        "ess_bulk": checks["ess_bulk"],
        "ess_tail": checks["ess_tail"],
        "divergences": checks["divergences"],
        "missed_cells": len(missed(tree)),
        "fitted": study_of(tree).fraction,
    }
