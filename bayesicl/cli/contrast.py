"""Contrast two variants or models on the same tasks: what differs between their fits?

Differences, second minus first, of belief before the first demonstration (logit pi), efficiency
(log K), of gamma, beta or P, and of the curves themselves, law by law.

Example:
  bayesicl contrast fits --between variant=base,instruct
  bayesicl contrast fits --between model=small,large --shots 0,16
"""

import argparse

from bayesicl.cli import common


def add_options(parser: common.Parser) -> None:
    """Fits, the two sides, shots, --level and --json."""
    common.add_fits(parser)
    common.add_moved_law(parser)
    parser.add_argument(
        "--between", type=_sides, required=True, metavar="COLUMN=FIRST,SECOND",
        help="the column that tells the two sides apart, and its two values",
    )  # fmt: skip
    parser.add_argument(
        "--shots", type=common.shot_list, metavar="N,N,...",
        help="where curves are contrasted (default: 0 and the longest that both fitted)",
    )  # fmt: skip
    common.add_level(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the differences law by law, and what they come to."""
    import pandas as pd

    from bayesicl.contrast import contrast, verdict
    from bayesicl.tree import label, law_label, owners

    trees = common.load_fits(args.fits)
    names = [(label(tree), law_label(tree)) for tree in trees]
    tables = {
        law: contrast(
            [tree for tree, name in zip(trees, names, strict=True) if name in own],
            between=args.between, at=args.shots, level=args.level, law=args.law,
        )
        for law, own in owners(names).items()
    }  # fmt: skip
    if args.json:
        common.show(pd.concat([t.assign(law=law) for law, t in tables.items()]), as_json=True)
    else:
        for law, table in tables.items():
            print(f"law {law}: second minus first, {100 * args.level:g}% intervals")
            for _, pair in table.groupby(["task", "first", "second"], sort=False):
                first, second = pair["first"].iloc[0], pair["second"].iloc[0]
                print(f"\nfirst   {first}\nsecond  {second}")
                common.show(pair.drop(columns=["task", "first", "second"]))
            print()
            print(f"{verdict(table)}\n")
    return common.finish(map(common.complaint, trees))


def _sides(text: str) -> tuple[str, str, str]:
    column, _, values = text.partition("=")
    sides = [value for value in values.split(",") if value]
    if not column or len(sides) != 2 or sides[0] == sides[1]:
        raise argparse.ArgumentTypeError(
            f"must be a column and two different values, like variant=base,instruct, got {text!r}"
        )
    return column, sides[0], sides[1]
