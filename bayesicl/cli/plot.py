"""Draw fits: curves, belief, predictive checks, and figures over many fits.

One file a figure in DIR; curves, belief and ppc (posterior predictive check) for each fit, forest
(all parameters) and comparison (of laws) over all of them.

Example:
  bayesicl plot fits --out figures
  bayesicl plot fits --out figures --kind curves --log-shots --shots 1000 --format pdf
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

KINDS = ("curves", "belief", "ppc", "forest", "comparison")


def add_options(parser: common.Parser) -> None:
    """Fits, where to write, and what to draw."""
    common.add_fits(parser)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="folder for the figures")
    add("--kind", choices=(*KINDS, "all"), default="all", help="(default all)")
    add("--format", choices=("png", "svg", "pdf"), default="png", help="(default png)")
    add("--log-shots", action="store_true", help="draw shots on the scale of log(1 + shots)")
    add("--shots", type=int, metavar="N", help="draw up to N shots (default: the longest measured)")


def run(args: argparse.Namespace) -> int:
    """Draw, save and name the files."""
    trees = common.load_fits(args.fits)
    with common.status() as progress:
        for path in draw(
            trees, args.out, kind=args.kind, longest=args.shots, log_shots=args.log_shots,
            ending=args.format, progress=progress,
        ):  # fmt: skip
            common.put(path)
    return common.finish(map(common.complaint, trees))


def draw(
    trees: "Sequence[xr.DataTree]",
    out: str | Path,
    *,
    kind: str = "all",
    longest: int | None = None,
    log_shots: bool = False,
    ending: str = "png",
    progress: Callable[[str], None] = lambda what: None,
) -> Iterator[Path]:
    """Draw and save figures one at a time; "all" leaves out what fits have no use for."""
    from bayesicl.plot import save_figure

    folder = common.writable_folder(out)
    wanted = KINDS if kind == "all" else (kind,)
    for tree in trees:
        for name, figure in _of_one(tree, wanted, longest, log_shots, kind == "all"):
            progress(name)
            yield save_figure(figure, folder / f"{name}.{ending}")
    for name, figure in _of_all(trees, wanted, kind == "all", progress):
        yield save_figure(figure, folder / f"{name}.{ending}")


def _of_one(
    tree: "xr.DataTree", wanted: Sequence[str], longest: int | None, log_shots: bool, fitting: bool
) -> "Iterator[tuple[str, Figure]]":
    from bayesicl.forecast import predict
    from bayesicl.plot import plot_belief, plot_curves, plot_ppc
    from bayesicl.tree import file_name, study_of

    study = study_of(tree)
    name = file_name(study, tree.attrs["law"])
    if study.fraction < 1:  # beside the same study fitted whole
        name += f"_first-{100 * study.fraction:.0f}%"
    if "curves" in wanted or "belief" in wanted:
        prediction = predict(tree, _grid(longest or int(study.cells["shots"].max())))
        if "curves" in wanted:
            yield (
                f"{name}_curves",
                plot_curves(tree, prediction=prediction, log_shots=log_shots),
            )
        if "belief" in wanted and ("belief" in prediction or not fitting):
            yield (
                f"{name}_belief",
                plot_belief(tree, prediction=prediction, log_shots=log_shots),
            )
    if "ppc" in wanted:
        yield f"{name}_ppc", plot_ppc(tree, log_shots=log_shots)


def _of_all(
    trees: "Sequence[xr.DataTree]",
    wanted: Sequence[str],
    fitting: bool,
    progress: Callable[[str], None],
) -> "Iterator[tuple[str, Figure]]":
    from bayesicl.compare import compare
    from bayesicl.plot import plot_comparison, plot_forest

    if "forest" in wanted:
        yield "forest", plot_forest(trees)
    if "comparison" in wanted:
        try:
            table = compare(trees, progress=progress).table
        except InputError as error:
            if not fitting:
                raise
            common.say(f"no figure of a comparison: {error}")
        else:
            title = f"{table['cells'][0]} cells left out one at a time"
            yield "comparison", plot_comparison(table, title=title)


def _grid(longest: int) -> list[int]:
    """Shots at which a curve looks smooth on either scale."""
    import numpy as np

    even = np.linspace(0, longest, 80)
    return sorted({round(n) for n in (*even, *np.expm1(np.linspace(0, np.log1p(longest), 80)))})
