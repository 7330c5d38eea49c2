"""Tell task recognition from task learning: what do unpaired labels already give?

Works on fits of curves measured with gold and random labels (bayesicl collect --labels gold
random), which fit puts into one study: the gain with each, in probability or, of a mean nll, in
nats, what right labels add, and the share of the gain that recognition alone gives. Permuted and
symbol labels show their own gain: how well a new mapping is learned.

Example:
  bayesicl fit measured/curves.csv --out fits --outcome nll --law hill
  bayesicl recognition fits
"""

import argparse

from bayesicl.cli import common


def add_options(parser: common.Parser) -> None:
    """FITS, --shots, --level and --json."""
    common.add_fits(parser)
    common.add_moved_law(parser)
    parser.add_argument(
        "--shots", type=int, metavar="N",
        help="up to which gains count (default: the longest measured with gold and random)",
    )  # fmt: skip
    common.add_level(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print gains and shares, and what they come to."""
    from bayesicl.recognition import recognition, verdict

    trees = common.load_fits(args.fits)
    table = recognition(trees, at=args.shots, level=args.level, law=args.law)
    common.show(table, as_json=args.json)
    if not args.json:
        print(f"\n{verdict(table, level=args.level)}")
    return common.finish(map(common.complaint, trees))
