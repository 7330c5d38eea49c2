"""Compare laws that were fitted to the same data, by leaving out one cell at a time.

A cell is one curve at one number of shots. A study of fewer than 30 cells is fitted again without
each of them, a larger one where importance sampling fails: as long as that many fits. Prints
expected log predictive densities, stacking weights, and a verdict that claims no more than the data
can decide.

Example:
  bayesicl fit curves.csv --out fits --law scoring power
  bayesicl compare fits
"""

import argparse

from bayesicl.cli import common
from bayesicl.cli.progress import status


def add_options(parser: common.Parser) -> None:
    """Fits, --law and --json."""
    common.add_fits(parser)
    common.add_moved_law(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table of laws, that of studies where there are several, and the verdict."""
    from bayesicl.compare import compare

    trees = common.load_fits(args.fits)
    with status() as progress:
        comparison = compare(trees, law=args.law, progress=progress)
    common.show(comparison.table, as_json=args.json)
    if not args.json:
        if comparison.table["studies"].iloc[0] > 1:
            print()
            common.show(comparison.studies)
        print(f"\n{comparison.verdict}")
    return common.finish(map(common.complaint, trees))
