"""Say what fits tell of each parameter, and what they do not.

Medians, intervals, how far the data moved each parameter from its prior, and in words which
parameters these data do not identify.

Example:
  bayesicl summary fits
  bayesicl summary fits --level 0.5 --json | jq '.[] | select(.identified)'
"""

import argparse

from bayesicl.cli import common

LEVEL = 0.9  # of the intervals that a fit keeps


def add_options(parser: common.Parser) -> None:
    """Fits, --level and --json."""
    common.add_fits(parser)
    common.add_level(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the text of each fit, or the records of all."""
    import pandas as pd

    from bayesicl.store import load_each
    from bayesicl.summary import summarise

    # Draws are needed for other intervals alone; what a fit says of itself is kept with it.
    trees = load_each(args.fits, draws=args.level != LEVEL)
    parts, complaints = [], []
    for i, tree in enumerate(trees):
        summary = summarise(tree, level=args.level)
        complaints.append(common.complaint(tree))
        if args.json:
            parts.append(common.named(tree, summary.table))
        else:
            print("\n" * (i > 0) + summary.text)
    if args.json:
        common.show(pd.concat(parts, ignore_index=True), as_json=True)
    return common.finish(complaints)
