"""Bayesian scaling laws for in-context learning: fit ICL curves, check them, extend them.

A table of measurements goes in; each study and law gets a posterior in a file of its own, from
which all other commands work.

Example:
  bayesicl fit curves.csv --out fits
  bayesicl summary fits
  bayesicl plot fits --out figures

Exit codes: 0 all is well, 2 bad input, 3 a fit that was made or used did not converge, a check did
not find a law calibrated, or no law of a forecast is adequate, 4 a fit broke down and was not made.
(Of fits by which a stack only weighs its laws some may fail: that is a caution while any are left.)
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bayesicl.cli import (
    check,
    collect,
    compare,
    contrast,
    demo,
    fit,
    forecast,
    import_,
    laws,
    learn,
    plot,
    recognition,
    summary,
)
from bayesicl.cli.common import say
from bayesicl.errors import CurveWarning, InputError

COMMANDS = (
    laws, import_, collect, fit, summary, compare, forecast, contrast, recognition, plot, check,
    learn, demo,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code of the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CurveWarning)
        warnings.showwarning = _curve_warnings_in_words(warnings.showwarning)
        try:
            args = parser().parse_args(argv)
            return args.run(args)
        except InputError as error:
            say(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            say("interrupted; what was finished is kept, and the same command goes on from there")
            return 130
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """All commands; the help of each is the docstring of its module."""
    import bayesicl

    top = _Parser(
        prog="bayesicl",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=bayesicl.__version__)
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        words = module.__doc__ or ""
        command = commands.add_parser(
            module.__name__.rpartition(".")[2].rstrip("_"),
            help=words.partition("\n")[0].rstrip("."),
            description=words,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_options(command)
        command.set_defaults(run=module.run)
    return top


def _curve_warnings_in_words(otherwise: Callable[..., None]) -> Callable[..., None]:
    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, CurveWarning):
            say(f"warning: {message}")
        else:
            otherwise(message, category, *where, **more)

    return show
