"""Draw fits: curves, belief, predictive checks, and figures over many fits.

One file a figure in DIR; curves, belief and ppc (posterior predictive check) for each fit, forest
(all parameters) and comparison (of laws) over all of them.

Example:
  bayesicl plot fits --out figures
  bayesicl plot fits --out figures --kind curves --log-shots --shots 1000 --format pdf
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.cli.progress import status
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

KINDS = ("curves", "belief", "ppc", "forest", "comparison")


def add_options(parser: common.Parser) -> None:
    """Fits, where to write, and what to draw."""
    common.add_fits(parser)
    common.add_moved_law(parser)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="folder for the figures")
    add("--kind", choices=(*KINDS, "all"), default="all", help="(default all)")
    add("--format", choices=("png", "svg", "pdf"), default="png", help="(default png)")
    add("--log-shots", action="store_true", help="draw shots on the scale of log(1 + shots)")
    add("--shots", type=int, metavar="N", help="draw up to N shots (default: the longest measured)")


def run(args: argparse.Namespace) -> int:
    """Draw, save and name the files."""
    from bayesicl.checks import MAX_SHOTS
    from bayesicl.plot import save_figure

    if args.shots is not None and not 1 <= args.shots <= MAX_SHOTS:
        raise InputError(f"--shots must lie between 1 and {MAX_SHOTS}, got {args.shots}")
    trees = common.load_fits(args.fits)
    kinds = KINDS if args.kind == "all" else (args.kind,)
    with status() as progress:
        drawn = [
            figures_of_fits(
                trees, kinds, longest=args.shots, log_shots=args.log_shots, law=args.law
            ),
            figures_over_fits(trees, kinds, progress, law=args.law),
        ]
        for name, figure in chain.from_iterable(drawn):
            progress(name)
            path = common.writable_folder(args.out) / f"{name}.{args.format}"
            common.put(save_figure(figure, path))
    return common.finish(map(common.complaint, trees))


def figures_of_fits(
    trees: "Sequence[xr.DataTree]",
    kinds: Sequence[str],
    *,
    longest: int | None = None,
    log_shots: bool = False,
    law: str | None = None,
) -> "Iterator[tuple[str, Figure]]":
    """Names and figures of each fit; no belief is an error only where nothing else is asked for."""
    from bayesicl.files import file_name
    from bayesicl.forecast import curve_shots, predict
    from bayesicl.plot import plot_belief, plot_curves, plot_ppc
    from bayesicl.tree import study_of

    for tree in trees:
        study = study_of(tree)
        name = file_name(study, tree.attrs["law"])
        if "curves" in kinds or "belief" in kinds:
            last = int(study.cells["shots"].max()) if longest is None else longest
            prediction = predict(tree, curve_shots(last).tolist(), law=law)
            drawn = {"prediction": prediction, "log_shots": log_shots}
            if "curves" in kinds:
                yield f"{name}_curves", plot_curves(tree, **drawn)
            if kinds == ("belief",) or ("belief" in kinds and "belief" in prediction):
                yield f"{name}_belief", plot_belief(tree, **drawn)
        if "ppc" in kinds:
            yield f"{name}_ppc", plot_ppc(tree, log_shots=log_shots)


def figures_over_fits(
    trees: "Sequence[xr.DataTree]",
    kinds: Sequence[str],
    progress: Callable[[str], None] = lambda what: None,
    *,
    law: str | None = None,
) -> "Iterator[tuple[str, Figure]]":
    """Names and figures over all fits; what cannot be compared is an error only if asked alone."""
    from bayesicl.compare import compare
    from bayesicl.plot import plot_comparison, plot_forest

    if "forest" in kinds:
        yield "forest", plot_forest(trees)
    if "comparison" in kinds:
        try:
            compared = compare(trees, law=law, progress=progress)
        except InputError as error:
            if kinds == ("comparison",):
                raise
            common.say(f"no figure of a comparison: {error}")
        else:
            table, studies = compared.table, compared.studies["study"].unique()
            of = studies[0] if len(studies) == 1 else f"{len(studies)} studies"
            title = f"{of}: {table['cells'].iloc[0]} cells, left out one at a time"
            yield "comparison", plot_comparison(table, title=title)
