"""Learn a prior from fits of whole curves: what is usual, for curves of the same kind to come.

Each fit must be of one curve, with one background, under declared priors. Give fits of at least 8
curves under each law (--noise misfit also learns how far laws miss). Curves weigh the same; with
--weigh-by COLUMN the values of a key (model, variant or task) do. Then --prior FILE takes laws,
noise and misfit to be as usual there; LAW@FILE is a single law under it, misfit@FILE the noise.
FILE also holds a hash of each curve's cells: a forecast that scores the rest of one says so.

Example:
  bayesicl fit curves.csv --out fits --law hill power --noise misfit
  bayesicl learn fits --out mine.json
  bayesicl forecast new.csv --prior mine.json --fit-shots 25% --out held
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesicl.population import Usual


def add_options(parser: common.Parser) -> None:
    """FITS and --out."""
    add = parser.add_argument
    add("fits", nargs="+", metavar="FIT", help="saved fits, or folders of them")
    add("--out", required=True, metavar="FILE", help="where the prior goes: a .json file")
    add("--source", metavar="TEXT", help="what the curves are, in words (default: the folders)")
    add(
        "--weigh-by", choices=("model", "variant", "task"), metavar="COLUMN",
        help="let each model (or variant, or task) weigh the same, however many curves it has",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Learn, write, and say what is usual."""
    from bayesicl.learn import learn
    from bayesicl.store import load_all
    from bayesicl.tree import label
    from bayesicl.writing import in_one_step

    out = Path(args.out)
    if out.suffix != ".json" or out.is_dir():
        raise InputError(f"--out {out}: name a file that ends in .json")
    trees = load_all(args.fits)
    failed = [tree for tree in trees if not tree.attrs["passed"]]
    kept = [tree for tree in trees if tree.attrs["passed"]]
    if not kept:
        raise InputError("no fit here has passed its gates: there is nothing to learn from")
    for tree in kept:
        if not tree["study"]["fitted"].all():
            raise InputError(f"{label(tree)}: cells were held out; learn from whole curves")
    groups = [_group(tree, args.weigh_by) for tree in kept]
    record = learn(kept, source=args.source or ", ".join(args.fits), groups=groups)
    table = _table(record, kept)
    with in_one_step(out) as part:
        part.write_text(json.dumps(record, indent=1) + "\n")
    common.show(table)
    curves = len({tree.attrs["data_hash"] for tree in kept})
    print(f"\nprior of {curves} curves in {out}; use it with --prior {out}")
    return common.finish(map(common.complaint, failed), ())


def _group(tree, column: str | None) -> str:
    """What weighs as one: all curves with its value of the column, or all there are."""
    key = json.loads(tree["study"].attrs["key"])
    if column and column not in key:
        raise InputError(f"--weigh-by {column}: studies here are by {', '.join(key)}")
    return key[column] if column else ""


def _table(record: dict, trees: "list[xr.DataTree]") -> "pd.DataFrame":
    """What is usual of each parameter: in its own units, and in the unconstrained space."""
    import numpy as np
    import pandas as pd

    from bayesicl.population import Usual, draws_of

    rows = []
    for kind in ("laws", "noises"):
        for name, told in record[kind].items():
            usual, curves = Usual.of(told), told["curves"]
            draws = draws_of(*_program(name, kind, trees, usual))
            for site, mean, sd in zip(
                usual.sites, usual.centre, np.sqrt(np.diag(told["scale"])), strict=True
            ):
                low, middle, high = np.quantile(draws[site], [0.05, 0.5, 0.95])
                rows.append((name, site, curves, middle, low, high, mean, sd))
    columns = ["of", "parameter", "curves", "median", "lower 90%", "upper 90%"]
    names = [*columns, "centre (log or log-odds)", "scale over curves"]
    return pd.DataFrame(rows, columns=names)


def _program(name: str, kind: str, trees: "list[xr.DataTree]", usual: "Usual"):
    """What samples these parameters, as some fit has it, and what `draws_of` takes beside it."""
    from bayesicl.misfit import SUFFIX, sample_misfit
    from bayesicl.noises import load_noise
    from bayesicl.population import MISFIT
    from bayesicl.program import arrays
    from bayesicl.tree import law_of, study_of

    own = [t for t in trees if name in (t.attrs["law"], t.attrs["noise"].removesuffix(SUFFIX))]
    study = study_of((own or trees)[0])
    design, data = arrays(study)
    if kind == "laws":
        return law_of(own[0]).model, usual, (design,)
    model = sample_misfit if name == MISFIT else load_noise(name, study.kind).model
    return model, usual, (design, data)
