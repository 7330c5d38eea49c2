"""What `forecast` tells of one fit or stack after the other."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.cli.fit import fit_table, tell_share
from bayesicl.cli.seen import Seen
from bayesicl.cli.stacks import ORIGINS, SHOTS, STACK, Stacked, stacks
from bayesicl.errors import CurveWarning, InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesicl.alarm import Heard
    from bayesicl.curves import Curves
    from bayesicl.scale import Scale


@dataclass(frozen=True)
class Verdict:
    """What speaks against one fit or stack.

    named: study and law. share: of the shots, that was fitted. split: of each curve, how many cells
    were. complaint: why a fit is not to be relied on. heard: what speaks against its laws. factor:
    by which its bands are wider for that.
    """

    named: dict[str, str]
    share: float
    split: tuple[int, ...]
    complaint: str
    heard: "Heard"
    factor: float = 1.0


@dataclass(frozen=True)
class Told:
    """What is told of one fit or stack: what it predicts, and how that fared.

    fitted: how much of each curve was, and whether its fits converged. cells: scores of what was
    held out, if anything was. sensitivity: of the mean curve to the prior.
    """

    verdict: Verdict
    fitted: "pd.DataFrame"
    prediction: "xr.Dataset"
    cells: "pd.DataFrame | None"
    sensitivity: "pd.DataFrame"


def told_of(
    args: argparse.Namespace, failures: list[str], weights: "list[pd.DataFrame]"
) -> Iterator[Told]:
    """One fit or stack after the other.

    `failures` takes why some fits are not there, `weights` those of the stacks' laws; args.shots
    are chosen where none were asked for.
    """
    import pandas as pd

    from bayesicl.law import load_law

    of_table = not _holds_fits(args.source[0])
    if of_table and args.law is None and args.noise is None and args.backgrounds == 1:
        args.law = [STACK]  # the recommended one
    laws, seen = args.law or [], Seen()
    if of_table:
        for law in sorted(set(laws) - {STACK, "paper", "all"}):
            load_law(law)  # a name that is none is told before all else
    if STACK not in laws:
        args.shots = args.shots or SHOTS
        if args.plot is not None:
            raise InputError(f"--plot is for --law {STACK}; draw fits with bayesicl plot")
        for source in args.source:
            if Path(source, ORIGINS).is_dir():
                common.say(
                    f"{source} holds the laws of a stack, forecast here one by one; for the "
                    "mixture give the table's command again: its fits are kept"
                )
        for tree in _fits(args, failures):
            yield _of_fit(tree, args, seen)
        return
    if others := [law for law in laws if law != STACK and not law.endswith(".py")]:
        raise InputError(
            f"--law {STACK} has laws of its own, those that its prior knows: leave out "
            f"{others[0]}; only files of your own laws may stand beside it"
        )
    if args.noise is not None or args.backgrounds != 1:
        raise InputError(
            f"--law {STACK} has its own noise and one background: leave out --noise and "
            "--backgrounds"
        )
    if args.plot is not None:
        if args.shots == [0]:
            raise InputError("--plot draws up to the last of --shots: name some beyond 0")
        common.writable_folder(args.plot, "--plot")
    for stack in stacks(_table(args), args, failures):
        table = {"study": stack.study, "law": stack.laws}
        weights.append(pd.DataFrame(table | {"usual": stack.usual, "weight": stack.weights}))
        yield _of_stack(stack, args, seen)


def _grid(args: argparse.Namespace) -> list[int]:
    """Where paths are drawn, to see them cross, and the last shots that can be doubled."""
    from bayesicl.forecast import curve_shots

    last = max(args.shots)
    return sorted({*args.shots, last // 2, *curve_shots(last)})


def _of_fit(tree: "xr.DataTree", args: argparse.Namespace, seen: Seen) -> Told:
    from bayesicl.alarm import judge
    from bayesicl.forecast import predict
    from bayesicl.score import score_cells
    from bayesicl.sensitivity import sensitivity
    from bayesicl.tree import label, law_label, study_of

    # Beside saved fits --law tells where a law is; a table's fits know it.
    law = args.law[0] if args.law and args.out is None else None
    cells = None
    if not tree["study"]["fitted"].all():
        cells = score_cells(tree, law=law, seed=args.seed)
    prediction = predict(tree, _grid(args), law=law, seed=args.seed)
    named = {"study": label(tree), "law": law_label(tree)}
    asked = {"shots": args.shots, "threshold": args.threshold}
    moved = sensitivity([tree], [prediction], **asked, law=law)
    heard = seen.flattered(judge([tree], [1.0], law=law, seed=args.seed), tree)
    fitted = _fitted([tree])
    share, split = study_of(tree).fraction, tuple(fitted["cells"])
    verdict = Verdict(named, share, split, common.complaint(tree), heard)
    return Told(verdict, fitted, prediction, cells, moved)


def _fitted(trees: "Sequence[xr.DataTree]") -> "pd.DataFrame":
    """How much of each curve of a study was fitted, and whether every fit passed its gates."""
    import pandas as pd

    from bayesicl.tree import study_of

    study, rows = study_of(trees[0]), []
    for h, name in enumerate(study.hypotheses):
        cells = study.cells[study.cells["hypothesis"] == h]
        shots = cells.loc[cells["fitted"], "shots"]
        row = {"hypothesis": name, "cells": len(shots), "from": shots.min(), "to": shots.max()}
        rows.append(row | {"held_out": len(cells) - len(shots)})
    return pd.DataFrame(rows).assign(converged=all(tree.attrs["passed"] for tree in trees))


def _of_stack(stack: Stacked, args: argparse.Namespace, seen: Seen) -> Told:
    from bayesicl.alarm import in_words
    from bayesicl.files import file_name
    from bayesicl.forecast import predict
    from bayesicl.plot import plot_stack, save_figure
    from bayesicl.score import held_out, own_rng, scored
    from bayesicl.sensitivity import sensitivity
    from bayesicl.stack import mix, mix_predictions
    from bayesicl.tree import study_of
    from bayesicl.widen import widened, widened_cells

    study, cells, grid = study_of(stack.trees[0]), None, _grid(args)
    heard = seen.flattered(stack.heard, stack.trees[0])
    if not study.cells["fitted"].all():
        parts = [held_out(tree, seed=args.seed) for tree in stack.trees]
        whole = mix(parts, stack.weights, seed=args.seed)
        cells = scored(widened_cells(whole, study, stack.factor), STACK, own_rng(study, args.seed))
    predictions = [predict(tree, grid, seed=args.seed) for tree in stack.trees]
    prediction = mix_predictions(predictions, stack.weights, seed=args.seed)
    prediction = widened(prediction, study, stack.factor)
    if args.plot is not None:
        cautions = [f"caution: {text}." for text in heard.cautions]
        wrong = [in_words(heard.rung, stack.factor), *cautions]
        figure = plot_stack(
            stack.trees, predictions, stack.weights, prediction,
            threshold=args.threshold, wrong=wrong,
        )  # fmt: skip
        name = f"{file_name(study, STACK)}.png"
        common.say(f"drawn: {save_figure(figure, Path(args.plot, name))}")
    named, fitted = {"study": stack.study, "law": STACK}, _fitted(stack.trees)
    worse = "; ".join(filter(None, [*map(common.complaint, stack.trees), stack.complaint]))
    asked = {"shots": args.shots, "threshold": args.threshold}
    return Told(
        Verdict(named, study.fraction, tuple(fitted["cells"]), worse, heard, stack.factor),
        fitted,
        prediction,
        cells,
        sensitivity(stack.trees, predictions, stack.weights, **asked),
    )


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
        if args.law and not args.law[0].endswith(".py"):
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
    stacked = STACK in (args.law or ())
    read = _apart if stacked else common.read_table
    curves = read(args, first)
    _check_levels(args, curves.scale)
    if args.fit_shots is None and args.fit_points is None and not stacked:
        raise InputError(
            f"{first} is a table: say how much of each curve to fit, such as --fit-shots 25%, and "
            f"the rest is scored; to forecast beyond all of it, `bayesicl fit {first} --out DIR`, "
            "then `bayesicl forecast DIR`"
        )
    if not args.out:
        raise InputError(f"{first} is a table: say where its fits go with --out DIR")
    if args.keep_draws == 0:
        raise InputError("--keep-draws none: predictions need draws; leave it out")
    tell_share(args.fit_shots, curves)
    return curves


def _apart(args: argparse.Namespace, table: str) -> "Curves":
    """The curves of a table, each a study of its own where a study has several."""
    import warnings

    curves = common.read_table(args, table)
    if all(len(study.hypotheses) == 1 for study in curves):
        return curves
    common.say("learned priors know single curves: each hypothesis is forecast on its own")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CurveWarning)  # told once
        return common.read_table(args, table, [*args.by, "hypothesis"])


def _check_levels(args: argparse.Namespace, scale: "Scale") -> None:
    """Whether --threshold and --gain can be asked of such curves."""
    from bayesicl.decide import check_between

    for option in ("threshold", "gain"):
        if (value := getattr(args, option)) is not None:
            check_between(f"--{option}", value, scale)


def _holds_fits(source: str) -> bool:
    return Path(source).is_dir() or Path(source).suffix in (".nc", ".zarr")
