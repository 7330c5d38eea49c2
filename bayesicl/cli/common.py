"""What commands share: options, reading tables and fits, printing tables, speaking of failures."""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesicl.curves import Curves

Parser = argparse.ArgumentParser


def say(text: str) -> None:
    """One line on stderr, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"bayesicl: {' '.join(text.splitlines())}", file=sys.stderr)


# -- options --------------------------------------------------------------------------------------


def add_fits(parser: Parser) -> None:
    """FIT..., of the commands that use saved fits."""
    parser.add_argument("fits", nargs="+", metavar="FIT", help="saved fits, or folders of them")


def add_moved_law(parser: Parser) -> None:
    """--law, of the commands that compute with saved fits."""
    parser.add_argument("--law", metavar="PATH", help="where your own law's file is, if it moved")


def add_json(parser: Parser) -> None:
    """--json, of the commands that print tables."""
    parser.add_argument("--json", action="store_true", help="print JSON records and nothing else")


def add_level(parser: Parser) -> None:
    """--level of intervals."""
    parser.add_argument(
        "--level", type=_share, default=0.9, metavar="L", help="of the intervals (default .9)"
    )


def add_table_options(parser: Parser) -> None:
    """How to read a table and what of it to fit."""
    group = parser.add_argument_group("reading the table")
    add = group.add_argument
    add("--outcome", metavar="O", help="which outcome: counts, prob, nll, nll_of_mean or mean_nll")
    add_column(group, "shots=n_demos")
    add(
        "--where", action="append", metavar="QUERY",
        help="a pandas query; only its rows are read (repeat for more: all must hold)",
    )  # fmt: skip
    add(
        "--by", nargs="+", default=["model", "variant", "task"], metavar="COL",
        help="columns whose values make a study (default: model variant task); with hypothesis "
        "among them each curve is one",
    )  # fmt: skip
    add("--items", choices=("shared", "fresh"), help="whether replicates share their test items")
    add(
        "--fit-shots", metavar="N|X%",
        help="fit shots up to N, or X%% of a curve's longest and at least its first 5 cells",
    )  # fmt: skip
    add("--fit-points", type=int, metavar="N", help="fit the first N cells of each curve")


def add_column(group: argparse._ArgumentGroup, example: str) -> None:
    """--column, of the commands that read users' files."""
    group.add_argument(
        "--column", type=_renamed, action="append", default=[], metavar="CANONICAL=NAME",
        help=f"read the column NAME as CANONICAL, such as {example} (repeat for more)",
    )  # fmt: skip


def add_fit_options(parser: Parser) -> None:
    """Which laws, how to sample, where to write."""
    group = parser.add_argument_group("fitting")
    add = group.add_argument
    add(
        "--law", nargs="+", metavar="NAME|PATH",
        help="names or files of laws, paper for the six of Arora et al., or all that are of the "
        "outcome; see bayesicl laws (default: paper; of forecast, a stack)",
    )  # fmt: skip
    add("--noise", metavar="NAME", help="how measurements scatter (default: by outcome)")
    add(
        "--prior", metavar="NAME|FILE",
        help="a learned prior of laws, noise and misfit: population, which comes with bayesicl, or "
        "a file of bayesicl learn; then --law defaults to what it knows, and --noise to misfit",
    )  # fmt: skip
    add("--backgrounds", type=int, default=1, metavar="B", help="unobserved hypotheses (default 1)")
    add_sampling_options(group)
    add(
        "--executor", default="auto", metavar="E",
        help="who fits: here (one study after the other), processes[=N], dask[=ADDRESS] (a "
        "scheduler's), or auto (default: processes where there are many fits); all draw the same",
    )  # fmt: skip
    group = parser.add_argument_group("writing fits")
    add = group.add_argument
    add(
        "--format", choices=("nc", "zarr"), default="nc",
        help="nc: a netCDF file a fit (default); zarr: all in one hierarchy, DIR/fits.zarr",
    )  # fmt: skip
    add(
        "--keep-draws", type=_draws_kept, default="all", metavar="N",
        help="draws a chain that a fit keeps: all (default), none, or a number, evenly spaced; "
        "diagnostics and summaries are always of all draws",
    )  # fmt: skip


def add_sampling_options(group: argparse._ArgumentGroup) -> None:
    """How to sample, and where."""
    add = group.add_argument
    add("--chains", type=int, default=4, metavar="N", help="(default 4)")
    add("--warmup", type=int, default=500, metavar="N", help="steps a chain (default 500)")
    add("--draws", type=int, default=1000, metavar="N", help="draws a chain (default 1000)")
    add("--seed", type=seed, default=0, metavar="N", help="of everything random (default 0)")
    add("--device", choices=("cpu", "gpu"), default="cpu", help="(default cpu)")


def shot_list(text: str) -> list[int]:
    """Read "0,10,100"."""
    from bayesicl.checks import MAX_SHOTS

    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"must be whole numbers like 0,10,100, got {text!r}")
    shots = sorted({int(n) for n in text.split(",")})
    if shots[-1] > MAX_SHOTS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_SHOTS}, got {shots[-1]}")
    return shots


def _renamed(text: str) -> tuple[str, str]:
    canonical, _, name = text.partition("=")
    if not (canonical and name):
        raise argparse.ArgumentTypeError(f"must be CANONICAL=NAME like shots=n_demos, got {text!r}")
    return canonical, name


def _draws_kept(text: str) -> int | None:
    if text == "all":
        return None
    if text == "none":
        return 0
    if not text.isdecimal() or int(text) < 4:
        raise argparse.ArgumentTypeError(f"must be all, none, or at least 4, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Read a seed, 0 to 2^32 - 1."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^32 - 1, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text!r}")
    return value


# -- reading --------------------------------------------------------------------------------------


def read_table(args: argparse.Namespace, table: str, by: Sequence[str] | None = None) -> "Curves":
    """The curves of a table, with cells held out as the options ask; by: instead of --by."""
    from bayesicl.curves import read_curves

    wheres = args.where or []
    where = " and ".join(f"({q})" for q in wheres) if len(wheres) > 1 else "".join(wheres)
    curves = read_curves(
        table, outcome=args.outcome, columns=dict(args.column), where=where or None,
        by=by or args.by, items=args.items,
    )  # fmt: skip
    if args.fit_shots is None and args.fit_points is None:
        return curves
    return curves.hold_out(fit_shots=args.fit_shots, fit_points=args.fit_points)


def load_fits(paths: Iterable[str]) -> "list[xr.DataTree]":
    """All fits named and in the folders named, with their draws."""
    from bayesicl.store import load_all

    return load_all(paths)


# -- printing -------------------------------------------------------------------------------------


def show(frame: "pd.DataFrame", *, as_json: bool = False) -> None:
    """Print a table for people, or as JSON records."""
    if as_json:
        print(json.dumps(records(frame)))
        return
    columns = []
    for name in frame:
        texts = [str(name), *map(_cell, frame[name])]
        width = max(map(len, texts))
        to_the = str.rjust if frame[name].dtype.kind in "fiu" else str.ljust
        columns.append([to_the(text, width) for text in texts])
    print("\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True)))


def put(line: object) -> None:
    """Print a line on stdout, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(str(line), file=sys.stdout)


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows as JSON knows them: what is not a finite number is null."""
    return json.loads(frame.to_json(orient="records", double_precision=15) or "[]")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        plain = f"{value:.1f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"
        return "" if math.isnan(value) else plain
    return str(value)


def named(tree: "xr.DataTree", frame: "pd.DataFrame") -> "pd.DataFrame":
    """The table of one fit with its study and law in front."""
    from bayesicl.tree import label, law_label

    head = {"study": label(tree), "law": law_label(tree)}
    return frame.assign(**head).loc[:, [*head, *(name for name in frame if name not in head)]]


# -- failures -------------------------------------------------------------------------------------


def complaint(tree: "xr.DataTree") -> str:
    """Why a fit is not to be relied on; "" where it is."""
    from bayesicl.tree import label

    return unreliable(label(tree), tree.attrs)


def unreliable(study: str, attrs: "Mapping[Any, Any]") -> str:
    """Why the fit of a study is not to be relied on, from its attributes; "" where it is."""
    from bayesicl.tree import same_laws

    if attrs["passed"]:
        return ""
    failures = "; ".join(json.loads(attrs["diagnostics"])["failures"])
    return f"not converged, do not rely on it: {study}, {same_laws(attrs)} ({failures})"


def finish(complaints: Iterable[str], failures: Iterable[str] = ()) -> int:
    """Say which fits failed their gates, and which could not be made; returns the exit code."""
    code = 0
    for worse, texts in ((3, complaints), (4, failures)):
        for text in filter(None, texts):
            say(text)
            code = worse
    return code


# -- writing --------------------------------------------------------------------------------------


def writable_folder(path: str | Path, option: str = "--out") -> Path:
    """Make the folder and prove that it can be written to; InputError where it cannot."""
    import tempfile

    if not str(path):
        raise InputError(f"{option} must name a folder, got nothing")
    folder = Path(path)
    try:
        if folder.is_file():
            raise InputError(f"{option} {folder}: is a file; name a folder, new or old")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{option} {folder}: cannot be written to ({reason})") from error
    return folder
