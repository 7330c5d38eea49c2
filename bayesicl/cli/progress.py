"""How far long work is: on one line of a terminal, else in a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bayesicl.cli.common import say

QUIET = 15.0  # seconds between lines about what is done, where there is no terminal


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is done: on one line, or in lines QUIET seconds apart."""
    from tqdm import tqdm

    with tqdm(bar_format="{desc}", leave=False, file=sys.stderr, disable=None) as bar:
        last = time.monotonic()

        def show(what: str) -> None:
            nonlocal last
            if not bar.disable:
                bar.set_description_str(what)
            elif time.monotonic() - last > QUIET:
                say(what)
                last = time.monotonic()

        yield show


@contextmanager
def counted(total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    """Give a function that shows how many are done, and how long the rest will take.

    It is called first with how many were there before, if any were: the pace is that of the others.
    """
    from tqdm import tqdm

    with tqdm(
        total=total, file=sys.stderr, disable=None, dynamic_ncols=True, leave=False,
        bar_format="{bar:20} {n}/{total} {elapsed}<{remaining} {desc}",
    ) as bar:  # fmt: skip
        start, kept, said = time.monotonic(), None, 0

        def progress(done: int, what: str) -> None:
            nonlocal kept, said
            if kept is None:
                kept = bar.initial = said = done
            bar.set_description_str(what, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()
            if bar.disable and done >= said + max(1, total // 10):  # no terminal
                said, took = done, time.monotonic() - start
                left = took / (done - kept) * (total - done)
                say(f"{done} of {total} {unit}, about {left / 60:.0f} min left")

        yield progress
        if kept:
            say(f"{kept} of {total} {unit} were finished before and are kept")
