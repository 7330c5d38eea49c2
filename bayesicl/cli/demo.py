"""Tell the whole story on measured curves that come with bayesicl, in a few minutes.

Reads the bundled table, fits laws to some of its studies, says what their parameters are and which
of them the data do not identify, compares laws, forecasts held-out shots, contrasts two language
models and draws all figures. Everything is kept in DIR: fits/, tables/ and figures/.

Example:
  bayesicl demo --out demo
"""

import argparse

from bayesicl.cli import common


def add_options(parser: common.Parser) -> None:
    """--out."""
    parser.add_argument("--out", default="demo", metavar="DIR", help="(default demo)")


def run(args: argparse.Namespace) -> int:
    """Run the story; it prints as it goes."""
    from bayesicl.demo import story

    return story(args.out)
