"""Arguments of the benchmarks that run `bayesicl fit`."""

import argparse
import sys


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """The benchmark's own arguments, and those after `--`, which are for `bayesicl fit`."""
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    return parser.parse_args(given[:at]), given[at + 1 :]
