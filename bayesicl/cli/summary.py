"""Say what fits tell of each parameter, and what they do not.

Medians, intervals, how far the data moved each parameter from its prior, and in words which
parameters these data do not identify.

Example:
  bayesicl summary fits
  bayesicl summary fits --level 0.5 --json | jq '.[] | select(.identified)'
"""

import argparse

from bayesicl.cli import common


def add_options(parser: common.Parser) -> None:
    """Fits, --level and --json."""
    common.add_fits(parser)
    common.add_level(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the text of each fit, or the records of all."""
    import pandas as pd

    from bayesicl.summary import summarise

    trees = common.load_fits(args.fits)
    summaries = [summarise(tree, level=args.level) for tree in trees]
    if args.json:
        tables = [common.named(t, s.table) for t, s in zip(trees, summaries, strict=True)]
        common.show(pd.concat(tables, ignore_index=True), as_json=True)
    else:
        print("\n\n".join(summary.text for summary in summaries))
    return common.finish(map(common.complaint, trees))
