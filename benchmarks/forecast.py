"""Forecasts of held-out cells of real curves, by bayesicl's laws and by peers, scored alike.

    python benchmarks/forecast.py --data DIR --out DIR
    python benchmarks/forecast.py --data DIR --out DIR --laws scoring power:misfit \\
        --default power:misfit --fractions 10 --peers gp last_value

DIR of --data holds the sources' CSV files. Each curve's beginning is fitted (--fractions, in
percent of its longest shots but at least 5 cells; --rolling: the first 5, 6, 8, 11, ... cells) and
the means of the cells that follow are forecast. What is done is kept in --out, and the same command
goes on where it was killed. Curves that are expected to collapse (failures.csv) and those without
learning stand apart. A law may name its noise, LAW:NOISE, such as power:misfit.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from holdouts import tables
from holdouts.sides import OTHERS, UNSEEN, How, run_law, run_peer, run_stack
from holdouts.sources import (
    FAILURES,
    SOURCES,
    Unit,
    committed_failures,
    list_failures,
    read_sources,
    units,
)
from peers import lcpfn
from peers.every import NOT_RUN, PEERS

from bayesicl.cli.stacks import FAR
from bayesicl.errors import InputError
from bayesicl.settings import Settings
from bayesicl.stack import STRENGTH

LAWS = ("scoring", "power", "bounded", "logistic", "discounted_scoring")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with the sources' CSV files")
    add("--out", type=Path, help="folder for fits, scores and tables")
    add("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES), metavar="NAME")
    add("--fractions", nargs="*", type=float, default=[5, 10, 20, 50], metavar="PERCENT")
    add("--rolling", action="store_true", help="rolling origins, too")
    add("--laws", nargs="*", default=list(LAWS), metavar="LAW[:NOISE]")
    add("--noise", help="of all laws that do not name their own")
    add("--priors", type=Path, help="folder of learn_population.py, for LAW@others")
    add("--unseen", default=UNSEEN[0], choices=UNSEEN, help="what these priors have not seen")
    add("--stacked", nargs="*", default=[], metavar="LAW[:NOISE]", help="laws of a stack")
    add(
        "--usual",
        nargs="*",
        type=float,
        metavar="W",
        help="their weights before any was tried (default: by what is not left out)",
    )
    add("--stack", nargs="+", type=float, default=[STRENGTH], metavar="STRENGTH")
    add("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), metavar="NAME")
    add("--lcpfn", type=Path, metavar="FILE", help="weights of train_lcpfn.py: one more peer")
    add("--default", help="side that others are compared with (default: the last law)")
    add("--processes", type=int, default=2, help="that fit laws (default 2)")
    add("--warmup", type=int, default=Settings().warmup)
    add("--draws", type=int, default=Settings().draws)
    add("--list-failures", action="store_true", help="rewrite failures.csv by its rule, and stop")
    args = parser.parse_args()
    if args.out is None and not args.list_failures:
        parser.error("say where fits, scores and tables go: --out DIR")
    if args.noise:
        args.laws = [law if ":" in law else f"{law}:{args.noise}" for law in args.laws]
    known = [*args.laws, *args.peers, *(["lcpfn"] if args.lcpfn else [])]
    args.default = args.default or (args.laws or args.peers or known or [""])[-1]
    if args.default not in known and not args.default.startswith("stack"):
        parser.error(f"--default must be one of the laws and peers asked for, got {args.default!r}")
    return args


def alarm_rates(weights: pd.DataFrame, asked: Sequence[Unit]) -> pd.DataFrame:
    """How many units rang, by part and split. weights: a stack's, of `run_stack`."""
    part = {(unit.source, unit.study.label): unit.part for unit in asked}
    own = weights.dropna(subset=["study"])
    own = own.assign(
        part=[part[key] for key in zip(own["source"], own["study"], strict=True)],
        rang=own["alarms"].fillna("") != "",
        split=own["splits"].str.split(),
    ).explode("split")
    return own.groupby(["part", "split"])["rang"].agg(rang="sum", units="size")


def main() -> None:
    args = parse()
    peers = {name: (name, PEERS[name]) for name in args.peers}  # with the name of what is kept
    if args.lcpfn:
        peers["lcpfn"] = lcpfn.load(args.lcpfn)
    sources = read_sources(args.data, args.sources)
    if args.list_failures:
        list_failures(sources).to_csv(FAILURES, index=False, lineterminator="\n")
        return
    asked = units(sources, committed_failures(sources), args.fractions, args.rolling)
    if any(OTHERS in spec for spec in (*args.laws, *args.stacked)):
        several = {u.study.label for u in asked if len(u.study.hypotheses) > 1}
        asked = [unit for unit in asked if unit.study.label not in several]
        print(f"left out, of several hypotheses: {len(several)} studies", file=sys.stderr)
    if not asked:
        raise InputError("no split leaves anything to predict: see --fractions and --rolling")
    (args.out / "scored").mkdir(parents=True, exist_ok=True)
    sides, failures, alarms = {}, [], []
    how = How(
        args.out,
        Settings(warmup=args.warmup, draws=args.draws),
        args.processes,
        args.priors,
        args.unseen,
    )
    for spec in args.laws:
        sides[spec], broken = run_law(spec, asked, how)
        failures += broken
    for strength in args.stack if args.stacked else ():
        name = f"stack {strength:g}" if len(args.stack) > 1 else "stack"
        sides[name], broken, weights = run_stack(args.stacked, args.usual, asked, how, strength)
        weights.to_csv(args.out / f"{name}.csv", index=False)
        alarms.append(f"{name}:\n{alarm_rates(weights, asked).to_string()}")
        failures += broken
    for name, (kept, peer) in peers.items():
        sides[name] = run_peer(kept, peer, asked, args.out)
    cells, events = tables.cells_table(asked, sides)
    splits = [f"{x:g}%" for x in args.fractions]
    splits += ["rolling", "rolling, next"] if args.rolling else []
    splits += [tables.EVERY] if len(splits) > 1 else []
    table = tables.summary(cells, events, splits, args.default)
    cells.to_csv(args.out / "cells.csv", index=False)
    events.to_csv(args.out / "reach.csv", index=False)
    whole = [split for split in splits if "," not in split]
    tables.reliability(events, whole).to_csv(args.out / "reliability.csv", index=False)
    table.to_csv(args.out / "table.csv", index=False)
    print(tables.markdown(table, args.default))
    beyond = tables.far(cells, args.default, FAR).to_string()
    print(f"\nBeyond {FAR} times the fitted shots, 90 % intervals of {args.default}:\n{beyond}")
    for rates in alarms:
        print(f"\nCurves at each split that rang an alarm, {rates}")
    for name, why in NOT_RUN.items():
        if name not in sides:
            print(f"\n{name}: not run, {why}")
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)


if __name__ == "__main__":
    with np.errstate(under="ignore"):
        try:
            main()
        except InputError as error:
            sys.exit(f"error: {error}")
